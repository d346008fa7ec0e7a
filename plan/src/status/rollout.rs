//! The status of a workload that goes towards its target, or is held.

use catamaran_crds::{ElasticWorkloadStatus, StoredHistory, names::WORKLOAD_LABEL};
use jiff::Timestamp;

use crate::{
    draft::{Context, Deadline, Draft},
    facts::{Counts, Severity},
    plan::Problem,
    status::{
        conditions::{Progress, conditions, time},
        sets,
    },
};

/// Counts, revisions and conditions of a rollout.
pub(crate) fn of_rollout(context: &Context<'_>, draft: &mut Draft) {
    let (target, previous) = (&context.target, &context.facts.status);
    let mut status = from_counts(context);
    status.failed_revision = match target.deadline {
        _ if context.is_wanted() => None,
        Deadline::Returned => Some(target.wanted.clone()),
        Deadline::None | Deadline::Running { .. } | Deadline::Missed { .. } => previous.failed_revision.clone(),
    };
    if context.is_complete() && context.replicas > 0 {
        status.current_revision = Some(target.revision.clone());
    }
    status.last_progress_time = match target.deadline {
        Deadline::Running { since, .. } | Deadline::Missed { since } => Some(time(since)),
        Deadline::None | Deadline::Returned => None,
    };
    let failure = sets::failure(context.facts).filter(|_| !context.is_complete());
    let progress = progress(context, draft, failure.as_ref(), &status);
    status.conditions = conditions(previous, context.goal.generation, context.now(), progress.with(&status));
    draft.status = status;
}

fn progress<'a>(
    context: &'a Context<'_>,
    draft: &'a Draft,
    failure: Option<&'a Problem>,
    status: &ElasticWorkloadStatus,
) -> Progress<'a> {
    let (target, complete) = (context.target.revision.as_str(), context.is_complete());
    let trouble = context.trouble().filter(|trouble| trouble.cause.severity < Severity::Start);
    match draft.problems.first() {
        Some(problem) if context.is_blocked() || complete || !matches!(problem, Problem::RolledBack { .. }) => {
            Progress::Stopped { problem }
        }
        Some(_) => Progress::Rolling { target, returning: true, trouble },
        None if context.counts_are_right() && draft.resizing.open > 0 => {
            Progress::Resizing { resizing: &draft.resizing }
        }
        None if complete => Progress::Complete { state: context.goal.state },
        None if context.goal.rollout.paused && is_outdated(context) && context.replicas > 0 => Progress::Paused,
        None => match failure {
            Some(problem) => Progress::Retrying { problem },
            None if status.current_revision.as_deref() == Some(target) || context.replicas == 0 => {
                Progress::Scaling { trouble }
            }
            None => Progress::Rolling { target, returning: false, trouble },
        },
    }
}

/// Whether replicas are of another revision than the target.
fn is_outdated(context: &Context<'_>) -> bool {
    let mut sets = context.sets.iter().zip(&context.counts);
    context.target.existing.is_none()
        || sets.any(|(set, counts)| set.revision != context.target.revision && counts.live > 0)
}

/// Counts and conditions while the workload is frozen. The deadline of a rollout that is held starts anew.
pub(crate) fn of_frozen(context: &Context<'_>, draft: &mut Draft) {
    let mut status = from_counts(context);
    let progress = match draft.problems.first() {
        Some(problem) => Progress::Stopped { problem },
        None => Progress::Frozen { replicas: context.live(), left: draft.unfrozen, change_waits: draft.change_waits },
    };
    let previous = &context.facts.status;
    status.conditions = conditions(previous, context.goal.generation, context.now(), progress.with(&status));
    draft.status = status;
}

/// The status that follows from counts alone; what is known of revisions stays as it was.
fn from_counts(context: &Context<'_>) -> ElasticWorkloadStatus {
    let (goal, previous) = (context.goal, &context.facts.status);
    let count = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let sum = |pick: fn(&Counts) -> u32| count(context.counts.iter().map(pick).fold(0, u32::saturating_add));
    let mut sets = context.sets.iter().zip(&context.counts);
    let of_revision = sets.find(|(set, _)| set.revision == context.target.wanted);
    ElasticWorkloadStatus {
        observed_generation: Some(goal.generation),
        hull: Some(goal.hull()),
        selector: Some(selector(&goal.name)),
        desired_replicas: count(context.replicas),
        replicas: sum(|counts| counts.live),
        ready_replicas: sum(|counts| counts.ready),
        available_replicas: sum(|counts| counts.available),
        updated_replicas: of_revision.map_or(0, |(_, counts)| count(counts.live)),
        current_revision: previous.current_revision.clone(),
        update_revision: Some(context.target.wanted.clone()),
        failed_revision: previous.failed_revision.clone(),
        last_progress_time: None,
        last_good_spec: StoredHistory::default(),
        held: context.held.clone(),
        moving: context.moving.clone(),
        restarted_at: goal.restarted_at.map(time),
        scaling: None,
        conditions: Vec::new(),
    }
}

/// Since when the rollout has come no further (`DeploymentProgressing`): now, if it just did.
pub(crate) fn progress_since(context: &Context<'_>) -> Timestamp {
    let (previous, status) = (&context.facts.status, from_counts(context));
    let old = |status: &ElasticWorkloadStatus| status.replicas - status.updated_replicas;
    let further = previous.update_revision != status.update_revision
        || status.updated_replicas > previous.updated_replicas
        || old(&status) < old(previous)
        || status.ready_replicas > previous.ready_replicas
        || status.available_replicas > previous.available_replicas;
    match &previous.last_progress_time {
        Some(since) if !further => since.0,
        Some(_) | None => time(context.now()).0,
    }
}

/// The selector of all replicas, as the scale subresource wants it.
#[must_use]
pub fn selector(workload: &str) -> String {
    format!("{WORKLOAD_LABEL}={workload}")
}
