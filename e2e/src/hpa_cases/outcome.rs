//! What came out of a case, and where two outcomes differ.

use std::fmt;

use serde::{Deserialize, Serialize};

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
