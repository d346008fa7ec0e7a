//! The servers behind questions: what goes and comes back as a whole, and is not asked too much at once.

use std::fmt;

use super::{
    prometheus::BaseUrl,
    query::{Request, Source},
    secrets::StoredKey,
    turns::Bounds,
};

/// How many questions one of the APIs of the cluster gets at once.
const TO_AN_API: Bounds = Bounds { all: 32, of_one: 8 };
/// How many questions one Prometheus server gets at once.
const TO_A_PROMETHEUS: Bounds = Bounds { all: 8, of_one: 2 };

/// A server, or the servers of an API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Backend {
    Resource,
    Custom,
    External,
    /// With its CA bundle: a wrong one of one user must not keep others from their server.
    Prometheus(BaseUrl, Option<StoredKey>),
}

impl Backend {
    /// How many questions it gets at once.
    pub(super) fn bounds(&self) -> Bounds {
        match self {
            Self::Resource | Self::Custom | Self::External => TO_AN_API,
            Self::Prometheus(..) => TO_A_PROMETHEUS,
        }
    }
}

impl From<&Request> for Backend {
    fn from(request: &Request) -> Self {
        match &request.source {
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
