//! The process: its parts, the tasks that they run in, and what happens while it leads.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::http::{HeaderValue, header::USER_AGENT};
use catamaran_controller::{
    client,
    lease::{Election, LeaderLease, Lost, NotStarted},
    liveness::Checks,
    signals,
    supervise::{TaskEnded, Tasks},
    workers::{self, Limits},
};
use catamaran_crds::names;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    accounting::{Accounts, Metered},
    apply::Writer,
    autoscaler::Autoscaler,
    events::Announcer,
    findings::{Findings, Noted},
    http::{self, Probes},
    intake::{self, Intake, metrics::IntakeMetrics, settings::Timing, store::UsageStore, token_review::TokenReviewer},
    metrics::{Metrics, accounting::AccountingCollector, lease::LeaseCollector, watches::WatchCollector},
    reconcile::Context,
    settings::Settings,
    sources::Sources,
    stores::{self, Queue, SignOfLife, Source, Stores, WorkloadKey},
};

/// How long one pass may take; what it leaves is planned anew. Below [`http::STUCK_AFTER`], so that passes that all
/// hang, say at a webhook that does not answer, are not taken for a process that does.
const LONGEST_PASS: Duration = Duration::from_secs(100);

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// No way to reach the API server is configured.
    #[error("no configuration for the API server: {0}")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address for health and metrics, or for usage, cannot be used.
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
    /// This process cannot take part in the election.
    #[error(transparent)]
    NoElection(#[from] NotStarted),
    /// Another process may lead now.
    #[error("leadership lost: {0}")]
    LeaseLost(#[from] Lost),
    /// A part of the process is missing.
    #[error(transparent)]
    Task(#[from] TaskEnded),
    /// The reconcile loop ended by itself.
    #[error("the reconcile loop ended")]
    LoopEnded,
}

/// Runs the operator.
///
/// # Errors
/// See [`Ended`]. A stop by signal is no error.
pub async fn run(settings: Settings) -> Result<(), Ended> {
    let stop = signals::stop().map_err(Ended::Signals)?;
    let mut tasks = Tasks::new(stop.clone());
    let operator = Operator::assemble(settings, &mut tasks, stop.clone()).await?;
    operator.answer(&mut tasks).await?;
    while_all_run(&mut tasks, operator.listed()).await?;
    if stop.is_cancelled() {
        return Ok(());
    }
    operator.take_usage(&mut tasks).await?;
    operator.decide(&mut tasks);
    let lease = operator.stand_for_election()?;
    let context = operator.context(&lease, &mut tasks);
    while_all_run(&mut tasks, operator.lead(lease, context)).await
}

/// Does something as long as every task runs.
async fn while_all_run(tasks: &mut Tasks, work: impl Future<Output = Result<(), Ended>>) -> Result<(), Ended> {
    tokio::select! {
        biased;
        failed = tasks.failed() => Err(failed.into()),
        outcome = work => outcome,
    }
}

/// The parts of the operator.
struct Operator {
    settings: Settings,
    identity: String,
    config: kube::Config,
    client: Client,
    stop: CancellationToken,
    metrics: Metrics,
    queue: Queue,
    stores: Stores,
    sources: Sources,
    usage: UsageStore,
    autoscaler: Autoscaler,
    accounts: Accounts,
    findings: Findings,
    /// What must be so for this process to be ready.
    checks: Checks,
}

impl Operator {
    /// Puts the parts together, and starts the watches.
    async fn assemble(settings: Settings, tasks: &mut Tasks, stop: CancellationToken) -> Result<Self, Ended> {
        let wrong = |error: kube::Error| Ended::Config(Box::new(error));
        let mut config = kube::Config::infer().await.map_err(|error| Ended::Config(Box::new(error)))?;
        let identity = settings.lease_identity();
        // So that an audit log tells which process wrote.
        let agent = format!("catamaran-operator/{} ({identity})", env!("CARGO_PKG_VERSION"));
        if let Ok(agent) = HeaderValue::from_str(&agent) {
            config.headers.push((USER_AGENT, agent));
        }
        let client = client::connect(config.clone()).map_err(wrong)?;
        let (metrics, queue) = (Metrics::default(), Queue::default());
        let namespace = settings.namespace().map(str::to_owned);
        let stores = stores::start(&Source { client: client.clone(), namespace, queue: queue.clone() }, tasks);
        let sources =
            Sources::connect(&config, settings.prometheus.clone()).map_err(|error| Ended::Config(Box::new(error)))?;
        metrics.register(|registry| sources.register(registry));
        let usage = UsageStore::new(settings.usage.keep());
        let listens = settings.usage.listen.is_some();
        let autoscaler =
            Autoscaler::new(stores.clone(), usage.clone(), sources.clone(), queue.clone(), metrics.clone(), listens);
        // Its ledger begins before the first listing: what is listed then and began later is counted from its start.
        let accounts = Accounts::new(Arc::new(stores.clone()), jiff::Timestamp::now());
        metrics.collect(Box::new(AccountingCollector(accounts.clone())));
        metrics.collect(Box::new(WatchCollector(stores.clone())));
        let findings = Findings::new(stores.pods.clone(), queue.clone());
        let checks = Checks::default();
        Ok(Self {
            settings,
            identity,
            config,
            client,
            stop,
            metrics,
            queue,
            stores,
            sources,
            usage,
            autoscaler,
            accounts,
            findings,
            checks,
        })
    }

    /// Serves health, metrics, and what the kubectl plugin asks.
    async fn answer(&self, tasks: &mut Tasks) -> Result<(), Ended> {
        let probes = Probes {
            checks: self.checks.clone(),
            queue: self.queue.clone(),
            metrics: self.metrics.clone(),
            stores: self.stores.clone(),
            autoscaler: self.autoscaler.clone(),
            findings: self.findings.clone(),
            accounts: self.accounts.clone(),
            identity: self.identity.as_str().into(),
        };
        let stores = self.stores.clone();
        self.checks.add("stores", move || match stores.stale() {
            _ if !stores.listed() => Err("waiting for the first listing of all kinds".to_owned()),
            Some(SignOfLife { kind, age, .. }) => Err(format!(
                "what is known of {kind} is not fresh (last heard of {} s ago), so nothing is written",
                age.as_secs()
            )),
            None => Ok(()),
        });
        let listener = listen(self.settings.listen).await?;
        tasks.spawn("health and metrics", http::serve(listener, probes));
        Ok(())
    }

    /// Waits until everything is listed, or the stop.
    async fn listed(&self) -> Result<(), Ended> {
        tokio::select! {
            () = self.stores.ready() => tracing::info!(identity = self.identity, "all kinds are listed"),
            () = self.stop.cancelled() => {}
        }
        Ok(())
    }

    /// Takes usage from node agents, if so configured.
    async fn take_usage(&self, tasks: &mut Tasks) -> Result<(), Ended> {
        let Some(address) = self.settings.usage.listen else { return Ok(()) };
        let listener = listen(address).await?;
        let metrics = self.metrics.register(IntakeMetrics::register);
        let reviewer = TokenReviewer::new(self.client.clone(), self.settings.usage.audience.clone());
        let metered = Metered { accounts: self.accounts.clone(), next: Arc::new(self.autoscaler.clone()) };
        let intake = Intake {
            certificate: self.settings.usage.certificate_files(),
            account: self.settings.usage.account.clone(),
            max_streams: self.settings.usage.max_streams,
            timing: Timing::default(),
            authenticator: Arc::new(reviewer),
            placement: self.stores.pods.clone(),
            observer: Arc::new(Noted { findings: self.findings.clone(), next: Arc::new(metered) }),
            store: self.usage.clone(),
            metrics: metrics.clone(),
        };
        // Agents are not sent to a process that cannot take what they bring.
        self.checks.add("usage intake", move || {
            if metrics.has_certificate() { Ok(()) } else { Err("its certificate cannot be used".to_owned()) }
        });
        tasks.spawn("usage intake", intake::serve(listener, intake, self.stop.clone()));
        Ok(())
    }

    /// Keeps accounts, and decides on counts. A standby decides as well, so that its history is warm.
    fn decide(&self, tasks: &mut Tasks) {
        let (accounts, findings) = (self.accounts.clone(), self.findings.clone());
        let (sources, autoscaler) = (self.sources.clone(), self.autoscaler.clone());
        tasks.spawn("accounts", async move { accounts.run().await });
        tasks.spawn("findings of agents", async move { findings.run().await });
        tasks.spawn("sources of metrics", async move { sources.run().await });
        tasks.spawn("decisions on counts", async move { autoscaler.run().await });
    }

    /// Waits for the lease, and reconciles until the stop, or until it is lost.
    async fn lead(&self, mut lease: LeaderLease, context: Arc<Context>) -> Result<(), Ended> {
        tokio::select! {
            acquired = lease.acquired() => acquired?,
            () = self.stop.cancelled() => return Ok(()),
        }
        tracing::info!(identity = self.identity, "leading");
        self.metrics.leads(true);
        let work = async {
            // What a standby knows may be older than what was written before it led.
            tokio::select! {
                () = self.stores.catch_up() => {}
                () = self.stop.cancelled() => return,
            }
            tracing::info!("all kinds are as new as the lease");
            self.autoscaler.lead();
            reconcile_all(context, self.settings.workers, self.stop.clone()).await;
        };
        tokio::select! {
            // Biased: once the lease is lost nothing more is written.
            biased;
            lost = lease.lost() => return Err(lost.into()),
            () = work => {}
        }
        if !self.stop.is_cancelled() {
            return Err(Ended::LoopEnded);
        }
        // What was being written is written.
        lease.release().await;
        tracing::info!("stopped");
        Ok(())
    }

    fn stand_for_election(&self) -> Result<LeaderLease, Ended> {
        let duration = Duration::from_secs(self.settings.lease_duration_seconds);
        let lease = LeaderLease::start(Election {
            config: self.config.clone(),
            namespace: self.settings.lease_namespace.clone(),
            name: self.settings.lease_name.clone(),
            identity: self.identity.clone(),
            duration,
            annotation: names::LIFELINE_ANNOTATION.to_owned(),
            lifeline: self.settings.lifeline(),
        })?;
        let contact = lease.contact();
        self.metrics.collect(Box::new(LeaseCollector(contact.clone())));
        self.checks.add("lease", move || {
            let silent = contact.silent_for();
            if silent <= duration {
                return Ok(());
            }
            Err(format!("the API server has not answered about the lease for {} s", silent.as_secs()))
        });
        Ok(lease)
    }

    /// What a reconcile works with. It writes as long as the lease is held.
    fn context(&self, lease: &LeaderLease, tasks: &mut Tasks) -> Arc<Context> {
        let client = lease.tenure().gate(&self.client);
        let announcer = Announcer::new(client.clone(), &self.identity, self.metrics.clone());
        let events = announcer.clone();
        tasks.spawn("Events", async move { events.run().await });
        Arc::new(Context::new(
            self.stores.clone(),
            Writer::new(client, self.stores.clone(), self.metrics.clone()),
            announcer,
            self.metrics.clone(),
            self.queue.clone(),
            self.autoscaler.clone(),
            self.findings.clone(),
        ))
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Ended> {
    TcpListener::bind(address).await.map_err(|source| Ended::Listen { address, source })
}

/// Reconciles what the queue brings, until `stop`; then what runs is finished.
async fn reconcile_all(context: Arc<Context>, workers: u16, stop: CancellationToken) {
    let (queue, stores) = (context.queue.clone(), &context.stores);
    queue.open();
    // Of workloads that were deleted while nobody led.
    queue.wake_all(stores.replica_sets.keys());
    queue.wake_all(stores.machine_sets.keys());
    queue.wake_all(stores.workloads.state().iter().map(|workload| WorkloadKey::of_workload(workload.as_ref())));
    let limits = Limits { workers: workers.into(), longest: LONGEST_PASS };
    workers::work(queue, context, limits, stop).await;
}
