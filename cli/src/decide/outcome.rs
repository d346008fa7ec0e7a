//! The result of a case.

use catamaran_autoscale::{
    Decision,
    condition::{Change, Write},
    decision::MetricReport,
    proposal::Current,
};
use serde::Serialize;

use super::case::{Case, CaseCondition};

/// One result line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome<'a> {
    name: &'a str,
    replicas: i32,
    conditions: Vec<CaseCondition>,
    /// By the index of the metric; null where it has no value.
    current_metrics: Vec<Option<CurrentMetric>>,
    error: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CurrentMetric {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_utilization: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value_milli: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_milli: Option<i64>,
}

impl<'a> Outcome<'a> {
    /// What a case comes to once the decision is written.
    pub fn new(case: &'a Case, decision: &Decision) -> Self {
        let write = if decision.write().is_some() { Write::Done } else { Write::None };
        Self {
            name: &case.name,
            replicas: decision.to,
            conditions: conditions(&case.initial_conditions, &decision.changes(&write)),
            current_metrics: decision.metrics.iter().map(CurrentMetric::new).collect(),
            error: decision.has_failed_metrics(),
        }
    }
}

impl CurrentMetric {
    fn new(report: &MetricReport) -> Option<Self> {
        let empty =
            Self { kind: report.kind.name(), average_utilization: None, average_value_milli: None, value_milli: None };
        Some(match report.outcome.as_ref().ok()?.current {
            Current::Utilization { percent, average } => {
                Self { average_utilization: Some(percent), average_value_milli: Some(average), ..empty }
            }
            Current::Share(average) | Current::Average(average) | Current::PerReplica { average, .. } => {
                Self { average_value_milli: Some(average), ..empty }
            }
            Current::Value(value) => Self { value_milli: Some(value), ..empty },
        })
    }
}

/// The conditions before, as the changes leave them.
fn conditions(before: &[CaseCondition], changes: &[Change]) -> Vec<CaseCondition> {
    let mut conditions = before.to_vec();
    for change in changes {
        let kind = change.kind().name();
        match change {
            Change::Remove(_) => conditions.retain(|condition| condition.kind != kind),
            Change::Set(condition) => {
                let new = CaseCondition {
                    kind: kind.to_owned(),
                    status: if condition.status { "True" } else { "False" }.to_owned(),
                    reason: condition.reason.to_owned(),
                };
                match conditions.iter_mut().find(|old| old.kind == kind) {
                    Some(old) => *old = new,
                    None => conditions.push(new),
                }
            }
        }
    }
    conditions
}
