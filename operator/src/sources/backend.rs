//! The servers behind questions: what goes and comes back as a whole, and is not asked too much at once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{prometheus::BaseUrl, query::Source, secrets::StoredKey};

/// How many questions one of the APIs of the cluster gets at once.
const TO_AN_API: usize = 32;
/// How many questions one Prometheus server gets at once.
const TO_A_PROMETHEUS: usize = 8;

/// A server, or the servers of an API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Backend {
    Resource,
    Custom,
    External,
    /// With its CA bundle: a wrong one of one user must not keep others from their server.
    Prometheus(BaseUrl, Option<StoredKey>),
}

impl From<&Source> for Backend {
    fn from(source: &Source) -> Self {
        match source {
            Source::PodUsage { .. } => Self::Resource,
            Source::Pods { .. } | Source::Object { .. } => Self::Custom,
            Source::External { .. } => Self::External,
            Source::Prometheus { url, ca, .. } => Self::Prometheus(url.clone(), ca.clone()),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource => f.write_str("metrics.k8s.io"),
            Self::Custom => f.write_str("custom.metrics.k8s.io"),
            Self::External => f.write_str("external.metrics.k8s.io"),
            Self::Prometheus(url, _) => url.fmt(f),
        }
    }
}

/// Bounds the questions that are under way. Each server has its own bound: one that lets everybody wait keeps nobody from the others.
#[derive(Default)]
pub(super) struct Limits(Mutex<HashMap<Backend, Arc<Semaphore>>>);

impl Limits {
    /// Waits for the turn of a question, in the order of arrival. The turn ends when the result is dropped.
    pub(super) async fn turn(&self, backend: &Backend) -> Option<OwnedSemaphorePermit> {
        let limit = {
            let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let size = match backend {
                Backend::Resource | Backend::Custom | Backend::External => TO_AN_API,
                Backend::Prometheus(..) => TO_A_PROMETHEUS,
            };
            limits.entry(backend.clone()).or_insert_with(|| Arc::new(Semaphore::new(size))).clone()
        };
        // Fails only for one that is closed, which none is.
        limit.acquire_owned().await.ok()
    }

    /// Forgets servers that nobody asks any more.
    pub(super) fn retain(&self, wanted: impl Fn(&Backend) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|backend, _| wanted(backend));
    }
}
