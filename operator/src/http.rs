//! /healthz, /readyz and /metrics; and, for `kubectl catamaran`, /explain, /usage and /accounts.

mod answers;
mod probes;

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use catamaran_controller::{liveness::Outcome, openmetrics};
use tokio::net::TcpListener;

pub use probes::Probes;

use crate::{metrics::WorkloadLabels, stores::StoredWorkload};

/// When workloads wait and no reconcile has ended for so long, the process is stuck: Kubernetes restarts it.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(120);

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, probes: Probes) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes.clone())
        .merge(answers::router(probes));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "health and metrics cannot be served any more");
    }
}

/// Alive, unless work waits and none is done. How much waits, or how long one workload does, says nothing of the
/// process.
async fn healthz(State(probes): State<Probes>) -> (StatusCode, String) {
    let stuck = probes.queue.stuck_for();
    if stuck <= STUCK_AFTER {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let problem = format!("workloads wait, and no reconcile has ended for {} s\n", stuck.as_secs());
    (StatusCode::INTERNAL_SERVER_ERROR, problem)
}

/// Ready once everything has been listed; a standby is ready too, since it is warm and could take over.
async fn readyz(State(probes): State<Probes>) -> Outcome {
    probes.checks.run()
}

async fn metrics(State(probes): State<Probes>) -> Response {
    let workloads = probes.stores.workloads.state();
    let labels = workloads.iter().map(|workload| labels(workload));
    openmetrics::response(probes.metrics.render(probes.queue.depth(), labels))
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
