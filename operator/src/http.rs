//! /healthz, /readyz and /metrics; and, for `kubectl catamaran`, /explain, /usage and /accounts.

mod answers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use catamaran_controller::openmetrics;
use tokio::net::TcpListener;

use crate::{
    accounting::Accounts,
    autoscaler::Autoscaler,
    findings::Findings,
    metrics::{Metrics, WorkloadLabels},
    queue::Queue,
    stores::{StoredWorkload, Stores},
};

/// A workload that waits longer than this for its reconcile means that the process is stuck: Kubernetes restarts it.
const WEDGED_AFTER: Duration = Duration::from_secs(120);

/// What the endpoints look at.
#[derive(Clone)]
pub struct Probes {
    /// Everything has been listed once.
    pub ready: Arc<AtomicBool>,
    /// What waits.
    pub queue: Queue,
    /// What is counted.
    pub metrics: Metrics,
    /// What is known.
    pub stores: Stores,
    /// What decides on counts, and knows usage.
    pub autoscaler: Autoscaler,
    /// What agents found at pods.
    pub findings: Findings,
    /// What was used and reserved.
    pub accounts: Accounts,
    /// The name of this process.
    pub identity: Arc<str>,
}

/// Serves until the process ends.
///
/// # Errors
/// When the connection listener fails.
pub async fn serve(listener: TcpListener, probes: Probes) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes.clone())
        .merge(answers::router(probes));
    axum::serve(listener, router).await
}

/// Alive, unless work waits and none is done.
async fn healthz(State(probes): State<Probes>) -> (StatusCode, String) {
    match probes.queue.backlog().oldest {
        Some(waiting) if waiting > WEDGED_AFTER => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("a workload has been waiting for {} s\n", waiting.as_secs()))
        }
        Some(_) | None => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// Ready once everything has been listed; a standby is ready too, since it is warm.
async fn readyz(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    if probes.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the first listing of all kinds\n")
    }
}

async fn metrics(State(probes): State<Probes>) -> Response {
    let workloads = probes.stores.workloads.state();
    let labels = workloads.iter().map(|workload| labels(workload));
    openmetrics::response(probes.metrics.render(probes.queue.backlog().depth, labels))
}

fn labels(workload: &StoredWorkload) -> WorkloadLabels {
    let status = workload.0.as_ref().ok().and_then(|workload| workload.status.as_ref());
    let has = |type_: &str| {
        status.is_some_and(|status| status.conditions.iter().any(|c| c.type_ == type_ && c.status == "True"))
    };
    let state = match () {
        () if has("Stalled") => "Stalled",
        () if has("Reconciling") => "Reconciling",
        () if has("Ready") => "Ready",
        () => "NotReady",
    };
    WorkloadLabels { hull: status.and_then(|status| status.hull).map_or("unknown", |hull| hull.as_str()), state }
}
