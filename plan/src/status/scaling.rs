//! What a decision leaves in the status: the count, the conditions, and what has to be remembered.
//!
//! A decision is made every second and hardly ever changes anything. So it is written when it changes the count; when
//! it only changes the conditions, at most every [`CONDITIONS_EVERY`] seconds, since they may go back and forth with a
//! load at an edge.

use catamaran_crds::{DecisionStatus, ElasticWorkloadStatus, MetricStatus, ScalingStatus, StoredHistory};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    decision::Scaled,
    draft::{Context, Draft},
    facts::after,
    status::conditions::{kept_condition, time},
};
use catamaran_autoscale::{
    Decision,
    condition::{Change, ConditionType, Write},
    decision::Step,
    policy::Mode,
};

/// How often conditions alone are written, in seconds: as often as the HPA writes its.
pub const CONDITIONS_EVERY: u32 = 15;

/// Whether a decision has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now.
    Now,
    /// At that time, if it still says so.
    At(Timestamp),
    /// It changes nothing.
    Never,
}

/// Whether a decision changes what a status says.
#[must_use]
pub fn due(previous: &ElasticWorkloadStatus, decision: &Decision, now: Timestamp) -> Due {
    let Some(before) = &previous.scaling else { return Due::Now };
    if decision.write().is_some() || before.desired_replicas != decision.to {
        return Due::Now;
    }
    let differs = decision.changes(&Write::None).iter().any(|change| match change {
        Change::Remove(kind) => find(previous, *kind).is_some(),
        Change::Set(condition) => find(previous, condition.kind).is_none_or(|known| {
            known.status != word(condition.status)
                || reason_key(&known.reason) != reason_key(condition.reason)
                || (!condition.status && !same_words(&known.message, &condition.message))
        }),
    });
    let written = before.last_decision.as_ref().map(|decision| after(decision.time.0, CONDITIONS_EVERY));
    match written {
        _ if !differs => Due::Never,
        Some(at) if at > now => Due::At(at),
        Some(_) | None => Due::Now,
    }
}

/// The reasons for which nothing is in the way are one: after a change of the count the HPA goes through all of them.
fn reason_key(reason: &str) -> &str {
    if ["SucceededGetScale", "SucceededRescale", "ReadyForNewScale"].contains(&reason) { "" } else { reason }
}

/// Whether two messages differ in nothing but numbers, such as times and ages: those are no news. Another cause is,
/// also where the reason is one for all causes (a query that gives no answer yet, or two series).
fn same_words(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(a) == words(b)
}

/// Adds what scaling says, and asks to look again when that may be something else.
pub(crate) fn of_scaling(context: &Context<'_>, draft: &mut Draft) {
    let (goal, previous, now) = (context.goal, &context.facts.status, context.now());
    draft.look_again(context.again);
    if let Some(scaled) = context.scaled {
        draft.look_again(scaled.decision.bounds.until);
        if let Due::At(at) = due(previous, &scaled.decision, now) {
            draft.look_again(Some(at));
        }
    }
    let (scaling, conditions) = status(previous, context.scaled, goal.scaling.is_some(), goal.generation, now);
    draft.status.scaling = scaling;
    draft.status.conditions.extend(conditions);
}

/// What becomes of the status: its part on scaling, and the conditions of scaling.
fn status(
    previous: &ElasticWorkloadStatus,
    scaled: Option<&Scaled>,
    keeps: bool,
    generation: i64,
    now: Timestamp,
) -> (Option<ScalingStatus>, Vec<Condition>) {
    let Some(Scaled { decision, history }) = scaled else {
        // Stopped: the count goes on from here.
        return (previous.scaling.clone().filter(|_| keeps), Vec::new());
    };
    if decision.mode == Mode::Off {
        return (None, Vec::new());
    }
    let kept = |kind: &ConditionType| find(previous, *kind);
    if due(previous, decision, now) != Due::Now {
        let conditions = ALL
            .iter()
            .filter_map(kept)
            .map(|condition| Condition { observed_generation: Some(generation), ..condition.clone() });
        return (previous.scaling.clone(), conditions.collect());
    }
    let write = if decision.write().is_some() { Write::Done } else { Write::None };
    let changes = decision.changes(&write);
    let conditions = ALL.iter().filter_map(|kind| match changes.iter().find(|change| change.kind() == *kind) {
        Some(Change::Remove(_)) => None,
        None => kept(kind).cloned(),
        Some(Change::Set(condition)) => {
            let (reason, message) = (condition.reason, condition.message.to_string());
            Some(kept_condition(previous, kind.name(), word(condition.status), reason, &message, generation, now))
        }
    });
    let before = previous.scaling.as_ref();
    let lost = noted_count(previous).filter(|noted| decision.mode == Mode::Auto && *noted != decision.from);
    let scale_time = match write {
        Write::Done => Some(time(now)),
        Write::None | Write::Failed(_) if lost.is_some() => Some(time(now)),
        Write::None | Write::Failed(_) => before.and_then(|before| before.last_scale_time.clone()),
    };
    let last_decision = match (write, lost) {
        (Write::None, Some(from)) => found(decision, from),
        (Write::None | Write::Done | Write::Failed(_), _) => decision_status(decision),
    };
    let scaling = ScalingStatus {
        desired_replicas: decision.to,
        last_scale_time: scale_time,
        last_decision: Some(last_decision),
        history: StoredHistory::store(history),
    };
    (Some(scaling), conditions.collect())
}

const ALL: [ConditionType; 4] = [
    ConditionType::AbleToScale,
    ConditionType::ScalingActive,
    ConditionType::ScalingLimited,
    ConditionType::ScaledToZero,
];

fn word(status: bool) -> &'static str {
    if status { "True" } else { "False" }
}

fn find(status: &ElasticWorkloadStatus, kind: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind.name())
}

/// The count that scaling noted last in a status, where it is the workload's: in mode Auto.
#[must_use]
pub fn noted_count(status: &ElasticWorkloadStatus) -> Option<i32> {
    let noted = status.scaling.as_ref()?.desired_replicas;
    (noted == status.desired_replicas).then_some(noted)
}

/// A change of the count that was written and not noted: its status was lost, as when the operator is killed between
/// the two.
fn found(decision: &Decision, from: i32) -> DecisionStatus {
    let to = decision.from;
    let message =
        format!("went from {from} to {to} replicas: found on the replica set, its reasons were lost with the status");
    DecisionStatus { from, to, reason: "FoundOnSet".to_owned(), message, ..decision_status(decision) }
}

fn decision_status(decision: &Decision) -> DecisionStatus {
    let metrics = decision.metrics.iter().map(|metric| MetricStatus {
        name: metric.name.clone(),
        current: metric.current_text(),
        target: metric.target_text().unwrap_or_default(),
        proposal: metric.outcome.as_ref().ok().map(|proposal| proposal.replicas),
    });
    DecisionStatus {
        time: time(decision.at),
        from: decision.from,
        to: decision.to,
        reason: decision.reason().to_owned(),
        message: format!("{}: {}", decision.headline(), decision.cause()),
        metrics: metrics.collect(),
        limited_by: decision.steps.iter().filter_map(Step::limit).map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::same_words;

    #[test]
    fn another_cause_is_news_and_another_number_is_not() {
        assert!(!same_words(
            "query q has no value: no answer has come yet",
            "query q has no value: the query gives 2 series"
        ));
        assert!(same_words(
            "no metric has a value since 2026-03-01T10:00:00Z",
            "no metric has a value since 2026-03-01T11:30:07Z"
        ));
        assert!(same_words("", ""));
    }
}
