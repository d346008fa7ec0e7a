//! The plan for one workload: which writes bring it closer to what is wanted, and why.

use catamaran_crds::{ElasticWorkloadStatus, Hull, OnFailure, State};
use jiff::Timestamp;

use crate::{
    facts::{Facts, Members, Selects, ServiceFacts, SetFacts},
    goal::{Goal, Invalid},
    objects::normalized,
    plan::{Action, Infeasible, Move, NewSet, Plan, Problem, Reason, Resizing, SetReference, SetUpdate, Step, Wait},
    status::{self, Progress, enforced, out_of_memory, scaling},
    steps::{
        counts::{self, Noted, Share},
        freeze::{self, Hold},
        in_place::{self, Chosen},
        machine_sets, replica_sets,
    },
};

/// Plans for a workload that cannot be resolved, and of which no spec is known that could: nothing is touched, the condition says
/// why, and the counts are those that there are.
#[must_use]
pub fn plan_invalid(generation: i64, invalid: &Invalid, facts: &Facts) -> Plan {
    let (previous, now) = (&facts.status, facts.now);
    let problem = Problem::Invalid(invalid.clone());
    // What minReadySeconds is, only the spec knows.
    let counts: Vec<_> = facts.sets.iter().map(|set| set.counts(now, 0)).collect();
    let count =
        |counts: &mut dyn Iterator<Item = u32>| i32::try_from(counts.fold(0, u32::saturating_add)).unwrap_or(i32::MAX);
    let updated = facts.sets.iter().zip(&counts);
    let updated = updated.filter(|(set, _)| Some(&set.revision) == previous.update_revision.as_ref());
    let status = ElasticWorkloadStatus {
        observed_generation: Some(generation),
        replicas: count(&mut counts.iter().map(|counts| counts.live)),
        ready_replicas: count(&mut counts.iter().map(|counts| counts.ready)),
        available_replicas: count(&mut counts.iter().map(|counts| counts.available)),
        updated_replicas: count(&mut updated.map(|(_, counts)| counts.live)),
        conditions: status::conditions(previous, generation, now, &Progress::Stopped { problem: &problem }),
        ..previous.clone()
    };
    Plan {
        steps: Vec::new(),
        waits: Vec::new(),
        bounds: None,
        announcements: status::announcements(previous, &status),
        status,
        requeue_at: None,
    }
}

/// Plans the next writes for a workload. Total and deterministic.
#[must_use]
pub fn plan(desired: &Goal, observed: &Facts) -> Plan {
    let Chosen { desired, infeasible } = in_place::choose(desired, observed);
    let desired = desired.as_ref();
    let infeasible = infeasible.as_ref();
    if desired.state == State::Frozen {
        return match freeze::hold(desired, observed) {
            Hold::Now(plan) => *plan,
            Hold::After(desired) => {
                plan_towards(&desired, observed, &target_revision(&desired, observed), infeasible).plan
            }
        };
    }
    let planned = plan_towards(desired, observed, &target_revision(desired, observed), infeasible);
    match &planned.deadline {
        // The deadline passed just now, and there is a revision to return to.
        Deadline::Failed { return_to: Some(revision) } => {
            let mut observed = observed.clone();
            observed.status.failed_revision = Some(desired.revision.clone());
            plan_towards(desired, &observed, revision, infeasible).plan
        }
        Deadline::Failed { return_to: None } | Deadline::Open => planned.plan,
    }
}

/// The revision to bring about: the wanted one, unless it failed and the workload went back.
fn target_revision(desired: &Goal, observed: &Facts) -> String {
    let failed = observed.status.failed_revision.as_ref() == Some(&desired.revision);
    match return_revision(desired, observed) {
        Some(revision) if failed => revision,
        Some(_) | None => desired.revision.clone(),
    }
}

/// The last revision that was fully available, if its replica set is still there and the policy is to return.
fn return_revision(desired: &Goal, observed: &Facts) -> Option<String> {
    let current = observed.status.current_revision.as_ref()?;
    let there = observed.sets.iter().any(|set| set.revision == *current && !set.deleting && set.changed_by.is_none());
    (desired.rollout.on_failure == OnFailure::Rollback && *current != desired.revision && there)
        .then(|| current.clone())
}

enum Deadline {
    Open,
    Failed { return_to: Option<String> },
}

struct Planned {
    plan: Plan,
    deadline: Deadline,
}

fn plan_towards(desired: &Goal, observed: &Facts, target: &str, infeasible: Option<&Infeasible>) -> Planned {
    let now = observed.now;
    let min_ready = desired.rollout.min_ready_seconds;
    let bounds = desired.rollout.bounds(desired.replicas);
    let sets = observed.in_order();
    let mut waits = Vec::new();
    let mut problems = Vec::new();
    let mut requeue_at: Option<Timestamp> = None;
    let mut look_again = |at: Option<Timestamp>| {
        if let Some(at) = at {
            requeue_at = Some(requeue_at.map_or(at, |soonest| soonest.min(at)));
        }
    };

    let existing = sets.iter().position(|set| set.revision == target);
    let blocked = block(desired, observed, target, existing.map(|index| sets[index]), &mut waits, &mut problems);
    // A plan on old counts could add to pods that are not counted yet.
    let uncounted = sets.iter().find(|set| !set.is_current());
    waits.extend(uncounted.map(|set| Wait::Counted { name: set.name.clone() }));
    let create =
        existing.is_none() && !blocked && uncounted.is_none() && !desired.rollout.paused && desired.replicas > 0;

    // The numbers.
    let mut shares: Vec<Share> = sets.iter().map(|set| share(set, desired, now)).collect();
    if create {
        shares.push(Share { number: next_number(&sets), ..Share::default() });
    }
    let new = existing.or(create.then_some(sets.len()));
    let sizes = counts::next(&shares, new, desired.replicas, bounds, desired.rollout.paused || blocked);

    // The writes.
    let mut steps = Vec::new();
    let mut resizing = Resizing::default();
    let asked_in_all: u64 = sets.iter().filter(|set| !set.deleting).map(|set| u64::from(set.replicas)).sum();
    for (index, set) in sets.iter().enumerate() {
        look_again(set.next_available(now, min_ready));
        let is_target = existing == Some(index) && !blocked;
        // A set that the workload returned to stays as it was.
        let has_quota = is_target && target == desired.revision;
        // Replicas are changed where they are, whatever their count.
        let of_replicas = has_quota.then(|| in_place::replicas(&desired.in_place, set, observed.resize));
        let (of_replicas, left) = of_replicas.unwrap_or_default();
        if has_quota {
            resizing = left;
        }
        let of_replicas = if has_quota { of_replicas } else { freeze::thaw_pods(set) };
        if set.deleting {
            continue;
        }
        let change = if has_quota { desired.in_place.change_of(&set.quota) } else { freeze::thaw_template(set) };
        if uncounted.is_some() {
            // Not before the template: a pod may never have a limit that its set's template lacks, as no resize takes it away.
            if change.is_none() {
                steps.extend(of_replicas);
            }
            continue;
        }
        let next = sizes[index];
        let mut update = update(set, desired, is_target.then(|| next_number(&sets)), next.asked);
        update.quota = change;
        if has_quota {
            let hash = &desired.in_place.hash;
            update.template_hash = (set.template_hash.as_ref() != Some(hash)).then(|| hash.clone());
        }
        match &set.members {
            Members::Pods(pods) => {
                let marking = replica_sets::mark(
                    pods,
                    update.set.clone(),
                    set.replicas,
                    next.asked,
                    desired.victims,
                    observed.usage_due,
                );
                steps.extend(marking.steps);
                if let Some(wait) = marking.wait {
                    waits.push(wait);
                    continue;
                }
                if next.asked != set.replicas {
                    update.replicas = Some(next.asked);
                }
                let why = why(&update, next.why);
                if !update.is_empty() {
                    steps.push(Step { action: Action::UpdateSet(Box::new(update)), why });
                }
            }
            Members::Instances(instances) => {
                let thaw = freeze::thaw_instances(instances, now);
                update.frozen = thaw.note;
                steps.extend(thaw.steps);
                look_again(thaw.look_again);
                let why = if update.quota.is_some() && next.why == Move::Stay {
                    Reason::Quota
                } else if next.why == Move::Stay {
                    Reason::Notes
                } else {
                    Reason::Scale(next.why)
                };
                let scaling = machine_sets::scale(
                    instances,
                    update,
                    set.replicas,
                    next.asked,
                    why,
                    desired.victims,
                    observed.usage_due,
                    asked_in_all - u64::from(set.replicas) + u64::from(next.asked) <= u64::from(bounds.max_total),
                    now,
                );
                steps.extend(scaling.steps);
                look_again(scaling.verdict.look_again);
                if scaling.verdict.backing_off
                    && let Some(state) = scaling.verdict.state
                {
                    problems.push(Problem::CrashLoop {
                        set: set.name.clone(),
                        rounds: state.rounds,
                        until: state.until,
                    });
                }
                waits.extend(scaling.wait);
            }
        }
        steps.extend(of_replicas);
    }
    waits.iter().for_each(|wait| look_again(wait.until()));
    if create {
        let first = sets.is_empty();
        let new_set = NewSet {
            name: desired.set_name(target),
            revision: target.to_owned(),
            number: next_number(&sets),
            template: desired.template.clone(),
            template_hash: desired.in_place.hash.clone(),
            replicas: sizes[sets.len()].asked,
            desired_replicas: desired.replicas,
            min_ready_seconds: min_ready,
        };
        let why = match infeasible {
            Some(infeasible) => Reason::Infeasible(infeasible.clone()),
            None if first => Reason::FirstRevision,
            None => Reason::NewRevision,
        };
        steps.push(Step { action: Action::CreateSet(Box::new(new_set)), why });
    }
    steps.extend(service_step(desired, observed, &mut problems));

    // The status.
    let counts: Vec<_> = sets.iter().map(|set| set.counts(now, min_ready)).collect();
    let sum = |pick: fn(&crate::facts::Counts) -> u32| counts.iter().map(pick).fold(0, u32::saturating_add);
    let (live, available) = (sum(|counts| counts.live), sum(|counts| counts.available));
    let target_counts = existing.map(|index| counts[index]).unwrap_or_default();
    let target_asked = existing.map_or(0, |index| sets[index].replicas);
    let counts_are_right = live == desired.replicas
        && target_counts.live == desired.replicas
        && target_counts.available == desired.replicas
        && target_asked == desired.replicas
        && !blocked;
    let complete = counts_are_right && uncounted.is_none();
    if resizing.open > 0 {
        waits.push(Wait::Resized { replicas: resizing.open });
    }
    if complete && steps.is_empty() {
        steps.extend(history_steps(desired, observed, &sets, &counts, target));
    }
    if !complete && !blocked && waits.is_empty() && steps.is_empty() {
        waits.push(Wait::Available { available, wanted: desired.replicas });
    }

    let previous = &observed.status;
    let mut status = status::from_counts(desired, previous, &sets, &counts);
    if target == desired.revision {
        status.failed_revision = None;
    }
    if complete && desired.replicas > 0 {
        status.current_revision = Some(target.to_owned());
    }
    let mut deadline = Deadline::Open;
    if target != desired.revision {
        problems.push(Problem::RolledBack { from: desired.revision.clone(), to: target.to_owned() });
    } else if !complete
        && !blocked
        && !desired.rollout.paused
        && desired.replicas > 0
        && status.current_revision.as_deref() != Some(target)
    {
        let since = status::progress_since(previous, &status, now);
        status.last_progress_time = Some(since.clone());
        let until = crate::facts::after(since.0, desired.rollout.progress_deadline_seconds);
        if now >= until {
            problems.push(Problem::DeadlineExceeded {
                revision: target.to_owned(),
                seconds: desired.rollout.progress_deadline_seconds,
            });
            deadline = Deadline::Failed { return_to: return_revision(desired, observed) };
        } else {
            look_again(Some(until));
        }
    }
    let outdated =
        existing.is_none() || sets.iter().zip(&counts).any(|(set, counts)| set.revision != target && counts.live > 0);
    let failure = status::sets::failure(observed).filter(|_| !complete);
    let progress = match problems.first() {
        Some(problem) if blocked || !matches!(problem, Problem::RolledBack { .. }) => Progress::Stopped { problem },
        Some(problem) if complete => Progress::Stopped { problem },
        Some(_) => Progress::Rolling { target, returning: true },
        None if counts_are_right && resizing.open > 0 => Progress::Resizing { resizing: &resizing },
        None if complete => Progress::Complete { state: desired.state },
        None if desired.rollout.paused && outdated && desired.replicas > 0 => Progress::Paused,
        None if failure.is_some() => {
            failure.as_ref().map_or(Progress::Scaling, |problem| Progress::Retrying { problem })
        }
        None if status.current_revision.as_deref() == Some(target) || desired.replicas == 0 => Progress::Scaling,
        None => Progress::Rolling { target, returning: false },
    };
    status.conditions = status::conditions(previous, desired.generation, now, progress.with(&status));
    if let Some(scaled) = &observed.scaling {
        look_again(scaled.decision.bounds.until);
        if let scaling::Due::At(at) = scaling::due(previous, &scaled.decision, now) {
            look_again(Some(at));
        }
    }
    let (of_scaling, conditions) =
        scaling::status(previous, observed.scaling.as_ref(), desired.scaling.is_some(), desired.generation, now);
    status.scaling = of_scaling;
    status.conditions.extend(conditions);
    look_again(add_quota_conditions(&mut status, desired, observed, &resizing));
    status.conditions.extend(status::sets::conditions(observed, desired.generation));
    let plan = Plan {
        announcements: status::announcements(previous, &status),
        steps,
        waits,
        bounds: Some(bounds),
        status,
        requeue_at,
    };
    crate::check::debug_check(desired, observed, &plan);
    Planned { plan, deadline }
}

/// Adds what there is to say of the quota; when that may be something else.
pub(crate) fn add_quota_conditions(
    status: &mut ElasticWorkloadStatus,
    desired: &Goal,
    observed: &Facts,
    resizing: &Resizing,
) -> Option<Timestamp> {
    let answer = enforced::answer(desired, observed, resizing);
    status.conditions.extend(answer.condition);
    let (killed, until) = out_of_memory::condition(desired, observed).unzip();
    status.conditions.extend(killed);
    [answer.look_again, until].into_iter().flatten().min()
}

/// What keeps the target's replica set from being made or changed. True when it may not be.
fn block(
    desired: &Goal,
    observed: &Facts,
    target: &str,
    existing: Option<&SetFacts>,
    waits: &mut Vec<Wait>,
    problems: &mut Vec<Problem>,
) -> bool {
    if let Some(set) = existing {
        if set.deleting {
            waits.push(Wait::SetDeleted { name: set.name.clone() });
        }
        return set.deleting;
    }
    // Only the wanted revision is ever made; one to return to exists.
    let (hull, name) = (desired.hull(), desired.set_name(target));
    if hull == Hull::VirtualMachine && observed.kubevirt == crate::facts::KubeVirt::Absent {
        waits.push(Wait::KubeVirt);
        problems.push(Problem::KubeVirtNotInstalled);
        return true;
    }
    if desired.replicas > 0 && observed.foreign_sets.contains(&(hull, name.clone())) {
        problems.push(Problem::NameTaken { kind: crate::plan::set_kind(hull), name });
        return true;
    }
    if desired.rollout.paused {
        waits.push(Wait::Paused);
    }
    false
}

fn share(set: &SetFacts, desired: &Goal, now: Timestamp) -> Share {
    let counts = set.counts(now, desired.rollout.min_ready_seconds);
    Share {
        asked: set.asked_for(),
        live: counts.live,
        available: counts.available,
        number: set.number,
        noted: set
            .desired_replicas
            .map(|count| Noted { desired: count, max_total: desired.rollout.bounds(count).max_total }),
        fixed: set.deleting,
    }
}

fn next_number(sets: &[&SetFacts]) -> u64 {
    sets.iter().map(|set| set.number).max().unwrap_or(0).saturating_add(1)
}

/// What is to be noted on a set; its scale comes later. `next_number` is given for the target.
fn update(set: &SetFacts, desired: &Goal, next_number: Option<u64>, asked: u32) -> SetUpdate {
    let mut update = SetUpdate::none(SetReference::of(set));
    let active = asked > 0 || set.replicas > 0;
    update.desired_replicas = (active && set.desired_replicas != Some(desired.replicas)).then_some(desired.replicas);
    update.number = next_number.filter(|next| active && set.number.saturating_add(1) != *next);
    if let Members::Pods(pods) = &set.members {
        let seconds = desired.rollout.min_ready_seconds;
        update.min_ready_seconds = (active && pods.min_ready_seconds != seconds).then_some(seconds);
    }
    update
}

/// Why a ReplicaSet is updated.
fn why(update: &SetUpdate, scale: Move) -> Reason {
    match (update.replicas, &update.quota) {
        (Some(_), _) => Reason::Scale(scale),
        (None, Some(_)) => Reason::Quota,
        (None, None) => Reason::Notes,
    }
}

pub(crate) fn service_step(desired: &Goal, observed: &Facts, problems: &mut Vec<Problem>) -> Option<Step> {
    let wanted = &desired.service_ports;
    let apply =
        |uid: Option<String>, why| Some(Step { action: Action::ApplyService { uid, ports: wanted.clone() }, why });
    match &observed.service {
        ServiceFacts::Absent if wanted.is_empty() => None,
        ServiceFacts::Absent => apply(None, Reason::ServiceMissing),
        ServiceFacts::Foreign => {
            if !wanted.is_empty() {
                problems.push(Problem::NameTaken { kind: "Service", name: desired.name.clone() });
            }
            None
        }
        ServiceFacts::Owned { uid, .. } if wanted.is_empty() => {
            Some(Step { action: Action::DeleteService { uid: uid.clone() }, why: Reason::ServiceUnwanted })
        }
        ServiceFacts::Owned { uid, ports, selects } => {
            let equal = ports.len() == wanted.len()
                && ports.iter().zip(wanted).all(|(is, wanted)| normalized(is) == normalized(wanted))
                && *selects == Some(Selects::of(desired.state));
            let why = if desired.state == State::Frozen { Reason::Freeze } else { Reason::ServiceDiffers };
            if equal { None } else { apply(Some(uid.clone()), why) }
        }
    }
}

/// Deletes the oldest revisions beyond the limit; the wanted one and the one to return to stay.
fn history_steps(
    desired: &Goal,
    observed: &Facts,
    sets: &[&SetFacts],
    counts: &[crate::facts::Counts],
    target: &str,
) -> Vec<Step> {
    let limit = desired.rollout.revision_history_limit;
    let keep = [Some(target), Some(desired.revision.as_str()), observed.status.current_revision.as_deref()];
    let old: Vec<SetReference> = sets
        .iter()
        .zip(counts)
        .filter(|(set, counts)| {
            set.replicas == 0 && counts.live == 0 && !set.deleting && !keep.contains(&Some(set.revision.as_str()))
        })
        .map(|(set, _)| SetReference::of(set))
        .collect();
    let beyond = old.len().saturating_sub(limit);
    old.into_iter()
        .take(beyond)
        .map(|set| Step { action: Action::DeleteSet(set), why: Reason::History { limit } })
        .collect()
}
