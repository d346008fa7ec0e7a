//! How many replicas one metric asks for.
//!
//! Source: `replica_calculator.go` and `metrics/utilization.go`. Pressure and Throttling are decided like a Pods metric
//! whose values are percentages; Prometheus like an Object metric.

use std::collections::BTreeMap;

use super::{
    context::Context,
    policy::{Metric, Resource},
    proposal::{Current, MetricError, Proposal},
    samples::{MOST_BYTES, MOST_CORES, NoSamples, ResourceSample, Samples},
    usage::Usage,
};

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
