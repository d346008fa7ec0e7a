//! What of a template can change without a restart, and how replicas that run get there.
//!
//! A replica set of containers is kept when nothing but its quota changes: its template is changed for pods to come,
//! and each pod is resized (KEP-1287) and told to the node agent by its annotation. The kernel refuses a CPU limit
//! below cpu.max.burst, so the agent is told before the resize is asked for: it lowers the burst at once, and raises it
//! as soon as cpu.max lets it. Each step is found again from what is observed.

use catamaran_protocol::node_quota::NodeQuota;

use crate::{
    draft::{Context, Draft},
    facts::{Containers, Facts, Members, Pod, PodQuota, Resize, ResizeApi, SetFacts, TemplateQuota, count},
    goal::{Goal, InPlace, quota::Quota},
    plan::{Action, ChangedPod, HeldUp, Infeasible, Obstruction, Reason, Resizing, SetQuota, Step, Wait},
};

/// CPU and memory of the container of the quota.
fn resources_of(in_place: &InPlace, there: &Containers) -> Quota {
    there.get(&in_place.container).unwrap_or_default().with_defaults()
}

/// Whether CPU and memory of a pod are as wanted.
fn fits(in_place: &InPlace, there: &PodQuota) -> bool {
    in_place.resources.is_none_or(|wanted| wanted.is_met_by(resources_of(in_place, &there.containers)))
}

/// What has to change in a set's template, if anything.
pub(crate) fn change_of(in_place: &InPlace, there: &TemplateQuota) -> Option<SetQuota> {
    let annotation = in_place.annotation();
    let change = SetQuota {
        container: in_place.container.clone(),
        // Nobody else writes a template, so it is to be the same and not only enough.
        resources: in_place.resources.filter(|wanted| *wanted != resources_of(in_place, &there.containers)),
        annotation: (annotation != there.annotation).then_some(annotation),
        lone: there.lone,
    };
    (change.resources.is_some() || change.annotation.is_some()).then_some(change)
}

/// Names the wanted revision: that of the newest replica set that can become like the template in place, else one to be
/// made. With it, why the newest set that is alike is not kept.
pub(crate) fn choose(goal: &Goal, facts: &Facts) -> (String, Option<Infeasible>) {
    let mut alike: Vec<&SetFacts> = facts.sets.iter().filter(|set| !set.deleting && is_alike(goal, set)).collect();
    alike.sort_by(|a, b| b.number.cmp(&a.number).then_with(|| a.name.cmp(&b.name)));
    let mut infeasible = None;
    for set in &alike {
        match obstacle(goal, facts, set) {
            None => return (set.revision.clone(), infeasible),
            Some(Obstacle::Infeasible(pod)) => {
                infeasible.get_or_insert(pod);
            }
            Some(Obstacle::NotInPlace) => {}
        }
    }
    let taken = |name: &str| alike.iter().any(|set| set.revision == name);
    if !taken(&goal.revision) {
        return (goal.revision.clone(), infeasible);
    }
    // More names than sets: one is free.
    let mut names = (1..=alike.len()).map(|number| goal.template.revision_beside(number));
    let name = names.find(|name| !taken(name)).unwrap_or_else(|| goal.revision.clone());
    (name, infeasible)
}

/// Whether a set differs in the quota at most. One made before hashes were noted is known by its name.
fn is_alike(goal: &Goal, set: &SetFacts) -> bool {
    set.hull() == goal.hull()
        && match &set.template_hash {
            Some(hash) => *hash == goal.in_place.hash,
            None => set.revision == goal.revision,
        }
}

enum Obstacle {
    /// Kubernetes would refuse the change, the set failed with another quota and this one is a new try, or somebody
    /// else wrote it.
    NotInPlace,
    Infeasible(Infeasible),
}

fn obstacle(goal: &Goal, facts: &Facts, set: &SetFacts) -> Option<Obstacle> {
    if set.changed_by.is_some() {
        return Some(Obstacle::NotInPlace);
    }
    let in_place = &goal.in_place;
    let changes = change_of(in_place, &set.quota);
    if changes.is_some() && facts.status.failed_revision.as_ref() == Some(&set.revision) {
        return Some(Obstacle::NotInPlace);
    }
    let wanted = in_place.resources?;
    let served =
        facts.resize == ResizeApi::Served && wanted.keeps_all_of(resources_of(in_place, &set.quota.containers));
    if changes.is_some_and(|change| change.resources.is_some()) && !served {
        return Some(Obstacle::NotInPlace);
    }
    let Members::Pods(pods) = &set.members else { return None };
    let refused = pods.pods.iter().find_map(|pod| {
        let refused = pod.refused.as_ref().filter(|refused| refused.quota == wanted)?;
        Some(Infeasible { pod: pod.name.clone(), message: refused.message.clone() })
    });
    if let Some(refused) = refused {
        return Some(Obstacle::Infeasible(refused));
    }
    pods.pods.iter().find_map(|pod| match &pod.quota.resize {
        Resize::Infeasible(message) if fits(in_place, &pod.quota) => {
            Some(Obstacle::Infeasible(Infeasible { pod: pod.name.clone(), message: message.clone() }))
        }
        Resize::Infeasible(_) | Resize::Settled | Resize::InProgress | Resize::Failing(_) | Resize::Deferred(_) => None,
    })
}

/// The steps for the replicas of the target's set.
pub(crate) fn replicas(context: &Context<'_>, draft: &mut Draft, set: &SetFacts) -> Vec<Step> {
    let in_place = &context.goal.in_place;
    match &set.members {
        Members::Pods(pods) => {
            let api = context.facts.resize;
            pods.pods.iter().flat_map(|pod| of_pod(in_place, pod, api, &mut draft.resizing)).collect()
        }
        Members::Instances(instances) => {
            let annotation = in_place.annotation();
            let launchers = instances.live().flat_map(|instance| &instance.launchers);
            let steps: Vec<Step> = launchers
                .filter(|launcher| launcher.annotation != annotation)
                .map(|launcher| annotate(&launcher.name, &launcher.uid, annotation.clone(), Reason::Quota))
                .collect();
            draft.resizing.open = count(steps.iter());
            steps
        }
    }
}

/// Replicas that do not have the quota yet are waited for.
pub(crate) fn wait(_: &Context<'_>, draft: &mut Draft) {
    if draft.resizing.open > 0 {
        draft.wait(Wait::Resized { replicas: draft.resizing.open });
    }
}

fn of_pod(in_place: &InPlace, pod: &Pod, api: ResizeApi, resizing: &mut Resizing) -> Vec<Step> {
    let there = &pod.quota;
    let other = in_place.resources.filter(|_| !fits(in_place, there));
    let changed = other.filter(|wanted| there.was_created_for(*wanted));
    if let (Some(wanted), None) = (changed, &resizing.changed) {
        let has = resources_of(in_place, &there.containers);
        resizing.changed = Some(ChangedPod { pod: pod.name.clone(), has, wanted });
    }
    let resize = other.filter(|_| changed.is_none() && api == ResizeApi::Served);
    let settled = resize.is_none() && (in_place.resources.is_none() || there.resize == Resize::Settled);
    // Asked before and still another one: either the watch has not shown it yet, or somebody else changed it.
    let asked = resize.is_some() && pod.asked == resize;
    let steps: Vec<Step> = annotation_step(in_place, pod, resize)
        .into_iter()
        .chain(resize.filter(|_| !asked).map(|quota| resize_step(in_place, pod, quota)))
        .collect();
    if !settled || !steps.is_empty() {
        resizing.open = resizing.open.saturating_add(1);
        // Of a resize that is asked for anew, nothing is known yet.
        let by = obstruction(&there.resize, asked).filter(|_| resize.is_none() || asked);
        if let (None, Some(by)) = (&resizing.held_up, by) {
            resizing.held_up = Some(HeldUp { pod: pod.name.clone(), by });
        }
    }
    steps
}

fn obstruction(resize: &Resize, asked: bool) -> Option<Obstruction> {
    match resize {
        _ if asked => Some(Obstruction::Overruled),
        Resize::Deferred(message) | Resize::Infeasible(message) => Some(Obstruction::Deferred(message.clone())),
        Resize::Failing(message) => Some(Obstruction::Failing(message.clone())),
        Resize::Settled | Resize::InProgress => None,
    }
}

fn annotation_step(in_place: &InPlace, pod: &Pod, resize: Option<Quota>) -> Option<Step> {
    let wanted = in_place.annotation();
    if pod.quota.annotation == wanted {
        return None;
    }
    let held = pod.quota.annotation.as_deref().and_then(|text| NodeQuota::parse(text).ok());
    let burst = |quota: Option<&NodeQuota>| quota.and_then(|quota| quota.cpu_burst_usec).unwrap_or(0);
    let lowers = burst(held.as_ref()) > burst(in_place.node_quota.as_ref()) && resize.is_some();
    let why = if lowers { Reason::LowerBurst } else { Reason::Quota };
    Some(annotate(&pod.name, &pod.uid, wanted, why))
}

fn resize_step(in_place: &InPlace, pod: &Pod, quota: Quota) -> Step {
    let (name, uid) = (pod.name.clone(), pod.uid.clone());
    let action = Action::ResizePod { name, uid, container: in_place.container.clone(), quota };
    Step { action, why: Reason::Quota }
}

/// Tells a pod's agent.
pub(crate) fn annotate(name: &str, uid: &str, annotation: Option<String>, why: Reason) -> Step {
    Step { action: Action::AnnotatePod { name: name.to_owned(), uid: uid.to_owned(), annotation }, why }
}
