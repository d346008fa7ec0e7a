//! Proposals from one value: Object, External, Prometheus.
//!
//! Source: `GetObjectMetricReplicas`, `GetObjectPerPodMetricReplicas`, `GetExternalMetricReplicas`,
//! `GetExternalPerPodMetricReplicas` and `getUsageRatioReplicaCount` in `replica_calculator.go`. They differ in what
//! they do when numbers get too large; these do not.

use super::{
    arithmetic::{ceil_i32, ceil_i64, count, fit_i64, ratio},
    context::Context,
    policy::ValueTarget,
    proposal::{Current, MetricError, Proposal},
    samples::NoSamples,
};

impl Context<'_> {
    pub(super) fn of_object(&self, value: i64, target: ValueTarget) -> Result<Proposal, MetricError> {
        match target {
            ValueTarget::Value(target) => self.against_value(value, target),
            ValueTarget::AverageValue(target) => Ok(self.against_share(value, target)),
        }
    }

    pub(super) fn of_series(&self, values: &[i64], target: ValueTarget) -> Result<Proposal, MetricError> {
        if values.is_empty() {
            return Err(NoSamples("no metrics returned".to_owned()).into());
        }
        let total = fit_i64(values.iter().map(|value| i128::from(*value)).sum());
        match target {
            ValueTarget::Value(target) => self.against_value(total, target),
            ValueTarget::AverageValue(target) => Ok(self.against_share(total, target)),
        }
    }

    /// The value itself is what should be at the target; the pods that are running and ready share it.
    fn against_value(&self, value: i64, target: i64) -> Result<Proposal, MetricError> {
        let ratio = ratio(i128::from(value), i128::from(target));
        let replicas = if self.replicas == 0 {
            // Nothing shares it yet, and a tolerance would keep it so.
            ceil_i32(ratio)
        } else if self.tolerance.holds(ratio) {
            self.replicas
        } else if self.pods.is_empty() {
            return Err(MetricError::NoPods);
        } else {
            let ready = count(self.pods.iter().filter(|pod| pod.is_running_and_ready()).count());
            ceil_i32(ratio * ready as f64)
        };
        Ok(Proposal { replicas, current: Current::Value(value) })
    }

    /// The value divided by the replicas is what should be at the target.
    fn against_share(&self, value: i64, target: i64) -> Proposal {
        let replicas = f64::from(self.status_replicas);
        let replicas = if self.tolerance.holds(value as f64 / (target as f64 * replicas)) {
            self.status_replicas
        } else {
            ceil_i32(ratio(i128::from(value), i128::from(target)))
        };
        // Nobody shares it while there are no replicas: the whole is what the first one will have.
        let average = ceil_i64(value as f64 / f64::from(self.status_replicas.max(1)));
        Proposal { replicas, current: Current::PerReplica { average, total: value } }
    }
}
