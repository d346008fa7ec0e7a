//! When a workload may have no replicas at all, and when it is woken.
//!
//! A metric that tells of demand without any replica (Object, External, Prometheus) may have an `activation`: a
//! threshold of its own, beside the target. As in KEDA it is strict: a value above it is demand, one at it is not. It
//! is compared with the value itself, not with its share of a replica. Once one metric of a workload has one, those
//! without have 0.
//!
//! While `minReplicas` is 0:
//! - Demand on any of them: at least one replica is recommended. From zero it is there at once; neither a window nor a
//!   rate delays it.
//! - No demand on all of them: zero is recommended, whatever the target and the metrics of pods say. The downscale
//!   window delays it, so a short silence removes nothing.
//! - One of them has no value and none of the others has demand: nobody knows. Nothing is recommended beyond what the
//!   other metrics ask for, and since a metric failed, nothing is removed.
//!
//! Without any `activation` it is as for the HPA: a value of zero recommends zero.
//!
//! Metrics of pods have no value without pods. When there are none but those, only schedules can wake the workload:
//! - With a schedule that asks for replicas, zero is recommended whenever `minReplicas` is 0, that is while none of
//!   them is active.
//! - Without one, at least one replica is kept, except while a schedule sets `maxReplicas` to 0.

use super::{decision::MetricReport, policy::Metric};

/// What the metrics say about demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// No metric has an `activation`.
    NotAsked,
    /// The metric of this index is above its own.
    Some(usize),
    /// All are at or below theirs.
    None,
    /// One has no value, and no other is above its own.
    Unknown,
}

/// Compares the values with their thresholds.
pub(super) fn demand(metrics: &[Metric], reports: &[MetricReport]) -> Demand {
    if metrics.iter().all(|metric| metric.activation().is_none()) {
        return Demand::NotAsked;
    }
    let mut demand = Demand::None;
    for (index, (metric, report)) in metrics.iter().zip(reports).enumerate() {
        if !metric.kind().sees_demand_at_zero() {
            continue;
        }
        match report.outcome.as_ref().ok().and_then(|proposal| proposal.current.total()) {
            Some(value) if value > metric.activation().unwrap_or(0) => return Demand::Some(index),
            Some(_) => {}
            None => demand = Demand::Unknown,
        }
    }
    demand
}
