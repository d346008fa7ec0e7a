//! `spec.state: Frozen`: replicas stay where they are and do nothing; scaling, rollouts and quota edits wait.
//!
//! Pods are frozen by the node agent, which their annotation tells. Guests are paused by KubeVirt. A guest may also be paused by its
//! users, so the replica set notes that we did it, and only then are guests let go on.

use catamaran_crds::ElasticWorkloadStatus;
use catamaran_protocol::node_quota::NodeQuota;
use jiff::{SignedDuration, Timestamp};

use crate::{
    facts::{Facts, FrozenNote, InstanceSet, Members, Pause, Pod, PodQuota, SetFacts},
    goal::Goal,
    plan::{Action, Plan, Problem, Reason, Resizing, SetQuota, SetReference, SetUpdate, Step, Wait},
    planner,
    status::{self, Progress, scaling},
    steps::in_place::annotate,
};

/// For how long a guest is let go on that shows itself paused only after the end of the frozen state.
const THAW_FOR: SignedDuration = SignedDuration::from_secs(30);

/// How a frozen workload is planned for.
pub(crate) enum Hold {
    /// Everything stays as it is.
    Now(Box<Plan>),
    /// Replicas of an earlier revision have probes, so the rollout to the one without goes on first.
    After(Box<Goal>),
}

/// Plans for a workload whose state is Frozen.
pub(crate) fn hold(desired: &Goal, observed: &Facts) -> Hold {
    let sets = observed.in_order();
    let desired = Goal { replicas: held_count(&sets), ..desired.clone() };
    let min_ready = desired.rollout.min_ready_seconds;
    let probed = |set: &&&SetFacts| set.probed && (set.replicas > 0 || set.counts(observed.now, min_ready).live > 0);
    if sets.iter().any(|set| probed(&set)) {
        Hold::After(Box::new(desired))
    } else {
        Hold::Now(Box::new(plan(&desired, observed, &sets)))
    }
}

/// The count that is held: what the sets were last scaled for.
fn held_count(sets: &[&SetFacts]) -> u32 {
    let active = || sets.iter().filter(|set| set.replicas > 0 && !set.deleting);
    let noted = active().filter_map(|set| set.desired_replicas).max();
    noted.unwrap_or_else(|| active().map(|set| set.replicas).fold(0, u32::saturating_add))
}

fn plan(desired: &Goal, observed: &Facts, sets: &[&SetFacts]) -> Plan {
    let mut problems = Vec::new();
    // Traffic ends first.
    let mut steps: Vec<Step> = planner::service_step(desired, observed, &mut problems).into_iter().collect();
    let mut left = 0_u32;
    for set in sets {
        let mut update = SetUpdate::none(SetReference::of(set));
        let mut of_replicas = Vec::new();
        match &set.members {
            Members::Pods(pods) => {
                let container = &desired.in_place.container;
                let text = |quota: &PodQuota| frozen_text(quota.annotation.as_deref(), container);
                update.quota = text(&set.quota).map(|text| of_template(container, Some(text)));
                let told = |pod: &Pod| Some(annotate(&pod.name, &pod.uid, Some(text(&pod.quota)?), Reason::Freeze));
                of_replicas.extend(pods.pods.iter().filter_map(told));
                left = left.saturating_add(crate::facts::count(of_replicas.iter()));
            }
            Members::Instances(instances) => {
                update.frozen = (instances.frozen != Some(FrozenNote::Frozen)).then_some(Some(FrozenNote::Frozen));
                for instance in instances.live() {
                    left = left.saturating_add(u32::from(instance.pause != Pause::Paused));
                    match instance.pause {
                        Pause::Running => of_replicas.push(pause(&instance.name, true)),
                        Pause::NotRunning | Pause::Paused => {}
                    }
                }
            }
        }
        let used = set.replicas > 0 || !of_replicas.is_empty();
        if !update.is_empty() && !set.deleting && used {
            // Replicas to come are frozen as well, and it is noted before it is done.
            steps.push(Step { action: Action::UpdateSet(Box::new(update)), why: Reason::Freeze });
        }
        steps.extend(of_replicas);
    }
    let mut status = status_of(desired, observed, sets, left, problems.first());
    let requeue_at = planner::add_quota_conditions(&mut status, desired, observed, &Resizing::default());
    let waits = (left > 0).then_some(Wait::Frozen { replicas: left });
    let plan = Plan {
        announcements: status::announcements(&observed.status, &status),
        steps,
        waits: waits.into_iter().collect(),
        bounds: Some(desired.rollout.bounds(desired.replicas)),
        status,
        requeue_at,
    };
    crate::check::debug_check(desired, observed, &plan);
    plan
}

fn status_of(
    desired: &Goal,
    observed: &Facts,
    sets: &[&SetFacts],
    left: u32,
    problem: Option<&Problem>,
) -> ElasticWorkloadStatus {
    let (now, previous) = (observed.now, &observed.status);
    let counts: Vec<_> = sets.iter().map(|set| set.counts(now, desired.rollout.min_ready_seconds)).collect();
    let live = counts.iter().map(|counts| counts.live).fold(0, u32::saturating_add);
    let (in_status, of_scaling) = scaling::status(previous, None, desired.scaling.is_some(), desired.generation, now);
    // The deadline of a rollout that is held starts anew.
    let mut status =
        ElasticWorkloadStatus { scaling: in_status, ..status::from_counts(desired, previous, sets, &counts) };
    let wanted = &desired.in_place;
    let differs = |set: &SetFacts| {
        let there = set.quota.annotation.as_deref();
        let there = thawed_text(there).unwrap_or_else(|| there.map(ToOwned::to_owned));
        there != wanted.annotation() || wanted.change_of(&set.quota).is_some_and(|change| change.resources.is_some())
    };
    let change_waits = sets.iter().any(|set| set.replicas > 0 && (set.revision != desired.revision || differs(set)));
    let progress = match problem {
        Some(problem) => Progress::Stopped { problem },
        None => Progress::Frozen { replicas: live, left, change_waits },
    };
    status.conditions = status::conditions(previous, desired.generation, now, progress.with(&status));
    status.conditions.extend(of_scaling);
    status
}

/// The annotation that freezes as well, where the one that is there does not. One that cannot be read is replaced.
fn frozen_text(annotation: Option<&str>, container: &str) -> Option<String> {
    match annotation.and_then(|text| NodeQuota::parse(text).ok()) {
        Some(quota) if quota.frozen => None,
        Some(quota) => Some(NodeQuota { frozen: true, ..quota }.to_annotation()),
        None => Some(only_frozen(container).to_annotation()),
    }
}

/// The annotation that freezes no more, where the one that is there does: none when nothing else is in it.
fn thawed_text(annotation: Option<&str>) -> Option<Option<String>> {
    let quota = NodeQuota::parse(annotation?).ok().filter(|quota| quota.frozen)?;
    let alone = quota == only_frozen(&quota.container);
    Some((!alone).then(|| NodeQuota { frozen: false, ..quota }.to_annotation()))
}

fn only_frozen(container: &str) -> NodeQuota {
    NodeQuota { container: container.to_owned(), frozen: true, ..NodeQuota::default() }
}

fn of_template(container: &str, annotation: Option<String>) -> SetQuota {
    // Of virtual machines' templates it takes nothing off.
    SetQuota { container: container.to_owned(), resources: None, annotation: Some(annotation), lone: false }
}

fn pause(name: &str, paused: bool) -> Step {
    let why = if paused { Reason::Freeze } else { Reason::Thaw };
    Step { action: Action::PauseInstance { name: name.to_owned(), paused }, why }
}

/// Lets the pods of a set go on that is not the wanted one; those of the wanted one get its quota, which is not frozen.
pub(crate) fn thaw_pods(set: &SetFacts) -> Vec<Step> {
    let told = |pod: &Pod| {
        let text = thawed_text(pod.quota.annotation.as_deref())?;
        Some(annotate(&pod.name, &pod.uid, text, Reason::Thaw))
    };
    match &set.members {
        Members::Pods(pods) => pods.pods.iter().filter_map(told).collect(),
        Members::Instances(_) => Vec::new(),
    }
}

/// The same for the template of such a set.
pub(crate) fn thaw_template(set: &SetFacts) -> Option<SetQuota> {
    match &set.members {
        Members::Pods(_) => Some(of_template("", thawed_text(set.quota.annotation.as_deref())?)),
        Members::Instances(_) => None,
    }
}

/// What is to be done for the guests of a set to go on.
#[derive(Default)]
pub(crate) struct Thaw {
    pub(crate) steps: Vec<Step>,
    pub(crate) note: Option<Option<FrozenNote>>,
    pub(crate) look_again: Option<Timestamp>,
}

/// Lets guests go on that were paused by us. KubeVirt's condition Paused comes a moment after the pause, so the note stays for a
/// while.
pub(crate) fn thaw_instances(instances: &InstanceSet, now: Timestamp) -> Thaw {
    let Some(note) = instances.frozen else { return Thaw::default() };
    let paused = instances.live().filter(|instance| instance.pause == Pause::Paused);
    let steps: Vec<Step> = paused.map(|instance| pause(&instance.name, false)).collect();
    match note {
        FrozenNote::Frozen => {
            let since = Timestamp::from_second(now.as_second()).unwrap_or(now);
            Thaw { steps, note: Some(Some(FrozenNote::Thawing(since))), look_again: None }
        }
        FrozenNote::Thawing(since) => {
            let until = since.checked_add(THAW_FOR).unwrap_or(now);
            let over = steps.is_empty() && now >= until;
            Thaw { steps, note: over.then_some(None), look_again: (now < until).then_some(until) }
        }
    }
}
