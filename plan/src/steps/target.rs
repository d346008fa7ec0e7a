//! Which revision is brought about, and what stands in its way.

use catamaran_crds::{Hull, OnFailure, State};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    decision::Scaled,
    draft::{Context, Deadline, Draft, Obstacle, Target},
    facts::{Facts, KubeVirt, after},
    goal::{Goal, render},
    plan::{Action, DEADLINE_EXCEEDED, NewSet, Problem, Reason, SetReference, Wait, set_kind},
    status::progress_since,
    steps::{
        held::{self, Count},
        in_place,
    },
};

/// Gathers what a plan is made of. The replica count is decided here: by scaling where it is on, by the spec otherwise,
/// and while the workload is frozen it is the one that there is.
pub(crate) fn context<'a>(goal: &'a Goal, facts: &'a Facts, scaled: Option<&'a Scaled>) -> Context<'a> {
    let mut sets: Vec<_> = facts.sets.iter().collect();
    sets.sort_by(|a, b| a.number.cmp(&b.number).then_with(|| a.name.cmp(&b.name)));
    let counts = sets.iter().map(|set| set.counts(facts.now, goal.rollout.min_ready_seconds)).collect();
    let (wanted, infeasible) = in_place::choose(goal, facts);
    let target = Target {
        revision: wanted.clone(),
        wanted,
        infeasible,
        existing: None,
        obstacle: None,
        deadline: Deadline::None,
    };
    // While the workload is stopped or frozen, nothing is decided.
    let scaled = scaled.filter(|_| goal.state == State::Running);
    let Count { replicas, held, moving, again } = held::count(goal, facts, &sets, scaled);
    let bounds = goal.rollout.bounds(replicas);
    let mut context = Context { goal, facts, scaled, replicas, held, moving, again, bounds, sets, counts, target };
    aim(&mut context);
    context
}

/// Aims at the wanted revision, or at the last good one after the wanted one failed.
fn aim(context: &mut Context<'_>) {
    let way_back = return_revision(context);
    let failed = context.facts.status.failed_revision.as_ref() == Some(&context.target.wanted);
    let wanted = context.target.wanted.clone();
    aim_at(context, way_back.clone().filter(|_| failed).unwrap_or(wanted));
    let deadline = deadline(context);
    match (deadline, way_back) {
        (Deadline::Missed { .. }, Some(revision)) if !context.is_frozen() => {
            aim_at(context, revision);
            context.target.deadline = Deadline::Returned;
        }
        (deadline, _) => context.target.deadline = deadline,
    }
}

fn aim_at(context: &mut Context<'_>, revision: String) {
    context.target.existing = context.sets.iter().position(|set| set.revision == revision);
    context.target.revision = revision;
    context.target.obstacle = obstacle(context);
}

/// The last revision that was fully available, if its replica set is still there and the policy is to return.
fn return_revision(context: &Context<'_>) -> Option<String> {
    let current = context.facts.status.current_revision.as_ref()?;
    let there = context.sets.iter().any(|set| set.revision == *current && !set.deleting && set.changed_by.is_none());
    let returns = context.goal.rollout.on_failure == OnFailure::Rollback;
    (returns && *current != context.target.wanted && there).then(|| current.clone())
}

fn obstacle(context: &Context<'_>) -> Option<Obstacle> {
    if let Some(index) = context.target.existing {
        let set = context.sets[index];
        return set.deleting.then(|| Obstacle::Deleting { name: set.name.clone() });
    }
    // Only the wanted revision is ever made; one to return to exists.
    let (hull, name) = (context.goal.hull(), context.goal.set_name(&context.target.revision));
    if hull == Hull::VirtualMachine && context.facts.kubevirt == KubeVirt::Absent {
        return Some(Obstacle::KubeVirtAbsent);
    }
    let taken = context.replicas > 0 && context.facts.foreign_sets.contains(&(hull, name.clone()));
    taken.then(|| Obstacle::NameTaken { kind: set_kind(hull), name })
}

fn deadline(context: &Context<'_>) -> Deadline {
    let complete = context.is_complete();
    let reached = complete || context.facts.status.current_revision.as_ref() == Some(&context.target.revision);
    if !context.is_wanted() || context.is_blocked() || context.goal.rollout.paused || context.replicas == 0 || reached {
        return Deadline::None;
    }
    let since = progress_since(context);
    // Time in which nobody watched is no delay, nor is one by which a clock was set.
    let counted_since = since.max(context.facts.watched_since).min(context.now());
    let until = after(counted_since, context.goal.rollout.progress_deadline_seconds);
    let missed = context.now() >= until || missed_before(context, since);
    if missed { Deadline::Missed { since } } else { Deadline::Running { since, until } }
}

/// Whether the status says already that the deadline is missed, and nothing has moved since. A restart of the operator
/// takes nothing back.
fn missed_before(context: &Context<'_>, since: Timestamp) -> bool {
    let status = &context.facts.status;
    let exceeded = |condition: &Condition| {
        condition.type_ == "Stalled" && condition.status == "True" && condition.reason == DEADLINE_EXCEEDED
    };
    status.last_progress_time.as_ref().is_some_and(|time| time.0 == since) && status.conditions.iter().any(exceeded)
}

/// What is waited for before the target's set can be made or changed, and what somebody has to do about it.
pub(crate) fn report_obstacle(context: &Context<'_>, draft: &mut Draft) {
    match &context.target.obstacle {
        Some(Obstacle::Deleting { name }) => draft.wait(Wait::SetDeleted { name: name.clone() }),
        Some(Obstacle::KubeVirtAbsent) => {
            draft.wait(Wait::KubeVirt);
            draft.problems.push(Problem::KubeVirtNotInstalled);
        }
        Some(Obstacle::NameTaken { kind, name }) => {
            draft.problems.push(Problem::NameTaken { kind, name: name.clone() });
        }
        None if context.target.existing.is_none() && context.goal.rollout.paused => draft.wait(Wait::Paused),
        None => {}
    }
    if let Some(set) = context.uncounted() {
        draft.wait(Wait::Counted { name: set.name.clone() });
    }
}

/// Makes the set of a revision that has none.
pub(crate) fn create(context: &Context<'_>, draft: &mut Draft) {
    if !context.creates() {
        return;
    }
    let Some(size) = draft.sizes.get(context.sets.len()) else { return };
    let revision = &context.target.revision;
    let set = NewSet {
        name: context.goal.set_name(revision),
        revision: revision.clone(),
        number: context.next_number(),
        template: render::with_quota_noted(
            render::with_revision(context.goal.template.clone(), revision),
            context.goal.in_place.resources,
        ),
        template_hash: context.goal.in_place.hash.clone(),
        replicas: size.asked,
        desired_replicas: context.replicas,
        min_ready_seconds: context.min_ready_seconds(),
        like: may_be_like(context),
    };
    let why = match &context.target.infeasible {
        Some(infeasible) => Reason::Infeasible(infeasible.clone()),
        None if context.sets.is_empty() => Reason::FirstRevision,
        None => Reason::NewRevision,
    };
    draft.step(Action::CreateSet(Box::new(set)), why);
}

/// The newest set, if its template may mean the same as the goal's, written in another way.
fn may_be_like(context: &Context<'_>) -> Option<SetReference> {
    let hash = Some(&context.goal.in_place.hash);
    let newest = context.sets.iter().rfind(|set| !set.deleting)?;
    let may =
        newest.hull() == context.goal.hull() && newest.changed_by.is_none() && newest.template_hash.as_ref() != hash;
    may.then(|| SetReference::new(newest))
}

/// Where there is nothing to write and nothing else to wait for, replicas have to become available.
pub(crate) fn wait_for_replicas(context: &Context<'_>, draft: &mut Draft) {
    if !context.is_complete() && !context.is_blocked() && draft.waits.is_empty() && draft.steps.is_empty() {
        draft.wait(Wait::Available { available: context.available(), wanted: context.replicas });
    }
}

/// What became of a revision that made no progress.
pub(crate) fn report_deadline(context: &Context<'_>, draft: &mut Draft) {
    let Target { wanted, revision, deadline, .. } = &context.target;
    if !context.is_wanted() {
        draft.problems.push(Problem::RolledBack { from: wanted.clone(), to: revision.clone() });
    }
    match deadline {
        Deadline::Running { since: _, until } => draft.look_again(Some(*until)),
        Deadline::Missed { since: _ } => draft.problems.push(Problem::DeadlineExceeded {
            revision: revision.clone(),
            seconds: context.goal.rollout.progress_deadline_seconds,
            trouble: context.trouble().cloned().map(Box::new),
        }),
        Deadline::None | Deadline::Returned => {}
    }
}
