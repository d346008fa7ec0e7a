//! `spec.state: Frozen`: replicas stay where they are and do nothing; scaling, rollouts and quota edits wait.
//!
//! Pods are frozen by the node agent, which their annotation tells. Guests are paused by KubeVirt. A guest may also be
//! paused by its users, so the replica set notes that we did it, and only then are guests unpaused.

use jiff::{SignedDuration, Timestamp};

use crate::{
    draft::{Context, Draft},
    facts::{FrozenNote, InstanceSet, Members, Pause, Pod, PodSet, SetFacts, count},
    goal::freezing::{frozen_text, thawed_text},
    plan::{Action, Reason, SetQuota, SetReference, SetUpdate, Step, Wait},
    steps::in_place::{annotate, change_of},
};

/// For how long a guest is unpaused that shows itself paused only after the end of the frozen state.
const THAW_FOR: SignedDuration = SignedDuration::from_secs(30);

/// Whether all stays as it is. A rollout goes on first while replicas of an earlier revision have probes: to the one
/// without.
pub(crate) fn holds(context: &Context<'_>) -> bool {
    let mut sets = context.sets.iter().zip(&context.counts);
    context.is_frozen() && !sets.any(|(set, counts)| set.probed && (set.replicas > 0 || counts.live > 0))
}

/// Freezes the replicas of all sets.
pub(crate) fn freeze(context: &Context<'_>, draft: &mut Draft) {
    for set in &context.sets {
        let mut update = SetUpdate::none(SetReference::new(set));
        let of_replicas = match &set.members {
            Members::Pods(pods) => freeze_pods(context, draft, set, pods, &mut update),
            Members::Instances(instances) => pause_instances(draft, instances, &mut update),
        };
        let used = set.replicas > 0 || !of_replicas.is_empty();
        if !update.is_empty() && !set.deleting && used {
            // Replicas to come are frozen as well, and it is noted before it is done.
            draft.step(Action::UpdateSet(Box::new(update)), Reason::Freeze);
        }
        draft.steps.extend(of_replicas);
        draft.change_waits |= set.replicas > 0 && waits_with_a_change(context, set);
    }
    if draft.unfrozen > 0 {
        draft.wait(Wait::Frozen { replicas: draft.unfrozen });
    }
}

fn freeze_pods(
    context: &Context<'_>,
    draft: &mut Draft,
    set: &SetFacts,
    pods: &PodSet,
    update: &mut SetUpdate,
) -> Vec<Step> {
    let container = &context.goal.in_place.container;
    let text = |annotation: &Option<String>| frozen_text(annotation.as_deref(), container);
    update.quota = text(&set.quota.annotation).map(|text| of_template(container, Some(text)));
    let step = |pod: &Pod| {
        let text = text(&pod.quota.annotation)?;
        Some(annotate(&pod.name, &pod.uid, Some(text), Reason::Freeze))
    };
    let steps: Vec<Step> = pods.pods.iter().filter_map(step).collect();
    draft.unfrozen = draft.unfrozen.saturating_add(count(steps.iter()));
    steps
}

fn pause_instances(draft: &mut Draft, instances: &InstanceSet, update: &mut SetUpdate) -> Vec<Step> {
    update.notes.frozen = (instances.frozen != Some(FrozenNote::Frozen)).then_some(Some(FrozenNote::Frozen));
    let is = |pause: Pause| instances.live().filter(move |instance| instance.pause == pause);
    let unpaused = instances.live_count().saturating_sub(count(is(Pause::Paused)));
    draft.unfrozen = draft.unfrozen.saturating_add(unpaused);
    is(Pause::Running).map(|instance| pause(&instance.name, true)).collect()
}

/// Whether a set has another template or quota than is wanted, apart from being frozen.
fn waits_with_a_change(context: &Context<'_>, set: &SetFacts) -> bool {
    let wanted = &context.goal.in_place;
    let there = set.quota.annotation.as_deref();
    let there = thawed_text(there).unwrap_or_else(|| there.map(ToOwned::to_owned));
    set.revision != context.target.wanted
        || there != wanted.annotation()
        || change_of(wanted, &set.quota).is_some_and(|change| change.resources.is_some())
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

/// Lets guests go on that were paused by us. KubeVirt's condition Paused comes a moment after the pause, so the note
/// stays for a while.
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
