//! The usage intake and the usage simulator with the real API server: its tokens, its pods.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use catamaran_e2e::{
    control_plane::ControlPlane,
    usage::{
        demand::Demand,
        simulator::{Faults, Settings, UsageSimulator},
        world::Load,
    },
    wait::eventually,
    workloads::{pod_is_ready, pods},
};
use catamaran_operator::intake::{
    Intake,
    hooks::{Observer, Placed, Placement},
    metrics::IntakeMetrics,
    serve,
    settings::{Account, Timing},
    store::{Keep, PodUsage, UsageStore},
    tls::CertificateFiles,
    token_review::TokenReviewer,
};
use catamaran_protocol::stream::{
    identity::PodIdentity,
    rates::{Rates, Share},
    reporter::{Config, Replicas, Reporter},
};
use futures::StreamExt;
use jiff::SignedDuration;
use k8s_openapi::api::{
    apps::v1::Deployment,
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

const SYSTEM: &str = "catamaran-system";
const AGENT: &str = "catamaran-agent";
const AUDIENCE: &str = "catamaran-usage";
const SERVER_NAME: &str = "catamaran-usage.catamaran-system.svc";
const WITHIN: Duration = Duration::from_secs(60);

/// Where the API server says that pods run.
struct Pods(Store<Pod>);

impl Placement for Pods {
    fn check(&self, pod: &PodIdentity, node: &str) -> Placed {
        let found = self.0.get(&ObjectRef::new(pod.name()).within(pod.namespace()));
        match found {
            None => Placed::Unknown,
            Some(found) if found.uid().as_deref() != Some(pod.uid()) => Placed::OtherUid,
            Some(found) if found.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(node) => {
                Placed::OtherNode
            }
            Some(_) => Placed::Here,
        }
    }
}

struct Nobody;

impl Observer for Nobody {
    fn reported(&self, _: &[Arc<PodIdentity>]) {}
}

/// A control plane, and an intake that asks it.
struct Ground {
    control_plane: ControlPlane,
    client: Client,
    address: SocketAddr,
    ca_file: PathBuf,
    store: UsageStore,
    folder: tempfile::TempDir,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Ground {
    async fn start(nodes: u32, timing: Timing) -> Result<Self> {
        let control_plane = ControlPlane::builder().kwok_nodes(nodes).start().await?;
        let client = control_plane.client();
        control_plane.create_namespace(SYSTEM).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM);
        for name in [AGENT, "operator", "stranger"] {
            let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": name}}))?;
            accounts.create(&PostParams::default(), &account).await?;
        }
        // Who asks for reviews may do nothing else.
        let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
        let group = "rbac.authorization.k8s.io";
        let binding = serde_json::from_value(json!({
            "metadata": {"name": "operator-reviews-tokens"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": SYSTEM}],
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
        let reviewer = Client::try_from(control_plane.config_for_service_account(SYSTEM, "operator").await?)?;

        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let (certificate, key, ca_file) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
        let authority = CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate()?)?;
        let pair = KeyPair::generate()?;
        std::fs::write(&key, pair.serialize_pem())?;
        let signed = CertificateParams::new([SERVER_NAME.to_owned()])?.signed_by(&pair, &authority)?;
        std::fs::write(&certificate, signed.pem())?;
        std::fs::write(&ca_file, authority.pem())?;

        let (pods, writer) = reflector::store();
        let events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
        let watch = tokio::spawn(events.reflect(writer).for_each(|_| std::future::ready(())));
        let store = UsageStore::new(Keep::default());
        let intake = Intake {
            certificate: CertificateFiles { certificate, key },
            account: Account { namespace: SYSTEM.to_owned(), name: AGENT.to_owned() },
            max_streams: 100,
            timing,
            authenticator: Arc::new(TokenReviewer::new(reviewer, AUDIENCE.to_owned())),
            placement: Arc::new(Pods(pods)),
            observer: Arc::new(Nobody),
            store: store.clone(),
            metrics: IntakeMetrics::register(&mut Registry::default()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            serve(listener, intake, CancellationToken::new()).await;
        });
        let tasks = [watch, serving].map(AbortOnDropHandle::new);
        Ok(Self { control_plane, client, address, ca_file, store, folder, _tasks: tasks })
    }

    fn simulator(&self) -> Result<UsageSimulator> {
        let settings = Settings::new(vec![self.address], SERVER_NAME, self.ca_file.clone());
        UsageSimulator::start(self.client.clone(), settings)
    }

    /// The pods of a workload, once so many are ready.
    async fn pods(&self, workload: &str, count: usize) -> Result<Vec<Pod>> {
        eventually(&format!("{count} pods of {workload}"), WITHIN, || async {
            let all = pods(&self.client, "default", workload).await?;
            let ready: Vec<Pod> = all.into_iter().filter(pod_is_ready).collect();
            Ok((ready.len() == count).then_some(ready))
        })
        .await
    }

    fn usage(&self, pod: &Pod) -> Option<PodUsage> {
        self.store.pod(&pod.namespace()?, &pod.name_any())
    }

    fn rates(&self, pod: &Pod) -> Option<Rates> {
        self.usage(pod)?.containers().next()?.1.rates
    }

    /// Waits for the rates of a pod.
    async fn until(&self, what: &str, pod: &Pod, done: impl Fn(Option<Rates>) -> bool) -> Result<()> {
        let outcome = eventually(what, WITHIN, || async { Ok(done(self.rates(pod)).then_some(())) }).await;
        outcome.with_context(|| format!("{:?}", self.usage(pod)))
    }

    async fn token(&self, account: &str, audience: &str, pod: Option<&Pod>) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), SYSTEM);
        let bound_object_ref = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.uid(),
        });
        let audiences = vec![audience.to_owned()];
        let spec = TokenRequestSpec { audiences, bound_object_ref, expiration_seconds: Some(600) };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        Ok(answer.status.context("a token")?.token)
    }

    /// A pod of an account on a node.
    async fn pod(&self, account: &str, node: &str) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM);
        let containers = json!([{"name": "agent", "image": "agent"}]);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": format!("{account}-{node}")},
            "spec": {"nodeName": node, "serviceAccountName": account, "containers": containers},
        }))?;
        Ok(pods.create(&PostParams::default(), &pod).await?)
    }

    fn reporter(&self, node: &str, token: &str) -> Result<Reporter> {
        let token_file = self.folder.path().join("token");
        std::fs::write(&token_file, token)?;
        Ok(Reporter::start(Config {
            node: node.to_owned(),
            boot_id: "boot".to_owned(),
            replicas: Replicas::Addresses(vec![self.address]),
            server_name: SERVER_NAME.to_owned(),
            ca_file: self.ca_file.clone(),
            token_file,
        }))
    }

    /// Why a reporter has no stream.
    async fn error(&self, reporter: &Reporter) -> Result<String> {
        let address = self.address;
        eventually("an error", WITHIN, || async {
            Ok(reporter.status().get(&address).and_then(|status| status.last_error.clone()))
        })
        .await
    }

    async fn stop(self) {
        self.control_plane.stop();
    }
}

fn deployment(name: &str, replicas: u32) -> Value {
    let labels = json!({"catamaran.dev/workload": name});
    let container = json!({
        "name": "main",
        "image": "web",
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}},
        "env": [{"name": "KWOK_START_DELAY", "value": "100ms"}],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_of_simulated_pods_arrives() -> Result<()> {
    let ground = Ground::start(3, Timing::default()).await?;
    let simulator = ground.simulator()?;
    simulator.load("default", "web", Load { base_cores: 0.0, ..Load::cores(0.9) });
    let deployments: Api<Deployment> = Api::namespaced(ground.client.clone(), "default");
    let apply = PatchParams::apply("test").force();
    deployments.patch("web", &apply, &Patch::Apply(deployment("web", 3))).await?;

    // Spread over the ready pods...
    let pods = ground.pods("web", 3).await?;
    for pod in &pods {
        ground
            .until("a third each", pod, |rates| rates.is_some_and(|rates| rates.cpu_millicores.abs_diff(300) <= 1))
            .await?;
        let usage = ground.usage(pod).context("usage")?;
        assert_eq!(Some(usage.pod.uid()), pod.metadata.uid.as_deref());
        assert_eq!(Some(&*usage.node), pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()));
    }
    // ...and capped at the limit, where the pods are throttled...
    let step = Demand::Step { before: 0.9, after: 6.0, at: Duration::from_secs(1) };
    simulator.load("default", "web", Load { base_cores: 0.0, ..Load::with_demand(step) });
    for pod in &pods {
        let capped = |rates: Rates| rates.cpu_millicores == 500 && rates.throttled == Some(Share::ALL);
        ground.until("the limit", pod, |rates| rates.is_some_and(capped)).await?;
    }
    // ...until there are more of them: scaling feeds back.
    deployments.patch("web", &apply, &Patch::Apply(deployment("web", 15))).await?;
    for pod in &ground.pods("web", 15).await? {
        let calm = |rates: Rates| rates.cpu_millicores.abs_diff(400) <= 1 && rates.throttled == Some(Share::default());
        ground.until("a fifteenth each", pod, |rates| rates.is_some_and(calm)).await?;
    }
    drop(simulator);
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_give_no_wrong_rate() -> Result<()> {
    let ground = Ground::start(1, Timing::default()).await?;
    let simulator = ground.simulator()?;
    simulator.load("default", "web", Load { base_cores: 0.0, ..Load::cores(0.25) });
    let deployments: Api<Deployment> = Api::namespaced(ground.client.clone(), "default");
    let apply = PatchParams::apply("test").force();
    deployments.patch("web", &apply, &Patch::Apply(deployment("web", 1))).await?;
    let pod = &ground.pods("web", 1).await?.remove(0);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a node")?;
    let right = |rates: Option<Rates>| rates.is_some_and(|rates| rates.cpu_millicores.abs_diff(250) <= 1);
    ground.until("a rate", pod, right).await?;

    // Whatever is seen from here on is right or missing.
    let (store, watched) = (ground.store.clone(), pod.name_any());
    let watch = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let usage = store.pod("default", &watched);
            let rates = usage.as_ref().and_then(|usage| usage.containers().next()?.1.rates);
            if let Some(rates) = rates.filter(|rates| rates.cpu_millicores.abs_diff(250) > 1) {
                return rates;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }));
    simulator.faults(&node, Faults { stopped: true, ..Faults::default() });
    eventually("it is stale", WITHIN, || async { Ok(ground.usage(pod).is_none().then_some(())) }).await?;
    simulator.faults(&node, Faults::default());
    ground.until("the agent is back", pod, right).await?;

    let an_hour = SignedDuration::from_hours(1);
    for faults in [
        Faults { steady_clock: an_hour, ..Faults::default() },
        Faults { steady_clock: -an_hour, wall_clock: -an_hour, ..Faults::default() },
        Faults { wall_clock: an_hour, dropped: 0.3, ..Faults::default() },
        Faults::default(),
    ] {
        simulator.faults(&node, faults);
        simulator.restart_agent(&node);
        ground.until("a rate after a fault", pod, right).await?;
    }
    for reset in [UsageSimulator::reset_counters, UsageSimulator::restart_containers] {
        assert!(reset(&simulator, "default", &pod.name_any()));
        ground.until("no rate after a reset", pod, |rates| rates.is_none()).await?;
        ground.until("a rate after a reset", pod, right).await?;
    }
    assert!(!watch.is_finished(), "a wrong rate: {:?}", watch.await?);
    drop(simulator);
    ground.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_knows_whose_a_token_is() -> Result<()> {
    let timing = Timing { review: Duration::from_millis(500), ..Timing::default() };
    let ground = Ground::start(2, timing).await?;
    let nodes = ground.control_plane.client();
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(nodes);
    let names: Vec<String> = nodes.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    let [here, there] = <[String; 2]>::try_from(names).ok().context("two nodes")?;
    let (agent, stranger) = (ground.pod(AGENT, &here).await?, ground.pod("stranger", &here).await?);
    let good = ground.token(AGENT, AUDIENCE, Some(&agent)).await?;
    let forged = format!("{}x", good.trim_end_matches(|c: char| c != '.'));
    for (token, node, expected) in [
        (forged, &here, "Unauthenticated"),
        (ground.token(AGENT, "https://kubernetes.default.svc", Some(&agent)).await?, &here, "Unauthenticated"),
        (ground.token(AGENT, AUDIENCE, None).await?, &here, "PermissionDenied: the token is bound to no node"),
        (ground.token("stranger", AUDIENCE, Some(&stranger)).await?, &here, "PermissionDenied: the token is of"),
        (good.clone(), &there, "PermissionDenied: the token is bound to the node"),
    ] {
        let error = ground.error(&ground.reporter(node, &token)?).await?;
        assert!(error.starts_with(expected), "{error} should start with {expected}");
    }

    // The good one is good, until its pod is gone.
    let reporter = ground.reporter(&here, &good)?;
    eventually("a stream", WITHIN, || async {
        Ok(reporter.status().get(&ground.address).filter(|status| status.streams > 0).map(|_| ()))
    })
    .await?;
    let pods: Api<Pod> = Api::namespaced(ground.client.clone(), SYSTEM);
    pods.delete(&agent.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let error = ground.error(&reporter).await?;
    assert!(error.starts_with("Unauthenticated"), "{error}");
    drop(reporter);
    ground.stop().await;
    Ok(())
}
