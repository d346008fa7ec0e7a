//! /healthz, /readyz and /metrics.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use catamaran_controller::openmetrics;
use tokio::{net::TcpListener, sync::watch, time::Instant};

use crate::{metrics::Metrics, node::Cgroups};

/// Without a sample for so long the process is stuck: Kubernetes restarts it.
const WEDGED_AFTER: Duration = Duration::from_secs(60);

/// What the endpoints look at. Clones share it.
#[derive(Clone, Debug)]
pub struct Probes {
    /// What is counted.
    pub metrics: Metrics,
    /// The pods of the node have been listed.
    pub listed: watch::Receiver<bool>,
    state: Arc<Mutex<Sampling>>,
}

/// How far the sampling is.
#[derive(Clone, Copy, Debug)]
pub enum Sampling {
    /// Not begun, because the node has no cgroup v2.
    Impossible(Cgroups),
    /// No kubelet's folder is found.
    NoKubelet(Instant),
    /// It goes on; the last sample was then.
    Going(Instant),
}

impl Probes {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(metrics: Metrics, listed: watch::Receiver<bool>) -> Self {
        Self { metrics, listed, state: Arc::new(Mutex::new(Sampling::NoKubelet(Instant::now()))) }
    }

    /// How far the sampling is now.
    pub fn set(&self, sampling: Sampling) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = sampling;
    }

    fn sampling(&self) -> Sampling {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        .with_state(probes);
    axum::serve(listener, router).await
}

/// Alive, unless samples stopped. A node that cannot be sampled at all is no reason for a restart.
async fn healthz(State(probes): State<Probes>) -> (StatusCode, String) {
    match probes.sampling() {
        Sampling::NoKubelet(last) | Sampling::Going(last) if last.elapsed() > WEDGED_AFTER => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("no sample for {} s\n", last.elapsed().as_secs()))
        }
        Sampling::NoKubelet(_) | Sampling::Going(_) | Sampling::Impossible(_) => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// Ready once the node's pods are known and their cgroups can be read. Whether the operator is there does not matter:
/// without it quotas are enforced all the same.
async fn readyz(State(probes): State<Probes>) -> (StatusCode, String) {
    let unready = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    match probes.sampling() {
        Sampling::Impossible(cgroups) => unready(cgroups.to_string()),
        _ if !*probes.listed.borrow() => unready("waiting for the first listing of this node's pods".to_owned()),
        Sampling::NoKubelet(_) => unready("no kubelet's cgroup (kubepods) is found below --cgroup-root".to_owned()),
        Sampling::Going(_) => (StatusCode::OK, "ok\n".to_owned()),
    }
}

async fn metrics(State(probes): State<Probes>) -> Response {
    openmetrics::response(probes.metrics.render())
}
