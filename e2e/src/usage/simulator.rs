//! One agent for each node that has pods, over the real protocol, with faults on demand.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use catamaran_crds::names::WORKLOAD_LABEL;
use catamaran_protocol::stream::{
    reporter::{self, Replicas, Reporter},
    snapshot::Snapshot,
};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{interval_at, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{
    pods,
    tokens::Tokens,
    world::{Activity, Load, WorkloadId, World},
};

/// Nodes are looked for so often.
const NODES_EVERY: Duration = Duration::from_millis(250);
/// After a node's agent could not be started.
const PAUSE: Duration = Duration::from_secs(1);

/// What is simulated, and to whom it is reported.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The replicas of the operator.
    pub replicas: Vec<SocketAddr>,
    /// The name in their certificate.
    pub server_name: String,
    /// The authority that signed it (PEM).
    pub ca_file: PathBuf,
    /// The namespace of the agents' ServiceAccount, which must exist.
    pub namespace: String,
    /// The name of the agents' ServiceAccount.
    pub account: String,
    /// The audience of their tokens.
    pub audience: String,
    /// The label of pods whose value is the name of their workload; pods without it are not simulated.
    pub label: String,
    /// How often each node reports.
    pub interval: Duration,
    /// The load of workloads that were given none.
    pub load: Load,
    /// Of all randomness.
    pub seed: u64,
}

impl Settings {
    /// The product's own names, and a report each second.
    #[must_use]
    pub fn new(replicas: Vec<SocketAddr>, server_name: &str, ca_file: PathBuf) -> Self {
        Self {
            replicas,
            server_name: server_name.to_owned(),
            ca_file,
            namespace: "catamaran-system".to_owned(),
            account: "catamaran-agent".to_owned(),
            audience: "catamaran-usage".to_owned(),
            label: WORKLOAD_LABEL.to_owned(),
            interval: Duration::from_secs(1),
            load: Load::default(),
            seed: 1,
        }
    }
}

/// What is wrong with the agent of a node. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// It does not run: no stream, no reports.
    pub stopped: bool,
    /// The part of its reports that it does not send.
    pub dropped: f64,
    /// By how much the node's wall clock is wrong.
    pub wall_clock: SignedDuration,
    /// By how much its steady clock has jumped. A real one does not; an agent that takes another clock for it would.
    pub steady_clock: SignedDuration,
}

/// Runs until it is dropped.
pub struct UsageSimulator {
    shared: Arc<Shared>,
    _tasks: Vec<AbortOnDropHandle<()>>,
    _folder: tempfile::TempDir,
}

/// What the tasks share.
pub(super) struct Shared {
    started: Instant,
    world: Mutex<World>,
    faults: Mutex<BTreeMap<String, Faults>>,
    agents: Mutex<BTreeMap<String, Reporter>>,
}

impl Shared {
    /// Changes the world as it is now.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World, Duration) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        // Within the lock: time does not go back from one change to the next.
        change(&mut world, self.started.elapsed())
    }

    fn faults(&self) -> MutexGuard<'_, BTreeMap<String, Faults>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<String, Reporter>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsageSimulator {
    /// Starts to watch pods and to report for their nodes. `client` must be allowed to make pods and tokens.
    ///
    /// # Errors
    /// When there is no place for the tokens.
    pub fn start(client: Client, settings: Settings) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for tokens")?;
        let shared = Arc::new(Shared {
            started: Instant::now(),
            world: Mutex::new(World::new(settings.seed, settings.load.clone())),
            faults: Mutex::default(),
            agents: Mutex::default(),
        });
        let tokens = Tokens {
            client: client.clone(),
            namespace: settings.namespace.clone(),
            account: settings.account.clone(),
            audience: settings.audience.clone(),
            folder: folder.path().to_owned(),
        };
        let watch = tokio::spawn(pods::watch(client, settings.label.clone(), shared.clone()));
        let nodes = tokio::spawn(nodes(settings, tokens, shared.clone()));
        Ok(Self { shared, _tasks: [watch, nodes].map(AbortOnDropHandle::new).into(), _folder: folder })
    }

    /// From now on a workload has another load. Its demand starts at its zero.
    pub fn load(&self, namespace: &str, workload: &str, load: Load) {
        self.shared.change(|world, now| world.set_load(&id(namespace, workload), load, now));
    }

    /// What goes on in a workload; the means are since the last call for it.
    #[must_use]
    pub fn activity(&self, namespace: &str, workload: &str) -> Activity {
        self.shared.change(|world, now| world.activity(&id(namespace, workload), now))
    }

    /// From now on a node's agent has these faults. One that was stopped starts again as a new process.
    pub fn faults(&self, node: &str, faults: Faults) {
        if faults.stopped {
            self.shared.agents().remove(node);
        }
        self.shared.faults().insert(node.to_owned(), faults);
    }

    /// Gives one pod work of its own from now on, in cores, beside its share of the demand.
    pub fn own_work(&self, pod: &str, cores: f64) {
        self.shared.change(|world, _| world.set_own_work(pod, cores));
    }

    /// A node's agent is restarted: a new process with new streams.
    pub fn restart_agent(&self, node: &str) {
        self.shared.agents().remove(node);
    }

    /// The counters of a pod go back to zero, without a restart of its containers. Whether it is simulated.
    pub fn reset_counters(&self, namespace: &str, pod: &str) -> bool {
        self.shared.change(|world, _| world.reset(namespace, pod, false))
    }

    /// The containers of a pod are restarted by their runtime: other ids, counters from zero. Whether it is simulated.
    pub fn restart_containers(&self, namespace: &str, pod: &str) -> bool {
        self.shared.change(|world, _| world.reset(namespace, pod, true))
    }

    /// How it goes with the streams of each node's agent, by node and replica.
    #[must_use]
    pub fn streams(&self) -> BTreeMap<String, BTreeMap<SocketAddr, reporter::Status>> {
        self.shared.agents().iter().map(|(node, agent)| (node.clone(), agent.status())).collect()
    }
}

/// Starts an agent for each node as soon as it has pods.
async fn nodes(settings: Settings, tokens: Tokens, shared: Arc<Shared>) {
    let (mut known, mut tasks) = (HashSet::new(), Vec::new());
    loop {
        for node in shared.change(|world, _| world.nodes()) {
            if known.insert(node.clone()) {
                let number = u32::try_from(known.len()).unwrap_or(u32::MAX);
                let agent = agent(node, number, settings.clone(), tokens.clone(), shared.clone());
                tasks.push(AbortOnDropHandle::new(tokio::spawn(agent)));
            }
        }
        sleep(NODES_EVERY).await;
    }
}

/// The agent of one node.
async fn agent(node: String, number: u32, settings: Settings, tokens: Tokens, shared: Arc<Shared>) {
    while let Err(error) = tokens.issue(&node).await {
        tracing::warn!(node, error = format!("{error:#}"), "an agent has no token yet");
        sleep(PAUSE).await;
    }
    let _renewal = AbortOnDropHandle::new(tokio::spawn(tokens.clone().keep(node.clone())));
    let config = reporter::Config {
        node: node.clone(),
        boot_id: format!("simulated-{}", settings.seed),
        replicas: Replicas::Addresses(settings.replicas),
        server_name: settings.server_name,
        ca_file: settings.ca_file,
        token_file: tokens.file(&node),
    };
    // Nodes report at different moments, as they were started at different ones: each a golden ratio after the one
    // before.
    let phase = settings.interval.mul_f64((f64::from(number) * 0.618_033_988_749_895).fract());
    let mut rng = StdRng::seed_from_u64(settings.seed.wrapping_add(u64::from(number)));
    let mut ticks = interval_at(tokio::time::Instant::now() + phase, settings.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let faults = shared.faults().get(&node).copied().unwrap_or_default();
        let dropped = rng.random_bool(faults.dropped.clamp(0.0, 1.0));
        if faults.stopped {
            continue;
        }
        let snapshot = shared.change(|world, now| Snapshot {
            taken: shifted(now, faults.steady_clock),
            unix_usec: Timestamp::now().as_microsecond().saturating_add(micros(faults.wall_clock)),
            pods: world.read(&node, now),
        });
        let mut agents = shared.agents();
        let agent = agents.entry(node.clone()).or_insert_with(|| Reporter::start(config.clone()));
        if !dropped {
            agent.report(snapshot);
        }
    }
}

/// A steady clock that jumped. It starts at a day, so that it can jump back.
fn shifted(now: Duration, by: SignedDuration) -> Duration {
    let day = SignedDuration::from_hours(24);
    let now = SignedDuration::try_from(now).unwrap_or(SignedDuration::MAX);
    Duration::try_from(now.saturating_add(day).saturating_add(by)).unwrap_or_default()
}

fn micros(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn id(namespace: &str, name: &str) -> WorkloadId {
    WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() }
}
