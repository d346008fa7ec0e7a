//! The whole agent: an API server that lists and watches, a folder that looks like a node, and the operator's real
//! intake.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use axum::{Router, body::Body, extract::State, http::Uri, response::IntoResponse};
use catamaran_agent::{run, settings::Settings};
use catamaran_operator::intake::{
    Intake,
    authentication::{Authenticator, Identity, ReviewError},
    hooks::{Observer, Placed, Placement},
    metrics::IntakeMetrics,
    serve,
    settings::{Account, Timing},
    store::{Keep, Reading, UsageStore},
    tls::CertificateFiles,
};
use catamaran_protocol::node_quota::fingerprint;
use catamaran_protocol::stream::{identity::PodIdentity, proto::QuotaState, snapshot::PodReading};
use clap::Parser;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

const SERVER_NAME: &str = "catamaran-usage.test";
const WITHIN: Duration = Duration::from_secs(20);

async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match probe().await {
            Some(value) => return Ok(value),
            None if Instant::now() > deadline => bail!("{what}: not within {WITHIN:?}"),
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Lists one pod, and watches.
#[derive(Clone)]
struct Api {
    pod: Arc<Mutex<Value>>,
    events: broadcast::Sender<Value>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Api {
    async fn start(pod: Value) -> Result<(Self, kube::Client)> {
        let (events, _) = broadcast::channel(16);
        let api = Self { pod: Arc::new(Mutex::new(pod)), events, asked: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = kube::Config::new(format!("http://{address}").parse()?);
        Ok((api, kube::Client::try_from(config)?))
    }

    /// The pod changes.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut pod = self.pod.lock().expect("the pod");
        change(&mut pod);
        // Whoever does not watch yet lists it.
        let _ = self.events.send(json!({"type": "MODIFIED", "object": *pod}));
    }
}

async fn answer(State(api): State<Api>, uri: Uri) -> impl IntoResponse {
    api.asked.lock().expect("questions").push(uri.to_string());
    if uri.query().is_some_and(|query| query.contains("watch=true")) {
        let events = stream::unfold(api.events.subscribe(), |mut events| async {
            events.recv().await.ok().map(|event| (event, events))
        });
        return Body::from_stream(events.map(|event| Ok::<_, std::io::Error>(format!("{event}\n"))));
    }
    let pod = api.pod.lock().expect("the pod").clone();
    let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [pod]});
    Body::from(list.to_string())
}

fn pod(quota: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": "web-1", "uid": "u1", "resourceVersion": "1",
            "labels": {"catamaran.dev/workload": "web"}, "annotations": {"catamaran.dev/node-quota": quota},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "x"}]},
        "status": {"containerStatuses": [
            {"name": "main", "containerID": "containerd://c1",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
        ]},
    })
}

/// Knows one token, of one node.
struct Tokens;

impl Authenticator for Tokens {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>> {
        let identity =
            Identity { username: "system:serviceaccount:system:agent".to_owned(), node: Some("node-1".to_owned()) };
        let known = token == "token-1";
        let answer = if known { Ok(identity) } else { Err(ReviewError::Invalid("unknown".to_owned())) };
        std::future::ready(answer).boxed()
    }
}

struct Everywhere;

impl Placement for Everywhere {
    fn check(&self, _: &PodIdentity, _: &str) -> Placed {
        Placed::Here
    }
}

/// Keeps what is said of quotas.
#[derive(Clone, Default)]
struct Quotas(Arc<Mutex<Vec<QuotaState>>>);

impl Observer for Quotas {
    fn reported(&self, _: &[Arc<PodIdentity>]) {}

    fn read(&self, _: &Reading<'_>, pods: &[PodReading]) {
        self.0.lock().expect("quotas").extend(pods.iter().filter_map(|pod| pod.quota().cloned()));
    }
}

/// The intake of one replica of the operator.
struct Replica {
    address: SocketAddr,
    store: UsageStore,
    quotas: Quotas,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Replica {
    async fn start(folder: &Path, address: &str) -> Result<Self> {
        let (store, quotas) = (UsageStore::new(Keep::default()), Quotas::default());
        let intake = Intake {
            certificate: CertificateFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") },
            account: "system/agent".parse::<Account>()?,
            max_streams: 10,
            timing: Timing::default(),
            authenticator: Arc::new(Tokens),
            placement: Arc::new(Everywhere),
            observer: Arc::new(quotas.clone()),
            store: store.clone(),
            metrics: IntakeMetrics::register(&mut Registry::default()),
        };
        let listener = TcpListener::bind(address).await?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            serve(listener, intake, stopped).await;
        });
        Ok(Self { address, store, quotas, stop, serving })
    }

    async fn end(self) -> Result<SocketAddr> {
        self.stop.cancel();
        tokio::time::timeout(WITHIN, self.serving).await??;
        Ok(self.address)
    }

    /// The CPU of the pod's only container.
    fn millicores(&self) -> Option<u64> {
        let usage = self.store.pod("shop", "web-1")?;
        let (_, container) = usage.containers().next()?;
        container.rates.map(|rates| rates.cpu_millicores)
    }
}

fn certificates(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([SERVER_NAME.to_owned()])?.signed_by(&key, &authority)?;
    fs::write(folder.join("tls.key"), key.serialize_pem())?;
    fs::write(folder.join("tls.crt"), certificate.pem())?;
    fs::write(folder.join("ca.crt"), authority.pem())?;
    fs::write(folder.join("token"), "token-1\n")?;
    Ok(())
}

const POD: &str = "cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu1.slice";

fn container(folder: &Path, file: &str) -> PathBuf {
    folder.join(POD).join("cri-containerd-c1.scope").join(file)
}

fn cgroups(folder: &Path) -> Result<()> {
    let files = container(folder, "");
    fs::create_dir_all(&files)?;
    fs::write(folder.join("cgroup/cgroup.controllers"), "cpu memory pids\n")?;
    for (file, text) in [("cpu.stat", "usage_usec 0\n"), ("memory.current", "4096\n"), ("pids.max", "max\n")] {
        fs::write(files.join(file), text)?;
    }
    Ok(())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn settings(folder: &Path, intake: SocketAddr) -> Result<Settings> {
    let path = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        ("--node", "node-1".to_owned()),
        ("--cgroup-root", path("cgroup")),
        ("--sys-block", path("block")),
        ("--usage-service", intake.to_string()),
        ("--usage-server-name", SERVER_NAME.to_owned()),
        ("--usage-ca", path("ca.crt")),
        ("--usage-token", path("token")),
        ("--on-stop", "undo".to_owned()),
    ];
    let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    Ok(Settings::try_parse_from(["catamaran-agent".to_owned()].into_iter().chain(arguments))?)
}

/// The answer of the agent to a GET: status line and body.
async fn get(address: SocketAddr, path: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
}

async fn is_ready(address: SocketAddr) -> Option<()> {
    get(address, "/readyz").await.ok().filter(|(status, _)| status.contains("200")).map(|_| ())
}

/// The files of a CPU-bound container: half a core until it is dropped.
fn burn(folder: &Path) -> tokio_util::task::AbortOnDropHandle<()> {
    let file = container(folder, "cpu.stat");
    tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        let started = Instant::now();
        loop {
            let usage = started.elapsed().as_micros() / 2;
            // Renamed into place would be another file: the agent keeps this one open. The length never shrinks.
            let _ = fs::write(&file, format!("usage_usec {usage:020}\n"));
            sleep(Duration::from_millis(5)).await;
        }
    }))
}

#[tokio::test]
async fn a_node_is_sampled_and_held() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    certificates(folder)?;
    cgroups(folder)?;
    let pids = container(folder, "pids.max");
    let _burning = burn(folder);
    let (api, client) = Api::start(pod(r#"{"container":"main","pidsMax":64}"#)).await?;
    let replica = Replica::start(folder, "127.0.0.1:0").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, stop) = (listener.local_addr()?, CancellationToken::new());
    let agent = tokio::spawn(run::serve(settings(folder, replica.address)?, client, listener, stop.clone()));

    eventually("the agent is ready", async || is_ready(address).await).await?;
    let cpu = eventually("usage arrives", async || replica.millicores().filter(|cpu| *cpu > 0)).await?;
    assert!((300..=700).contains(&cpu), "half a core, not {cpu} millicores");
    eventually("the quota is held", async || (text(&pids) == "64").then_some(())).await?;
    fs::write(&pids, "max\n")?;
    eventually("the quota is held again", async || (text(&pids) == "64").then_some(())).await?;

    // The operator is away, and comes back empty at the same address.
    let at = replica.end().await?;
    eventually("the loss is counted", async || {
        let (_, metrics) = get(address, "/metrics").await.ok()?;
        metrics.contains("catamaran_agent_connected_replicas 0").then_some(())
    })
    .await?;
    eventually("the agent stays ready", async || is_ready(address).await).await?;
    let replica = Replica::start(folder, &at.to_string()).await?;
    eventually("usage arrives again", async || replica.millicores()).await?;

    // Another quota, a hostile one, and none, by the watch.
    let annotate =
        |quota: &str| api.change(|pod| pod["metadata"]["annotations"]["catamaran.dev/node-quota"] = quota.into());
    annotate(r#"{"container":"main","pidsMax":65}"#);
    eventually("the new quota is held", async || (text(&pids) == "65").then_some(())).await?;
    annotate(r#"{"container":"main","pidsMax":-1}"#);
    eventually("it is set back", async || (text(&pids) == "max").then_some(())).await?;
    annotate(r#"{"container":"main","pidsMax":66}"#);
    eventually("the new quota is held", async || (text(&pids) == "66").then_some(())).await?;

    let (_, metrics) = get(address, "/metrics").await?;
    for line in [
        "catamaran_agent_pods 1",
        "catamaran_agent_containers 1",
        "catamaran_agent_cgroup_version 2",
        r#"catamaran_agent_knob_writes_total{file="pids.max",reason="reassert"} 1"#,
        r#"catamaran_agent_knob_writes_total{file="pids.max",reason="undo"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(get(address, "/healthz").await?.0.contains("200"));

    stop.cancel();
    tokio::time::timeout(WITHIN, agent).await???;
    assert_eq!(text(&pids), "max", "nothing is left behind");
    let asked = api.asked.lock().expect("questions").clone();
    assert!(
        asked
            .iter()
            .all(|uri| uri.starts_with("/api/v1/pods?") && uri.contains("fieldSelector=spec.nodeName%3Dnode-1")),
        "nothing but this node's pods is asked for: {asked:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_node_with_cgroup_v1_is_told_and_the_process_stays() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::create_dir_all(folder.path().join("cgroup/memory"))?;
    certificates(folder.path())?;
    let annotation = r#"{"container":"main","pidsMax":64}"#;
    let (_api, client) = Api::start(pod(annotation)).await?;
    let replica = Replica::start(folder.path(), "127.0.0.1:0").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, stop) = (listener.local_addr()?, CancellationToken::new());
    let settings = settings(folder.path(), replica.address)?;
    let agent = tokio::spawn(run::serve(settings, client, listener, stop.clone()));
    let told = eventually("it is told", async || {
        get(address, "/readyz").await.ok().filter(|(_, body)| body.contains("cgroup v1"))
    });
    let (status, body) = told.await?;
    assert!(status.contains("503") && body.contains("quotas are not enforced"), "{status} {body}");
    assert!(get(address, "/healthz").await?.0.contains("200"), "no reason for a restart");
    assert!(get(address, "/metrics").await?.1.contains("catamaran_agent_cgroup_version 1"));
    let of_pod = eventually("the operator is told", async || replica.quotas.0.lock().expect("quotas").last().cloned());
    let of_pod = of_pod.await?;
    assert!(of_pod.refused.contains("cgroup v1") && of_pod.fingerprint == fingerprint(annotation), "{of_pod:?}");
    assert!(!agent.is_finished());
    stop.cancel();
    tokio::time::timeout(WITHIN, agent).await???;
    Ok(())
}
