//! An intake with stand-ins for the API server, and what the tests do with it.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Result, bail};
use catamaran_operator::intake::{
    Intake,
    authentication::{Authenticator, Identity, ReviewError},
    hooks::{Observer, Placed, Placement},
    metrics::IntakeMetrics,
    serve,
    settings::{Account, Timing},
    store::{Keep, UsageStore},
    tls::CertificateFiles,
};
use catamaran_protocol::stream::{
    Counters,
    identity::{ContainerIdentity, PodIdentity},
    reporter::{Config, Replicas, Reporter},
    snapshot::{PodReading, Snapshot},
};
use futures::{FutureExt, future::BoxFuture};
use prometheus_client::{encoding::text::encode, registry::Registry};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    net::TcpListener,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// The name in the intake's certificate.
pub const SERVER_NAME: &str = "catamaran-usage.test";
/// The account of agents.
pub const ACCOUNT: &str = "system:serviceaccount:system:agent";
/// The longest that anything here takes.
pub const WITHIN: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match probe() {
            Some(value) => return Ok(value),
            None if Instant::now() > deadline => bail!("{what}: not within {WITHIN:?}"),
            None => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits for something that ends by itself.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(WITHIN, future).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("{what}: not within {WITHIN:?}"),
    }
}

/// The tokens that are good, as the API server would know them.
#[derive(Clone, Default)]
pub struct Tokens(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    tokens: HashMap<String, Identity>,
    down: bool,
    reviews: usize,
}

impl Tokens {
    /// A token of the agents' account on a node, which is `token-NODE`.
    pub fn issue(&self, node: &str) -> String {
        self.add(&format!("token-{node}"), ACCOUNT, Some(node))
    }

    pub fn add(&self, token: &str, username: &str, node: Option<&str>) -> String {
        let identity = Identity { username: username.to_owned(), node: node.map(str::to_owned) };
        self.0.lock().expect("tokens").tokens.insert(token.to_owned(), identity);
        token.to_owned()
    }

    /// It expires.
    pub fn expire(&self, token: &str) {
        self.0.lock().expect("tokens").tokens.remove(token);
    }

    /// Whether the API server cannot be reached.
    pub fn down(&self, down: bool) {
        self.0.lock().expect("tokens").down = down;
    }

    pub fn reviews(&self) -> usize {
        self.0.lock().expect("tokens").reviews
    }
}

impl Authenticator for Tokens {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>> {
        let mut known = self.0.lock().expect("tokens");
        known.reviews += 1;
        let answer = match (known.down, known.tokens.get(token)) {
            (true, _) => Err(ReviewError::Unavailable("the API server is down".to_owned())),
            (false, None) => Err(ReviewError::Invalid("unknown or expired".to_owned())),
            (false, Some(identity)) => Ok(identity.clone()),
        };
        std::future::ready(answer).boxed()
    }
}

/// Where pods run.
#[derive(Clone, Default)]
pub struct Pods(Arc<Mutex<Placements>>);

#[derive(Default)]
struct Placements {
    everywhere: bool,
    /// By `namespace/name`: node and uid.
    pods: BTreeMap<String, (String, String)>,
}

impl Pods {
    /// Every pod runs where it is reported.
    pub fn everywhere(&self) {
        self.0.lock().expect("pods").everywhere = true;
    }

    pub fn run(&self, pod: &PodIdentity, node: &str) {
        let key = format!("{}/{}", pod.namespace(), pod.name());
        self.0.lock().expect("pods").pods.insert(key, (node.to_owned(), pod.uid().to_owned()));
    }
}

impl Placement for Pods {
    fn check(&self, pod: &PodIdentity, node: &str) -> Placed {
        let placements = self.0.lock().expect("pods");
        let place = placements.pods.get(&format!("{}/{}", pod.namespace(), pod.name()));
        match place {
            _ if placements.everywhere => Placed::Here,
            None => Placed::Unknown,
            Some((place, _)) if place != node => Placed::OtherNode,
            Some((_, uid)) if uid != pod.uid() => Placed::OtherUid,
            Some(_) => Placed::Here,
        }
    }
}

/// How often each pod was told to have new usage.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<String, usize>>>);

impl Seen {
    pub fn times(&self, pod: &PodIdentity) -> usize {
        let key = format!("{}/{}", pod.namespace(), pod.name());
        self.0.lock().expect("seen").get(&key).copied().unwrap_or_default()
    }
}

impl Observer for Seen {
    fn reported(&self, pods: &[Arc<PodIdentity>]) {
        let mut seen = self.0.lock().expect("seen");
        for pod in pods {
            *seen.entry(format!("{}/{}", pod.namespace(), pod.name())).or_default() += 1;
        }
    }
}

/// A certificate authority and what it signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// Writes a certificate for [`SERVER_NAME`] and its key.
    pub fn sign(&self, files: &CertificateFiles) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([SERVER_NAME.to_owned()])?.signed_by(&key, &self.0)?;
        std::fs::write(&files.key, key.serialize_pem())?;
        std::fs::write(&files.certificate, certificate.pem())?;
        Ok(())
    }
}

/// The test with a thousand agents runs alone: the others have times to keep, and would wait for its work.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// With whom a test shares the machine.
enum Company {
    Others {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Nobody {
        _guard: RwLockWriteGuard<'static, ()>,
    },
    /// Its test has a ground already.
    AsBefore,
}

/// A running intake.
pub struct Ground {
    pub address: SocketAddr,
    pub tokens: Tokens,
    pub pods: Pods,
    pub seen: Seen,
    pub store: UsageStore,
    pub files: CertificateFiles,
    pub ca_file: PathBuf,
    pub stop: CancellationToken,
    pub serving: JoinHandle<()>,
    registry: Registry,
    folder: tempfile::TempDir,
    _company: Company,
}

/// What differs from the product.
pub struct Differences {
    pub keep: Keep,
    pub timing: Timing,
    pub max_streams: u32,
    /// The file of the certificate holds none at the start.
    pub broken_certificate: bool,
    /// Who is told of usage, in place of `seen`.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Differences {
    fn default() -> Self {
        Self {
            keep: Keep::default(),
            timing: Timing::default(),
            max_streams: 5000,
            broken_certificate: false,
            observer: None,
        }
    }
}

impl Ground {
    pub async fn start(differences: Differences) -> Result<Self> {
        Self::start_in(differences, Company::Others { _guard: MACHINE.read().await }).await
    }

    /// While no other test runs.
    pub async fn start_alone(differences: Differences) -> Result<Self> {
        Self::start_in(differences, Company::Nobody { _guard: MACHINE.write().await }).await
    }

    /// One more in the same test.
    pub async fn start_second(differences: Differences) -> Result<Self> {
        Self::start_in(differences, Company::AsBefore).await
    }

    async fn start_in(differences: Differences, company: Company) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let files = CertificateFiles { certificate: file("tls.crt"), key: file("tls.key") };
        let authority = Authority::new()?;
        authority.sign(&files)?;
        std::fs::write(file("ca.crt"), authority.certificate())?;
        if differences.broken_certificate {
            std::fs::write(&files.certificate, "not a certificate")?;
        }
        let mut registry = Registry::default();
        let (tokens, pods, seen) = (Tokens::default(), Pods::default(), Seen::default());
        let store = UsageStore::new(differences.keep);
        let intake = Intake {
            certificate: files.clone(),
            account: "system/agent".parse::<Account>()?,
            max_streams: differences.max_streams,
            timing: differences.timing,
            authenticator: Arc::new(tokens.clone()),
            placement: Arc::new(pods.clone()),
            observer: differences.observer.unwrap_or_else(|| Arc::new(seen.clone())),
            store: store.clone(),
            metrics: IntakeMetrics::register(&mut registry),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let serving = tokio::spawn(serve(listener, intake, stop.clone()));
        let ca_file = file("ca.crt");
        Ok(Self {
            address,
            tokens,
            pods,
            seen,
            store,
            files,
            ca_file,
            stop,
            serving,
            registry,
            folder,
            _company: company,
        })
    }

    /// A file of this test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The value of a metric, named as in its text, labels included; nothing is 0.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("metrics have a text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// An agent with a good token.
    pub fn agent(&self, node: &str) -> Result<Agent> {
        self.agent_with(node, &self.tokens.issue(node))
    }

    /// An agent with a token of any kind.
    pub fn agent_with(&self, node: &str, token: &str) -> Result<Agent> {
        let token_file = self.file(&format!("token-of-{node}"));
        std::fs::write(&token_file, token)?;
        let config = Config {
            node: node.to_owned(),
            boot_id: "boot-1".to_owned(),
            replicas: Replicas::Addresses(vec![self.address]),
            server_name: SERVER_NAME.to_owned(),
            ca_file: self.ca_file.clone(),
            token_file,
        };
        Ok(Agent { reporter: Reporter::start(config.clone()), config, address: self.address })
    }
}

/// The real client.
pub struct Agent {
    pub reporter: Reporter,
    pub config: Config,
    address: SocketAddr,
}

impl Agent {
    /// Reports until it is acknowledged, again and again in case a stream breaks.
    pub async fn report(&self, snapshot: Snapshot) -> Result<()> {
        let before = self.status().acknowledged;
        let mut sent = Instant::now();
        self.reporter.report(snapshot.clone());
        eventually("a report is acknowledged", || {
            if sent.elapsed() > Duration::from_secs(1) {
                sent = Instant::now();
                self.reporter.report(snapshot.clone());
            }
            (self.status().acknowledged > before).then_some(())
        })
        .await
    }

    pub fn status(&self) -> catamaran_protocol::stream::reporter::Status {
        self.reporter.status().remove(&self.address).unwrap_or_default()
    }

    pub fn token_file(&self) -> &Path {
        &self.config.token_file
    }
}

/// A pod with one container.
pub fn pod(name: &str, uid: &str) -> Arc<PodIdentity> {
    pod_with(name, uid, "life-1")
}

/// The same with a container of some id.
pub fn pod_with(name: &str, uid: &str, container: &str) -> Arc<PodIdentity> {
    let container = ContainerIdentity::new("main", container.to_owned()).expect("valid");
    Arc::new(PodIdentity::new("shop", name, uid, [container]).expect("valid"))
}

/// A snapshot at `millis` by the agent's clock, in which every pod has used CPU so far.
pub fn snapshot(millis: u64, pods: &[(&Arc<PodIdentity>, u64)]) -> Snapshot {
    let pods = pods.iter().map(|(pod, cpu_usage_usec)| {
        let counters = Counters {
            cpu_usage_usec: *cpu_usage_usec,
            memory_working_set_bytes: 64 << 20,
            throttling: None,
            pressure: None,
        };
        PodReading::new((*pod).clone(), vec![counters]).expect("one container")
    });
    let unix_usec = jiff::Timestamp::now().as_microsecond();
    Snapshot { taken: Duration::from_millis(millis), unix_usec, pods: pods.collect() }
}

impl Ground {
    /// The CPU use of a pod's only container.
    pub fn millicores(&self, pod: &PodIdentity) -> Option<u64> {
        let usage = self.store.pod(pod.namespace(), pod.name())?;
        let (_, container) = usage.containers().next()?;
        container.rates.map(|rates| rates.cpu_millicores)
    }
}
