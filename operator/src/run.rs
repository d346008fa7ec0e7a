//! The process: start the watches, wait for the lease, reconcile until told to stop or the lease is lost.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderValue, header::USER_AGENT};
use catamaran_controller::{client, signals};
use futures::{FutureExt, StreamExt, stream};
use kube::runtime::{
    applier,
    controller::{Config, Error, ReconcileReason, ReconcileRequest},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    accounting::{Accounts, Metered},
    apply::{Failure, Writer},
    autoscaler::Autoscaler,
    events::Announcer,
    findings::{Findings, Noted},
    http::{self, Probes},
    intake::{self, Intake, metrics::IntakeMetrics, settings::Timing, store::UsageStore, token_review::TokenReviewer},
    lease::{LeaderLease, Lost},
    metrics::{Metrics, accounting::AccountingCollector},
    queue::Queue,
    reconcile::{Context, reconcile, retry_after},
    settings::Settings,
    sources::Sources,
    stores::{self, Source, StoredWorkload, WorkloadKey},
};

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
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] std::io::Error),
    /// Another process may lead now.
    #[error("leadership lost: {0}")]
    LeaseLost(#[from] Lost),
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
    let mut config = kube::Config::infer().await.map_err(|error| Ended::Config(Box::new(error)))?;
    let identity = settings.lease_identity();
    // So that an audit log tells which process wrote.
    if let Ok(agent) = HeaderValue::from_str(&format!("catamaran-operator/{} ({identity})", env!("CARGO_PKG_VERSION")))
    {
        config.headers.push((USER_AGENT, agent));
    }
    let client = |config: kube::Config| client::connect(config).map_err(|error| Ended::Config(Box::new(error)));
    let config_of_sources = config.clone();
    // A connection of its own: what throttles the rest cannot cost the lease.
    let (lease_client, client) = (client(config.clone())?, client(config)?);
    let (metrics, queue) = (Metrics::default(), Queue::default());
    let source =
        Source { client: client.clone(), namespace: settings.namespace().map(str::to_owned), queue: queue.clone() };
    let stores = stores::start(&source);
    let sources = Sources::connect(&config_of_sources, settings.prometheus.clone())
        .map_err(|error| Ended::Config(Box::new(error)))?;
    metrics.register(|registry| sources.register(registry));
    let usage = UsageStore::new(settings.usage.keep());
    let listens = settings.usage.listen.is_some();
    let autoscaler =
        Autoscaler::new(stores.clone(), usage.clone(), sources.clone(), queue.clone(), metrics.clone(), listens);

    // Its ledger begins before the first listing: what is listed then and began later is counted from its start.
    let accounts = Accounts::new(Arc::new(stores.clone()), jiff::Timestamp::now());
    metrics.collect(Box::new(AccountingCollector(accounts.clone())));
    let findings = Findings::new(stores.pods.clone(), queue.clone());

    let ready = Arc::new(AtomicBool::new(false));
    let probes = Probes {
        ready: ready.clone(),
        queue: queue.clone(),
        metrics: metrics.clone(),
        stores: stores.clone(),
        autoscaler: autoscaler.clone(),
        findings: findings.clone(),
        accounts: accounts.clone(),
        identity: identity.as_str().into(),
    };
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|source| Ended::Listen { address: settings.listen, source })?;
    tokio::spawn(http::serve(listener, probes));

    tokio::select! {
        () = stores.ready() => {}
        () = stop.cancelled() => return Ok(()),
    }
    ready.store(true, Ordering::Release);
    tracing::info!(identity, "all kinds are listed; waiting for the lease");

    if let Some(address) = settings.usage.listen {
        let listener = TcpListener::bind(address).await.map_err(|source| Ended::Listen { address, source })?;
        let intake = Intake {
            certificate: settings.usage.certificate_files(),
            account: settings.usage.account.clone(),
            max_streams: settings.usage.max_streams,
            timing: Timing::default(),
            authenticator: Arc::new(TokenReviewer::new(client.clone(), settings.usage.audience.clone())),
            placement: stores.pods.clone(),
            observer: Arc::new(Noted {
                findings: findings.clone(),
                next: Arc::new(Metered { accounts: accounts.clone(), next: Arc::new(autoscaler.clone()) }),
            }),
            store: usage,
            metrics: metrics.register(IntakeMetrics::register),
        };
        let stop = stop.clone();
        tokio::spawn(async move {
            if let Err(error) = intake::serve(listener, intake, stop).await {
                tracing::error!(%error, "the usage intake cannot be served; usage comes from metrics.k8s.io alone");
            }
        });
    }
    tokio::spawn(async move { accounts.run().await });
    let kept = findings.clone();
    tokio::spawn(async move { kept.run().await });
    // A standby decides as well, so that its history is warm.
    tokio::spawn(async move { sources.run().await });
    let decider = autoscaler.clone();
    tokio::spawn(async move { decider.run().await });

    let mut lease = LeaderLease::new(
        lease_client,
        &settings.lease_namespace,
        &settings.lease_name,
        &identity,
        Duration::from_secs(settings.lease_duration_seconds),
    );
    tokio::select! {
        () = lease.acquire() => {}
        () = stop.cancelled() => return Ok(()),
    }
    tracing::info!(identity, "leading");
    metrics.leads(true);
    autoscaler.lead();

    let announcer = Announcer::new(client.clone(), &identity, metrics.clone());
    let events = announcer.clone();
    tokio::spawn(async move { events.run().await });
    let context = Arc::new(Context::new(
        stores.clone(),
        Writer::new(client, stores, metrics.clone()),
        announcer,
        metrics,
        queue,
        autoscaler,
        findings,
    ));
    let work = reconcile_all(context, settings.workers, stop.clone());
    let lost = async { Ended::LeaseLost(lease.keep().await) };
    let outcome = tokio::select! {
        // Biased: once the lease is lost nothing more is written.
        biased;
        lost = lost => Err(lost),
        () = work => if stop.is_cancelled() { Ok(()) } else { Err(Ended::LoopEnded) },
    };
    if outcome.is_ok() {
        // What was being written is written.
        lease.release().await;
        tracing::info!("stopped");
    }
    outcome
}

/// Reconciles what the queue brings, until `stop`; then what runs is finished.
async fn reconcile_all(context: Arc<Context>, workers: u16, stop: CancellationToken) {
    let store = context.stores.workloads.clone();
    let keys = context.queue.lead();
    // Of workloads that were deleted while nobody led.
    context.queue.wake_all(context.stores.replica_sets.keys());
    context.queue.wake_all(context.stores.machine_sets.keys());
    context.queue.wake_all(store.state().iter().map(|workload| WorkloadKey::of_workload(workload.as_ref())));
    let requests = stream::unfold(keys, |mut keys| async move { keys.recv().await.map(|key| (key, keys)) })
        .map(|key| Ok::<_, Infallible>(ReconcileRequest { obj_ref: key.reference(), reason: ReconcileReason::Unknown }))
        .take_until(stop.cancelled_owned());
    let config = Config::default().concurrency(workers);
    applier(
        |workload: Arc<StoredWorkload>, context| reconcile(workload, context).boxed(),
        retry_after,
        context.clone(),
        store,
        requests,
        config,
    )
    .for_each_concurrent(None, |outcome: Result<_, Error<Failure, Infallible>>| async {
        if let Err(Error::ObjectNotFound(reference)) = outcome {
            let name = reference.name.clone();
            let namespace = reference.namespace.clone().unwrap_or_default();
            context.gone(&WorkloadKey { namespace, name }).await;
        }
    })
    .await;
}
