//! The process: watch pods, sample, enforce and push, until told to stop.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catamaran_controller::{client, signals};
use catamaran_protocol::stream::{
    identity::PodIdentity,
    proto::QuotaState,
    reporter::{self, Replicas, Reporter},
    snapshot::{PodReading, Snapshot},
};
use foldhash::HashMap;
use kube::Client;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    enforce::{Enforcer, Round},
    http::{self, Probes, Sampling},
    layout::Uid,
    metrics::Metrics,
    node::{self, Cgroups},
    pods::{Pod, Pods},
    sample::Sampler,
    settings::{OnStop, Settings},
    stopping::{OwnSet, Stopping},
    watch as pod_watch,
};

/// How often everything is sampled and compared.
const EVERY: Duration = Duration::from_secs(1);
/// How often at most for edits: a flood of them costs no more than that.
const EDITS_EVERY: Duration = Duration::from_millis(200);
/// How often a node without cgroup v2 is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// No way to reach the API server is configured.
    #[error("no configuration for the API server: {0}")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address for health and metrics cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The node's boot id cannot be read.
    #[error("/proc does not tell the boot id: {0}")]
    BootId(#[source] std::io::Error),
    /// A thread that reads or writes cgroups died.
    #[error("a worker ended: {0}")]
    Worker(#[from] JoinError),
}

/// Runs the agent until a signal.
///
/// # Errors
/// See [`Ended`]. A stop by signal is no error.
pub async fn run(settings: Settings) -> Result<(), Ended> {
    let stop = signals::stop().map_err(Ended::Signals)?;
    let files = node::raise_open_files();
    tracing::info!(node = settings.node, open_files = files, "the agent starts");
    let config = kube::Config::infer().await.map_err(|error| Ended::Config(Box::new(error)))?;
    let client = client::connect(config).map_err(|error| Ended::Config(Box::new(error)))?;
    let address = settings.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| Ended::Listen { address, source })?;
    serve(settings, client, listener, stop).await
}

/// Runs the agent until `stop`.
///
/// # Errors
/// See [`Ended`].
pub async fn serve(
    settings: Settings,
    client: Client,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), Ended> {
    let (metrics, pods) = (Metrics::default(), Pods::default());
    let (listed_sender, listed) = watch::channel(false);
    let probes = Probes::new(metrics.clone(), listed);
    let _http = AbortOnDropHandle::new(tokio::spawn(http::serve(listener, probes.clone())));
    let own_set = match &settings.daemon_set {
        Some(own) => Some(OwnSet::look(client.clone(), &own.namespace, &own.name).await),
        None => None,
    };
    let watching = pod_watch::keep(client, settings.node.clone(), pods.clone(), listed_sender, metrics.clone());
    let _watching = AbortOnDropHandle::new(tokio::spawn(watching));
    let reporter = Reporter::start(reporter::Config {
        node: settings.node.clone(),
        boot_id: node::boot_id().map_err(Ended::BootId)?,
        replicas: Replicas::Service { host: settings.usage_service.host.clone(), port: settings.usage_service.port },
        server_name: settings.server_name().to_owned(),
        ca_file: settings.usage_ca.clone(),
        token_file: settings.usage_token.clone(),
    });
    tokio::select! {
        () = until_cgroups(&settings, &probes, &pods, &reporter) => {}
        () = stop.cancelled() => return Ok(()),
    }
    let states = States::default();
    let enforcing = enforce(&settings, own_set.as_ref(), pods.clone(), states.clone(), &probes, stop.clone());
    let sampling = sample(&settings, pods, states, reporter, &probes, stop.clone());
    // Both end when asked to stop, and the enforcing one not before everything is set back.
    tokio::try_join!(enforcing, sampling)?;
    tracing::info!("stopped");
    Ok(())
}

/// What became of each pod's quota.
#[derive(Clone, Debug, Default)]
struct States(Arc<Mutex<Arc<HashMap<Uid, QuotaState>>>>);

impl States {
    fn get(&self) -> Arc<HashMap<Uid, QuotaState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, states: HashMap<Uid, QuotaState>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(states);
    }
}

/// Until the node has cgroup v2. A node that has not is told on /readyz, by a metric, in the log, and to the operator
/// for each pod with a quota; the process stays.
async fn until_cgroups(settings: &Settings, probes: &Probes, pods: &Pods, reporter: &Reporter) {
    let mut told = None;
    loop {
        let cgroups = Cgroups::at(&settings.cgroup_root);
        probes.metrics.cgroups(cgroups);
        if cgroups == Cgroups::V2 {
            return probes.set(Sampling::NoKubelet(Instant::now()));
        }
        probes.set(Sampling::Impossible(cgroups));
        if told.replace(cgroups) != Some(cgroups) {
            tracing::error!(root = %settings.cgroup_root.display(), "{cgroups}");
        }
        let unheld = pods.all().iter().filter_map(|pod| unheld(pod, cgroups)).collect();
        reporter.report(Snapshot { taken: node::monotonic(), unix_usec: node::unix_usec(), pods: unheld });
        sleep(LOOK_AGAIN).await;
    }
}

/// A pod whose quota cannot be held here: nothing is read of it, and why is said.
fn unheld(pod: &Pod, cgroups: Cgroups) -> Option<PodReading> {
    let fingerprint = pod.annotation.as_ref()?.fingerprint;
    let state = QuotaState { fingerprint, refused: cgroups.to_string(), unenforced: Vec::new() };
    let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
    let identity = PodIdentity::new(namespace, name, pod.uid.as_str(), Vec::new()).ok()?;
    Some(PodReading::new(Arc::new(identity), Vec::new())?.with(None, Some(state)))
}

/// Samples and pushes each second.
async fn sample(
    settings: &Settings,
    pods: Pods,
    states: States,
    reporter: Reporter,
    probes: &Probes,
    stop: CancellationToken,
) -> Result<(), Ended> {
    let mut sampler = Sampler::new(settings.cgroup_root.clone());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let due = tokio::select! {
            due = ticks.tick() => due,
            () = stop.cancelled() => return Ok(()),
        };
        let late = due.elapsed() > EVERY / 2;
        let (all, quotas) = (pods.all(), states.get());
        let (count, started) = (all.len(), Instant::now());
        // Not on another thread: the kernel makes these texts in milliseconds, to be woken would cost as much as many a
        // read, and a process of one thread reads without counting who else has the file.
        let sampled = sampler.sample(&all, &quotas, node::monotonic(), node::unix_usec());
        probes.metrics.sampled(count, &sampled, started.elapsed(), late);
        let now = Instant::now();
        probes.set(if sampled.bases > 0 { Sampling::Going(now) } else { Sampling::NoKubelet(now) });
        reporter.report(sampled.snapshot);
        probes.metrics.pushed(&reporter.status());
    }
}

/// Waits for an edit that is to take effect before the next second. `last` is when quotas were compared last.
async fn edited(pods: &Pods, last: Instant) {
    pods.edited().await;
    sleep_until(last + EDITS_EVERY).await;
}

/// Compares quotas each second and when one is edited, and sets everything back at the end.
async fn enforce(
    settings: &Settings,
    own_set: Option<&OwnSet>,
    pods: Pods,
    states: States,
    probes: &Probes,
    stop: CancellationToken,
) -> Result<(), Ended> {
    let mut enforcer = Enforcer::new(settings.cgroup_root.clone(), settings.sys_block.clone());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = Instant::now();
    let mut listed = probes.listed.clone();
    tokio::select! {
        // Its sender lives as long as the watch.
        _ = listed.wait_for(|listed| *listed) => {}
        () = stop.cancelled() => return Ok(()),
    }
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = edited(&pods, last) => {}
            () = stop.cancelled() => break,
        }
        last = Instant::now();
        let all = pods.all();
        if enforcer.is_idle(&all) {
            continue;
        }
        // On another thread: a write to memory.high can take seconds, and samples go on meanwhile.
        let (returned, round) = spawn_blocking(move || {
            let round = enforcer.round(&all, node::monotonic());
            (enforcer, round)
        })
        .await?;
        enforcer = returned;
        probes.metrics.held(&round);
        tell(&states.get(), &round, &pods);
        states.set(round.states);
    }
    if sets_back(settings.on_stop, own_set).await {
        let round = spawn_blocking(move || enforcer.release()).await?;
        tracing::info!(writes = round.writes.len(), left = round.held, "quotas are set back");
    }
    Ok(())
}

/// Whether what is held is set back now that the agent stops.
async fn sets_back(on_stop: OnStop, own_set: Option<&OwnSet>) -> bool {
    match (on_stop, own_set) {
        (OnStop::Undo, _) => true,
        (OnStop::Keep, _) | (OnStop::Auto, None) => false,
        (OnStop::Auto, Some(own_set)) => {
            let stopping = own_set.stopping().await;
            tracing::info!(?stopping, "asked to stop");
            match stopping {
                Stopping::ForGood => true,
                Stopping::ToBeReplaced | Stopping::Unknown => false,
            }
        }
    }
}

/// Logs what is new.
fn tell(before: &HashMap<Uid, QuotaState>, round: &Round, pods: &Pods) {
    if let Some(error) = &round.note_failed {
        tracing::warn!(error, "a cgroup takes no note of what is to be set back; a restarted agent will not know it");
    }
    for (uid, state) in round.states.iter().filter(|(uid, state)| before.get(uid) != Some(*state)) {
        let known = pods.get(uid);
        let (namespace, pod) = known.as_ref().map_or(("", ""), |pod| (&pod.namespace, &pod.name));
        if !state.refused.is_empty() {
            tracing::warn!(namespace, pod, reason = state.refused, "a quota annotation is refused");
        }
        for part in &state.unenforced {
            tracing::warn!(
                namespace,
                pod,
                knob = part.knob().as_str_name(),
                reason = part.reason,
                "a quota is not held"
            );
        }
        if state.refused.is_empty() && state.unenforced.is_empty() {
            tracing::info!(namespace, pod, "a quota is held");
        }
    }
}
