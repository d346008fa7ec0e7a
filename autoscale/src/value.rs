//! Proposals from one value: Object, External, Prometheus.
//!
//! Source: `GetObjectMetricReplicas`, `GetObjectPerPodMetricReplicas`, `GetExternalMetricReplicas`,
//! `GetExternalPerPodMetricReplicas` and `getUsageRatioReplicaCount` in `replica_calculator.go`. They differ in what they do when
//! numbers get too large, and so do these.

use super::{
    arithmetic::{ceil_i32, count, to_i64},
    policy::ValueTarget,
    proposal::{Context, Current, MetricError, Proposal},
    samples::NoSamples,
};

impl Context<'_> {
    pub(super) fn of_object(&self, value: i64, target: ValueTarget) -> Result<Proposal, MetricError> {
        match target {
            ValueTarget::Value(target) => self.against_value(value, target),
            ValueTarget::AverageValue(target) => {
                let replicas = self.against_share(value, target, ceil_i32);
                let average = to_i64((value as f64 / f64::from(self.status_replicas)).ceil());
                Ok(Proposal { replicas, current: Current::PerReplica { average, total: value } })
            }
        }
    }

    pub(super) fn of_series(&self, values: &[i64], target: ValueTarget) -> Result<Proposal, MetricError> {
        if values.is_empty() {
            return Err(NoSamples("no metrics returned".to_owned()).into());
        }
        match target {
            ValueTarget::Value(target) => self.against_value(sum_for_value(values), target),
            ValueTarget::AverageValue(target) => {
                let total = sum_for_average(values);
                let replicas = self.against_share(total, target, |wanted| capped(wanted.ceil()));
                let average = if total as f64 >= i64::MAX as f64 {
                    i64::MAX
                } else {
                    to_i64((total as f64 / f64::from(self.status_replicas)).ceil())
                };
                Ok(Proposal { replicas, current: Current::PerReplica { average, total } })
            }
        }
    }

    /// The value itself is what should be at the target; the pods that are running and ready share it.
    fn against_value(&self, value: i64, target: i64) -> Result<Proposal, MetricError> {
        let ratio = value as f64 / target as f64;
        let replicas = if self.replicas == 0 {
            // Nothing shares it yet, and a tolerance would keep it so.
            ceil_i32(ratio)
        } else if self.tolerance.holds(ratio) {
            self.replicas
        } else if self.pods.is_empty() {
            return Err(MetricError::NoPods);
        } else {
            let ready = count(self.pods.iter().filter(|pod| pod.is_running_and_ready()).count());
            capped(ratio * ready as f64)
        };
        Ok(Proposal { replicas, current: Current::Value(value) })
    }

    /// The value divided by the replicas is what should be at the target.
    fn against_share(&self, value: i64, target: i64, round_up: fn(f64) -> i32) -> i32 {
        let replicas = f64::from(self.status_replicas);
        if self.tolerance.holds(value as f64 / (target as f64 * replicas)) {
            self.status_replicas
        } else {
            round_up(value as f64 / target as f64)
        }
    }
}

/// Rounded up, and no more than the largest count there is.
fn capped(replicas: f64) -> i32 {
    if replicas > f64::from(i32::MAX) { i32::MAX } else { ceil_i32(replicas) }
}

/// Stops at the largest value.
fn sum_for_value(values: &[i64]) -> i64 {
    let mut sum = 0_i64;
    for value in values {
        if *value > 0 && sum > i64::MAX - value {
            return i64::MAX;
        }
        sum = sum.wrapping_add(*value);
    }
    sum
}

/// Takes any sum below zero for one that has wrapped around.
fn sum_for_average(values: &[i64]) -> i64 {
    let mut sum = 0_i64;
    for value in values {
        sum = sum.wrapping_add(*value);
        if sum < 0 {
            return i64::MAX;
        }
    }
    sum
}
