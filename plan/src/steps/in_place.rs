//! What of a template can change without a restart, and how replicas that run get there.
//!
//! A replica set of containers is kept when nothing but its quota changes: its template is changed for pods to come, and each pod
//! is resized (KEP-1287) and told to the node agent by its annotation. The kernel refuses a CPU limit below cpu.max.burst, so
//! the agent is told before the resize is asked for: it lowers the burst at once, and raises it as soon as cpu.max lets it.
//! Each step is found again from what is observed.

use std::borrow::Cow;

use catamaran_protocol::node_quota::NodeQuota;

use crate::{
    facts::{Facts, Members, Pod, PodQuota, Resize, ResizeApi, SetFacts, count},
    goal::{Goal, InPlace, quota::Quota, render},
    plan::{Action, HeldUp, Infeasible, Obstruction, Reason, Resizing, SetQuota, Step},
};

impl InPlace {
    /// Whether CPU and memory are as wanted.
    fn fits(&self, there: &PodQuota) -> bool {
        self.resources.is_none_or(|wanted| wanted.is_met_by(self.resources_of(there)))
    }

    fn resources_of(&self, there: &PodQuota) -> Quota {
        there.containers.get(&self.container).unwrap_or_default().with_defaults()
    }

    /// What has to change in a set's template, if anything.
    pub(crate) fn change_of(&self, there: &PodQuota) -> Option<SetQuota> {
        let annotation = self.annotation();
        let change = SetQuota {
            container: self.container.clone(),
            // Nobody else writes a template, so it is to be the same and not only enough.
            resources: self.resources.filter(|wanted| *wanted != self.resources_of(there)),
            annotation: (annotation != there.annotation).then_some(annotation),
            lone: there.lone,
        };
        (change.resources.is_some() || change.annotation.is_some()).then_some(change)
    }
}

/// What is wanted, by the name of the revision that it is brought about with.
pub(crate) struct Chosen<'a> {
    pub(crate) desired: Cow<'a, Goal>,
    /// Why the newest set that is alike is not kept.
    pub(crate) infeasible: Option<Infeasible>,
}

/// Names the revision: the newest replica set that can become like the template in place, else one to be made.
pub(crate) fn choose<'a>(desired: &'a Goal, observed: &Facts) -> Chosen<'a> {
    let mut alike: Vec<&SetFacts> =
        observed.sets.iter().filter(|set| !set.deleting && is_alike(desired, set)).collect();
    alike.sort_by(|a, b| b.number.cmp(&a.number).then_with(|| a.name.cmp(&b.name)));
    let mut infeasible = None;
    for set in &alike {
        match obstacle(desired, observed, set) {
            None => return Chosen { desired: named(desired, &set.revision), infeasible },
            Some(Obstacle::Infeasible(pod)) => {
                infeasible.get_or_insert(pod);
            }
            Some(Obstacle::NotInPlace) => {}
        }
    }
    let taken = |name: &str| alike.iter().any(|set| set.revision == name);
    if !taken(&desired.revision) {
        return Chosen { desired: Cow::Borrowed(desired), infeasible };
    }
    // More names than sets: one is free.
    let names = (1..=alike.len()).map(|number| desired.template.revision_beside(number));
    let name = names.into_iter().find(|name| !taken(name)).unwrap_or_else(|| desired.revision.clone());
    Chosen { desired: named(desired, &name), infeasible }
}

fn named<'a>(desired: &'a Goal, revision: &str) -> Cow<'a, Goal> {
    if desired.revision == revision {
        return Cow::Borrowed(desired);
    }
    let template = render::with_revision(desired.template.clone(), revision);
    Cow::Owned(Goal { revision: revision.to_owned(), template, ..desired.clone() })
}

/// Whether a set differs in the quota at most. One made before hashes were noted is known by its name.
fn is_alike(desired: &Goal, set: &SetFacts) -> bool {
    set.hull() == desired.hull()
        && match &set.template_hash {
            Some(hash) => *hash == desired.in_place.hash,
            None => set.revision == desired.revision,
        }
}

enum Obstacle {
    /// Kubernetes would refuse the change, the set failed with another quota and this one is a new try, or somebody else wrote it.
    NotInPlace,
    Infeasible(Infeasible),
}

fn obstacle(desired: &Goal, observed: &Facts, set: &SetFacts) -> Option<Obstacle> {
    if set.changed_by.is_some() {
        return Some(Obstacle::NotInPlace);
    }
    let in_place = &desired.in_place;
    let changes = in_place.change_of(&set.quota);
    if changes.is_some() && observed.status.failed_revision.as_ref() == Some(&set.revision) {
        return Some(Obstacle::NotInPlace);
    }
    let wanted = in_place.resources?;
    let served = observed.resize == ResizeApi::Served && wanted.keeps_all_of(in_place.resources_of(&set.quota));
    if changes.is_some_and(|change| change.resources.is_some()) && !served {
        return Some(Obstacle::NotInPlace);
    }
    let Members::Pods(pods) = &set.members else { return None };
    let refused = pods.pods.iter().find_map(|pod| {
        let refused = pod.quota.refused.as_ref().filter(|refused| refused.quota == wanted)?;
        Some(Infeasible { pod: pod.name.clone(), message: refused.message.clone() })
    });
    if let Some(refused) = refused {
        return Some(Obstacle::Infeasible(refused));
    }
    pods.pods.iter().find_map(|pod| match &pod.quota.resize {
        Resize::Infeasible(message) if in_place.fits(&pod.quota) => {
            Some(Obstacle::Infeasible(Infeasible { pod: pod.name.clone(), message: message.clone() }))
        }
        Resize::Infeasible(_) | Resize::Settled | Resize::InProgress | Resize::Failing(_) | Resize::Deferred(_) => None,
    })
}

/// The steps for the replicas of the wanted set.
pub(crate) fn replicas(in_place: &InPlace, set: &SetFacts, api: ResizeApi) -> (Vec<Step>, Resizing) {
    let (mut steps, mut resizing) = (Vec::new(), Resizing::default());
    match &set.members {
        Members::Pods(pods) => {
            for pod in &pods.pods {
                steps.extend(of_pod(in_place, pod, api, &mut resizing));
            }
        }
        Members::Instances(instances) => {
            let annotation = in_place.annotation();
            for launcher in instances.live().flat_map(|instance| &instance.launchers) {
                if launcher.annotation != annotation {
                    steps.push(annotate(&launcher.name, &launcher.uid, annotation.clone(), Reason::Quota));
                }
            }
            resizing.open = count(steps.iter());
        }
    }
    (steps, resizing)
}

fn of_pod(in_place: &InPlace, pod: &Pod, api: ResizeApi, resizing: &mut Resizing) -> Vec<Step> {
    let there = &pod.quota;
    let resize = in_place.resources.filter(|_| !in_place.fits(there) && api == ResizeApi::Served);
    let settled = resize.is_none() && (in_place.resources.is_none() || there.resize == Resize::Settled);
    let wanted = in_place.annotation();
    let mut steps = Vec::new();
    if there.annotation != wanted {
        let held = there.annotation.as_deref().and_then(|text| NodeQuota::parse(text).ok());
        let burst = |quota: Option<&NodeQuota>| quota.and_then(|quota| quota.cpu_burst_usec).unwrap_or(0);
        let why = if burst(held.as_ref()) > burst(in_place.node_quota.as_ref()) && resize.is_some() {
            Reason::LowerBurst
        } else {
            Reason::Quota
        };
        steps.push(annotate(&pod.name, &pod.uid, wanted, why));
    }
    // Asked before and still another one: either the watch has not shown it yet, or somebody else changed it.
    let asked = resize.is_some() && there.asked == resize;
    if let Some(quota) = resize.filter(|_| !asked) {
        steps.push(Step {
            action: Action::ResizePod {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                container: in_place.container.clone(),
                quota,
            },
            why: Reason::Quota,
        });
    }
    if !settled || !steps.is_empty() {
        resizing.open = resizing.open.saturating_add(1);
        let by = match &there.resize {
            _ if asked => Some(Obstruction::Overruled),
            Resize::Deferred(message) | Resize::Infeasible(message) => Some(Obstruction::Deferred(message.clone())),
            Resize::Failing(message) => Some(Obstruction::Failing(message.clone())),
            Resize::Settled | Resize::InProgress => None,
        };
        // Of a resize that is asked for anew, nothing is known yet.
        let by = by.filter(|_| resize.is_none() || asked);
        if let (None, Some(by)) = (&resizing.held_up, by) {
            resizing.held_up = Some(HeldUp { pod: pod.name.clone(), by });
        }
    }
    steps
}

/// Tells a pod's agent.
pub(crate) fn annotate(name: &str, uid: &str, annotation: Option<String>, why: Reason) -> Step {
    Step { action: Action::AnnotatePod { name: name.to_owned(), uid: uid.to_owned(), annotation }, why }
}
