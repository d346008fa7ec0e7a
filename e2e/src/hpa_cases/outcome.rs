//! What came out of a case, and where two outcomes differ.

use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::Condition;

/// A result line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The name of the case.
    pub name: String,
    /// The count afterwards.
    pub replicas: i32,
    /// The conditions afterwards.
    pub conditions: Vec<Condition>,
    /// `status.currentMetrics`; nothing where a metric failed.
    pub current_metrics: Vec<Option<CurrentMetric>>,
    /// Whether an error is reported.
    pub error: bool,
    /// What the oracle says about the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Set by the oracle when the controller of Kubernetes itself crashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<String>,
}

/// An entry of `status.currentMetrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CurrentMetric {
    /// The type of the metric.
    #[serde(rename = "type")]
    pub type_: String,
    /// In percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_utilization: Option<i32>,
    /// In thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_value_milli: Option<i64>,
    /// In thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_milli: Option<i64>,
}

/// Whether a target is of fewer thousandths than there are pods: with those that pods without a sample are taken to
/// use, the mean may be below one.
fn is_below_pods(target: &Value, case: &Value) -> bool {
    let pods = case["pods"].as_array().map_or(0, Vec::len);
    milli_of(target).and_then(|milli| usize::try_from(milli).ok()).is_some_and(|milli| milli < pods)
}

/// A target in thousandths, or in per cent.
fn milli_of(target: &Value) -> Option<i64> {
    match target {
        Value::Number(percent) => percent.as_i64(),
        target => catamaran_autoscale::quantity::milli(&Quantity(target.as_str()?.to_owned())).ok(),
    }
}

/// The values of all targets of a case, in whatever form.
fn targets(case: &Value) -> impl Iterator<Item = &Value> {
    let sources = case["metrics"].as_array().into_iter().flatten().filter_map(Value::as_object);
    let sources = sources.flat_map(|metric| metric.values());
    let values = sources.filter_map(|source| source.get("target")?.as_object());
    values.flat_map(|target| {
        ["averageUtilization", "averageValue", "value"].into_iter().filter_map(|key| target.get(key))
    })
}

/// What two outcomes of a case do not agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The count.
    Replicas,
    /// Whether there is an error.
    Error,
    /// The set of conditions.
    Conditions,
    /// The current metrics.
    CurrentMetrics,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replicas => "replicas",
            Self::Error => "error",
            Self::Conditions => "conditions",
            Self::CurrentMetrics => "currentMetrics",
        })
    }
}

/// Where the two differ on purpose. `docs/migrate-from-hpa.md` lists them by these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deliberate {
    /// A number does not fit its type: the HPA's wraps around, ours is the nearest that does.
    Saturation,
    /// The sum of a metric is below zero: the HPA takes that of an external one for an overflow, ours is no load at
    /// all.
    BelowZero,
    /// A mean or percentage is above 0 and below its unit: the HPA's is 0, ours is 1.
    AboveZero,
    /// A value is shared by no replica: the HPA's share is the smallest integer, ours is the value.
    NoReplicas,
}

impl Deliberate {
    /// The difference on purpose that a case falls under, if it does. A case that falls under one may still come out
    /// alike.
    #[must_use]
    pub fn between(case: &Value, hpa: &Outcome, ours: &Outcome) -> Option<Self> {
        let metrics = || hpa.current_metrics.iter().flatten().zip(ours.current_metrics.iter().flatten());
        let values = |metric: &CurrentMetric| {
            let percent = metric.average_utilization.map(i64::from);
            [percent, metric.average_value_milli, metric.value_milli]
        };
        let pairs = || metrics().flat_map(|(hpa, ours)| values(hpa).into_iter().zip(values(ours)));
        let extreme = case["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == "extreme"));
        // The share of a target of nothing is infinite.
        if extreme || targets(case).any(|target| milli_of(target) == Some(0)) {
            Some(Self::Saturation)
        } else if pairs().any(|pair| pair == (Some(0), Some(1)))
            || (targets(case).any(|target| is_below_pods(target, case)) && pairs().any(|(hpa, _)| hpa == Some(0)))
        {
            Some(Self::AboveZero)
        } else if pairs().any(|pair| pair == (Some(i64::MAX), Some(0))) {
            Some(Self::BelowZero)
        } else if case["statusReplicas"] == 0 && pairs().any(|(hpa, _)| hpa == Some(i64::MIN)) {
            Some(Self::NoReplicas)
        } else if pairs().any(|(_, ours)| ours.is_some_and(|value| value < 0)) {
            Some(Self::BelowZero)
        } else {
            None
        }
    }
}

/// What two outcomes of a case do not agree on. The order of conditions is free.
#[must_use]
pub fn differences(a: &Outcome, b: &Outcome) -> Vec<Difference> {
    let sorted = |outcome: &Outcome| {
        let mut conditions = outcome.conditions.clone();
        conditions.sort();
        conditions
    };
    [
        (Difference::Replicas, a.replicas != b.replicas),
        (Difference::Error, a.error != b.error),
        (Difference::Conditions, sorted(a) != sorted(b)),
        (Difference::CurrentMetrics, a.current_metrics != b.current_metrics),
    ]
    .into_iter()
    .filter_map(|(difference, differs)| differs.then_some(difference))
    .collect()
}
