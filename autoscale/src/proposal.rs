//! How many replicas one metric asks for.
//!
//! Source: `replica_calculator.go` and `metrics/utilization.go`. Pressure and Throttling are decided like a Pods metric
//! whose values are percentages; Prometheus like an Object metric.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    pods::Pod,
    policy::{Metric, Resource, Settings, Tolerance},
    samples::{MOST_BYTES, MOST_CORES, NoSamples, ResourceSample, Samples},
    usage::Usage,
};

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
    #[error("container {container} of pod {pod} has no {resource} request")]
    NoRequest {
        /// Of which resource.
        resource: String,
        /// Which container.
        container: String,
        /// Of which pod.
        pod: String,
    },
    /// A pod with requests of its own lacks this one.
    #[error("pod {pod} has no {resource} request")]
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

/// What a proposal depends on besides the metric and its samples.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// `spec.replicas` of the target.
    pub replicas: i32,
    /// `status.replicas` of the target.
    pub status_replicas: i32,
    pub pods: &'a [&'a Pod],
    pub tolerance: Tolerance,
    pub settings: &'a Settings,
    pub now: Timestamp,
}

/// Computes what a metric asks for.
pub(super) fn propose(
    context: &Context<'_>,
    metric: &Metric,
    samples: &Result<Samples, NoSamples>,
) -> Result<Proposal, MetricError> {
    if let Metric::Invalid { message, .. } = metric {
        return Err(MetricError::Invalid(message.clone()));
    }
    match (metric, samples.as_ref().map_err(Clone::clone)?) {
        (Metric::Resource { resource, target }, Samples::Resource(samples)) => {
            check_possible(resource, samples)?;
            context.of_resource(&Usage { samples, resource, container: None }, *target)
        }
        (Metric::ContainerResource { resource, container, target }, Samples::Resource(samples)) => {
            check_possible(resource, samples)?;
            context.of_resource(&Usage { samples, resource, container: Some(container) }, *target)
        }
        (Metric::Pods { target, .. }, Samples::Pods(samples)) => context.of_pods(samples, *target, Current::Average),
        (Metric::Pressure { target, .. } | Metric::Throttling { target }, Samples::Pods(samples)) => {
            context.of_pods(samples, i64::from(*target) * 1000, Current::Share)
        }
        (Metric::Object { target, .. } | Metric::Prometheus { target, .. }, Samples::Value(value)) => {
            context.of_object(*value, *target)
        }
        (Metric::External { target, .. }, Samples::Series(values)) => context.of_series(values, *target),
        (_, Samples::Resource(_) | Samples::Pods(_) | Samples::Value(_) | Samples::Series(_)) => {
            Err(MetricError::OtherSamples)
        }
    }
}

/// A figure that no machine can produce is no sample: what it would ask for is not carried out.
fn check_possible(resource: &Resource, samples: &BTreeMap<String, ResourceSample>) -> Result<(), MetricError> {
    let most = match resource {
        Resource::Cpu => MOST_CORES * 1000,
        Resource::Memory => MOST_BYTES.saturating_mul(1000),
        Resource::Other(_) => return Ok(()),
    };
    let wrong = samples.iter().find_map(|(pod, sample)| {
        let container = sample.containers.iter().find(|(_, value)| value.is_some_and(|value| value > most));
        container.map(|(container, _)| (pod, container))
    });
    wrong.map_or(Ok(()), |(pod, container)| {
        Err(MetricError::Impossible { resource: resource.to_string(), container: container.clone(), pod: pod.clone() })
    })
}
