//! What of a template can change without a restart, and how replicas that run get there.
//!
//! A replica set of containers is kept when nothing but its quota changes: its template is changed for pods to come, and each pod
//! is resized (KEP-1287) and told to the node agent by its annotation. The kernel refuses a CPU limit below cpu.max.burst, so
//! the agent is told before the resize is asked for: it lowers the burst at once, and raises it as soon as cpu.max lets it.
//! Each step is found again from what is observed.

use std::borrow::Cow;

use catamaran_crds::names::NODE_QUOTA_ANNOTATION;
use catamaran_protocol::node_quota::NodeQuota;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use crate::{
    action::{Action, SetQuota},
    desired::Desired,
    observed::{Members, Observed, ObservedSet, Pod, PodQuota, Resize, ResizeApi, count},
    planner::Step,
    quota::Quota,
    render,
    report::Reason,
    revision::Template,
};

/// What of a template can change in place, and the rest of it as a hash.
#[derive(Clone, Debug, PartialEq)]
pub struct InPlace {
    /// A hash over what cannot: a replica set with the same one can become like this template.
    pub hash: String,
    /// The container of the quota.
    pub container: String,
    /// CPU and memory of that container as a pod has them, where those can change in place.
    pub resources: Option<Quota>,
    /// What the node agent holds.
    pub node_quota: Option<NodeQuota>,
}

impl InPlace {
    /// Of pods. CPU and memory change in place unless that restarts the container, or Kubernetes refuses it: in pods with
    /// resources of their own or for Windows.
    pub(crate) fn of_pod(
        template: &PodTemplateSpec,
        container: &str,
        quota: Quota,
        node_quota: Option<NodeQuota>,
    ) -> Self {
        let mut rest = template.clone();
        let mut class = "";
        let mut resources = None;
        let spec = rest.spec.get_or_insert_default();
        if !quota.is_empty() && spec.resources.is_none() && spec.os.as_ref().is_none_or(|os| os.name == "linux") {
            // A resize may not change it, so another one is another revision.
            class = quality_of_service(spec);
            let target = spec.containers.iter_mut().find(|target| target.name == container);
            if let Some(target) = target.filter(|target| !restarts(target)) {
                resources = Some(quota.with_defaults());
                if let Some(own) = &mut target.resources {
                    (own.requests, own.limits) = (None, None);
                }
            }
        }
        let hash = hash(Template::Container(Box::new(rest)), class);
        Self { hash, container: container.to_owned(), resources, node_quota }
    }

    /// Of virtual machines: what the node agent holds in the launcher pod.
    pub(crate) fn of_machine(template: &Template, node_quota: Option<NodeQuota>) -> Self {
        let hash = hash(template.clone(), "");
        Self { hash, container: render::GUEST_CONTAINER.to_owned(), resources: None, node_quota }
    }

    /// The text of the annotation.
    #[must_use]
    pub fn annotation(&self) -> Option<String> {
        self.node_quota.as_ref().map(NodeQuota::to_annotation)
    }

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

fn hash(mut rest: Template, class: &str) -> String {
    let metadata = rest.metadata_mut();
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(NODE_QUOTA_ANNOTATION);
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
    rest.hash(class)
}

fn restarts(container: &Container) -> bool {
    container.resize_policy.iter().flatten().any(|policy| policy.restart_policy == "RestartContainer")
}

/// The pod's class (`GetPodQOS`, `pkg/apis/core/v1/helper/qos`), of which a resize may make no other.
fn quality_of_service(spec: &PodSpec) -> &'static str {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    // Zero counts as absent.
    let amount = |value: Option<u64>| value.filter(|value| *value > 0);
    let quotas: Vec<Quota> = all
        .map(|container| container.resources.as_ref().map(Quota::of_container).unwrap_or_default().with_defaults())
        .collect();
    let guaranteed = |quota: &Quota| {
        amount(quota.cpu_limit).is_some()
            && amount(quota.memory_limit).is_some()
            && quota.cpu_request == quota.cpu_limit
            && quota.memory_request == quota.memory_limit
    };
    let nothing = |quota: &Quota| {
        [quota.cpu_request, quota.cpu_limit, quota.memory_request, quota.memory_limit]
            .into_iter()
            .all(|value| amount(value).is_none())
    };
    if quotas.iter().all(nothing) {
        "BestEffort"
    } else if quotas.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// A pod that its node can never give the wanted quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infeasible {
    /// Its name.
    pub pod: String,
    /// What the kubelet says.
    pub message: String,
}

/// What is wanted, by the name of the revision that it is brought about with.
pub(crate) struct Chosen<'a> {
    pub(crate) desired: Cow<'a, Desired>,
    /// Why the newest set that is alike is not kept.
    pub(crate) infeasible: Option<Infeasible>,
}

/// Names the revision: the newest replica set that can become like the template in place, else one to be made.
pub(crate) fn choose<'a>(desired: &'a Desired, observed: &Observed) -> Chosen<'a> {
    let mut alike: Vec<&ObservedSet> =
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

fn named<'a>(desired: &'a Desired, revision: &str) -> Cow<'a, Desired> {
    if desired.revision == revision {
        return Cow::Borrowed(desired);
    }
    let template = render::with_revision(desired.template.clone(), revision);
    Cow::Owned(Desired { revision: revision.to_owned(), template, ..desired.clone() })
}

/// Whether a set differs in the quota at most. One made before hashes were noted is known by its name.
fn is_alike(desired: &Desired, set: &ObservedSet) -> bool {
    set.hull() == desired.hull()
        && match &set.template_hash {
            Some(hash) => *hash == desired.in_place.hash,
            None => set.revision == desired.revision,
        }
}

enum Obstacle {
    /// Kubernetes would refuse the change, or the set failed with another quota and this one is a new try.
    NotInPlace,
    Infeasible(Infeasible),
}

fn obstacle(desired: &Desired, observed: &Observed, set: &ObservedSet) -> Option<Obstacle> {
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

/// What is left to do until all replicas of a set have their quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resizing {
    /// Replicas that do not have it yet.
    pub open: u32,
    /// What holds one of them up.
    pub held_up: Option<HeldUp>,
}

/// A pod whose resize does not come further by itself, or not soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// Its name.
    pub pod: String,
    /// How it is held up.
    pub by: Obstruction,
}

/// What keeps a pod from its quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstruction {
    /// Its node has no room now; the kubelet tries again by itself.
    Deferred(String),
    /// The kubelet fails to; it tries again by itself.
    Failing(String),
    /// It was asked for the quota and has another one again: somebody else changes it, and it is not fought over.
    Overruled,
}

/// The steps for the replicas of the wanted set.
pub(crate) fn replicas(in_place: &InPlace, set: &ObservedSet, api: ResizeApi) -> (Vec<Step>, Resizing) {
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
