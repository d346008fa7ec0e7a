//! What one metric asks for, as data. Nothing here computes.

use super::samples::NoSamples;

/// What one metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The count.
    pub replicas: i32,
    /// What was measured.
    pub current: Current,
}

/// What was measured, in the terms of the target. In thousandths, percentages aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Current {
    /// Of a resource, against what the pods ask for.
    Utilization {
        /// In percent of the requests.
        percent: i32,
        /// The mean over the pods.
        average: i64,
    },
    /// A share of time, for Pressure and Throttling: the mean over the pods in thousandths of a percent.
    Share(i64),
    /// The mean over the pods.
    Average(i64),
    /// A value that is not of a pod.
    Value(i64),
    /// Such a value, held against a target for each replica.
    PerReplica {
        /// The value divided by the count, rounded up.
        average: i64,
        /// The value.
        total: i64,
    },
}

impl Current {
    /// The value that activation looks at: that of the object, not divided.
    #[must_use]
    pub fn total(self) -> Option<i64> {
        match self {
            Self::Value(total) | Self::PerReplica { total, .. } => Some(total),
            Self::Utilization { .. } | Self::Share(_) | Self::Average(_) => None,
        }
    }
}

/// Why a metric asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Its source did not answer.
    #[error(transparent)]
    NoSamples(#[from] NoSamples),
    /// The source answered for another type of metric.
    #[error("the source answered with samples of another type")]
    OtherSamples,
    /// There is no pod to hold the usage against.
    #[error("there are no pods")]
    NoPods,
    /// No pod that is at work has a sample.
    #[error("no pod that is at work has a sample (they may be unready)")]
    NoneUsable,
    /// A container lacks the request that a utilization is a share of.
    #[error(
        "container {container} of pod {pod} has no {resource} request; set quota.{resource}.request, or that of its template"
    )]
    NoRequest {
        /// Of which resource.
        resource: String,
        /// Which container.
        container: String,
        /// Of which pod.
        pod: String,
    },
    /// A pod with requests of its own lacks this one.
    #[error("pod {pod} has no {resource} request; set quota.{resource}.request, or that of its template")]
    NoPodRequest {
        /// Of which resource.
        resource: String,
        /// Which pod.
        pod: String,
    },
    /// The container of a ContainerResource metric is not there.
    #[error("pod {pod} has no container {container}")]
    NoContainer {
        /// Which container.
        container: String,
        /// Of which pod.
        pod: String,
    },
    /// It uses more than any machine has.
    #[error(
        "container {container} of pod {pod} is said to use more {resource} than any machine has, so its source is wrong"
    )]
    Impossible {
        /// Of which resource.
        resource: String,
        /// Which container.
        container: String,
        /// Of which pod.
        pod: String,
    },
    /// What the pods ask for adds up to nothing.
    #[error("the pods that have samples ask for nothing")]
    NoRequests,
    /// It cannot be computed as written.
    #[error("{0}")]
    Invalid(String),
}
