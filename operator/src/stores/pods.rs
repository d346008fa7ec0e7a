//! The pods of workloads: what a decision of scaling looks at, and where each of them runs.

use std::collections::HashSet;

use catamaran_autoscale::{
    pods::{ConditionStatus, Container, InitContainer, Phase, Pod, Readiness, Requests},
    quantity::milli,
};
use catamaran_crds::names::{
    NODE_QUOTA_ANNOTATION, POD_DELETION_COST_ANNOTATION, REVISION_LABEL, TEMPLATE_QUOTA_ANNOTATION, VICTIM_COST,
    WORKLOAD_LABEL, workload_of_label,
};
use catamaran_metering::Request;
use catamaran_plan::{
    facts::{Cause, PodQuota, RefusedResize, Resize, Severity},
    goal::quota::Quota,
    quantity::bytes,
};
use catamaran_protocol::stream::identity::PodIdentity;
use dashmap::DashMap;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{self as core, ResourceRequirements},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use super::{
    index::{Index, Uid, WorkloadKey},
    objects::{GUEST_CONTAINER, container_quota, controller, is_launcher, running},
    out_of_memory::{LimitsBefore, OomKilled, oom_kill, together},
    reserved::reserved,
    trouble,
};
use crate::intake::hooks::{Placed, Placement};

/// The label of a launcher pod that names its VirtualMachineInstance (KubeVirt).
const INSTANCE_LABEL: &str = "vm.kubevirt.io/name";

/// A pod and who controls it.
#[derive(Clone, Debug)]
pub struct PodEntry {
    /// The uid of the controlling owner: a ReplicaSet or a VirtualMachineInstance.
    pub owner: Option<String>,
    /// Of a pod that nobody controls, its revision label; empty where it has none.
    pub released: Option<Box<str>>,
    /// Its uid.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it is marked as a victim.
    pub marked: bool,
    /// Since when it is out of its Service, as its guest is about to go.
    pub leaving: Option<Timestamp>,
    /// The quota that it has.
    pub quota: PodQuota,
    /// The VirtualMachineInstance that it runs, if it is a launcher pod.
    pub instance: Option<String>,
    /// The memory limits of its containers together, in bytes; `None` where one has no limit, and for a launcher pod.
    pub memory_limit: Option<u64>,
    /// Where it runs, once that is decided.
    pub node: Option<Box<str>>,
    /// The last time that the kernel killed one of its containers by its OOM killer, as the kubelet tells it.
    pub oom_kill: Option<Box<OomKilled>>,
    /// The memory limits that it had before, if they became others while it was watched.
    pub limits_before: Option<Box<LimitsBefore>>,
    /// What the scheduler reserves for it, of a launcher pod as well: what a bill by request charges.
    pub reserved: Request,
    /// What keeps it from becoming ready.
    pub trouble: Option<Box<Cause>>,
    /// What a decision looks at. Of a launcher pod that is the container of the guest alone.
    pub pod: Pod,
}

impl PodEntry {
    /// Since when it is ready.
    #[must_use]
    pub fn ready_since(&self) -> Option<Timestamp> {
        self.pod.ready.filter(|ready| ready.status == ConditionStatus::True).map(|ready| ready.since)
    }

    /// Whether it is neither terminating nor ended.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.pod.deleted && !matches!(self.pod.phase, Phase::Failed | Phase::Succeeded)
    }

    /// What keeps it from becoming ready, unless every start goes through that.
    fn urgent_trouble(&self) -> Option<&Cause> {
        self.trouble.as_deref().filter(|cause| cause.severity < Severity::Start)
    }

    /// The memory limits of its containers together at a time, in bytes: `None` where one had no limit, and for a
    /// launcher pod.
    #[must_use]
    pub fn memory_limit_at(&self, at: Timestamp) -> Option<u64> {
        let before = self.limits_before.as_ref().filter(|_| self.instance.is_none());
        before.and_then(|limits| limits.together_at(at)).unwrap_or(self.memory_limit)
    }

    /// Takes over what is known of limits from how it was seen before.
    fn remember_limits(&mut self, before: &Self, object: &core::Pod, now: Timestamp) {
        let (known, status) = (before.limits_before.as_deref(), object.status.as_ref());
        self.limits_before = LimitsBefore::between(known, &before.quota, &self.quota, status, now).map(Box::new);
        if let Some(kill) = &mut self.oom_kill {
            kill.keep_limit(before.oom_kill.as_deref(), self.limits_before.as_deref());
        }
    }
}

impl From<&core::Pod> for PodEntry {
    fn from(object: &core::Pod) -> Self {
        let labels = object.labels();
        let launcher = is_launcher(object);
        let mut pod = view(object);
        if launcher {
            pod.containers.retain(|container| container.name == GUEST_CONTAINER);
            pod.init_containers.clear();
        }
        let quota = pod_quota(object);
        let leaving = labels.get(WORKLOAD_LABEL).and_then(|value| workload_of_label(value).1);
        let owner = controller(&object.metadata);
        let revision = || labels.get(REVISION_LABEL).map(String::as_str).unwrap_or_default();
        Self {
            released: owner.is_none().then(|| revision().into()),
            leaving: leaving.and_then(|since| Timestamp::from_second(since).ok()),
            owner,
            uid: object.uid().unwrap_or_default(),
            created: object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            marked: object.annotations().get(POD_DELETION_COST_ANNOTATION).is_some_and(|cost| cost == VICTIM_COST),
            memory_limit: (!launcher)
                .then(|| together(quota.containers.iter().map(|(_, quota)| quota.memory_limit)))
                .flatten(),
            oom_kill: oom_kill(object, &quota.containers).map(Box::new),
            quota,
            limits_before: None,
            reserved: reserved(object),
            trouble: trouble::of_pod(object).map(Box::new),
            instance: launcher.then(|| labels.get(INSTANCE_LABEL).cloned()).flatten(),
            node: object.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(Into::into),
            pod,
        }
    }
}

fn view(object: &core::Pod) -> Pod {
    let empty = (core::PodSpec::default(), core::PodStatus::default());
    let (spec, status) = (object.spec.as_ref().unwrap_or(&empty.0), object.status.as_ref().unwrap_or(&empty.1));
    let container = |container: &core::Container| Container {
        name: container.name.clone(),
        requests: container.resources.as_ref().map(requests).unwrap_or_default(),
    };
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    Pod {
        name: object.name_any(),
        phase: match status.phase.as_deref() {
            Some("Pending") => Phase::Pending,
            Some("Running") => Phase::Running,
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            Some(_) | None => Phase::Unknown,
        },
        deleted: object.metadata.deletion_timestamp.is_some(),
        started: status.start_time.as_ref().map(|time| time.0),
        ready: ready.map(|ready| Readiness {
            status: match ready.status.as_str() {
                "True" => ConditionStatus::True,
                "False" => ConditionStatus::False,
                _ => ConditionStatus::Unknown,
            },
            since: ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        }),
        containers: spec.containers.iter().map(container).collect(),
        init_containers: spec
            .init_containers
            .iter()
            .flatten()
            .map(|init| InitContainer {
                restart_always: init.restart_policy.as_deref() == Some("Always"),
                container: container(init),
            })
            .collect(),
        requests: spec.resources.as_ref().map(requests).unwrap_or_default(),
        overhead: of(spec.overhead.as_ref()),
    }
}

/// The quota of a pod, and how far its kubelet is with it.
fn pod_quota(object: &core::Pod) -> PodQuota {
    let containers = object.spec.iter().flat_map(|spec| &spec.containers);
    PodQuota {
        annotation: object.annotations().get(NODE_QUOTA_ANNOTATION).cloned(),
        // Of a pod that is no matter.
        containers: containers.map(container_quota).collect(),
        // An API server before 1.34 may tell no generation.
        template: object
            .annotations()
            .get(TEMPLATE_QUOTA_ANNOTATION)
            .filter(|_| object.metadata.generation == Some(1))
            .cloned(),
        resize: resize(object),
    }
}

/// From the conditions that the kubelet sets (KEP-1287). A spec that it has not looked at has none yet: that is seen by
/// the generation that it observed, or, where it tells none, by the limits that it reports.
fn resize(object: &core::Pod) -> Resize {
    let Some(status) = &object.status else { return Resize::Settled };
    let condition = |type_: &str| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
        found.filter(|condition| condition.status == "True")
    };
    let message = |condition: &core::PodCondition| condition.message.clone().unwrap_or_default();
    if let Some(pending) = condition("PodResizePending") {
        return match pending.reason.as_deref() {
            Some("Infeasible") => Resize::Infeasible(message(pending)),
            Some(_) | None => Resize::Deferred(message(pending)),
        };
    }
    if let Some(progress) = condition("PodResizeInProgress") {
        return match progress.reason.as_deref() {
            Some("Error") => Resize::Failing(message(progress)),
            Some(_) | None => Resize::InProgress,
        };
    }
    let seen = match (status.observed_generation, object.metadata.generation) {
        (Some(observed), Some(generation)) => observed >= generation,
        (Some(_) | None, _) => reports_its_limits(object, status),
    };
    if seen { Resize::Settled } else { Resize::InProgress }
}

/// Whether no container that runs is reported with other limits than its spec has.
fn reports_its_limits(object: &core::Pod, status: &core::PodStatus) -> bool {
    let limits = |quota: Quota| (quota.cpu_limit, quota.memory_limit);
    object.spec.iter().flat_map(|spec| &spec.containers).map(container_quota).all(|(name, wanted)| {
        let reported = running(status, &name).and_then(|status| status.resources.as_ref());
        reported.is_none_or(|reported| limits(Quota::of_container(reported)) == limits(wanted))
    })
}

fn requests(resources: &ResourceRequirements) -> Requests {
    of(resources.requests.as_ref())
}

fn of(
    quantities: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
) -> Requests {
    let amount = |name: &str| quantities.and_then(|all| all.get(name));
    Requests {
        cpu: amount("cpu").and_then(|quantity| milli(quantity).ok()),
        memory: amount("memory").and_then(|quantity| bytes(quantity).ok()).and_then(|bytes| i64::try_from(bytes).ok()),
    }
}

/// The pods of all workloads.
#[derive(Default)]
pub struct Pods {
    /// By workload.
    pub index: Index<PodEntry>,
    /// The uid of each, by `namespace/name`.
    uids: DashMap<Box<str>, Uid>,
    /// What was last asked of pods' resize, by uid.
    asked: DashMap<Box<str>, Quota>,
    /// The resizes that the API server refused for good, by uid.
    refused: DashMap<Box<str>, RefusedResize>,
    /// Since when a victim's mark is asked for that is not seen yet, by uid.
    marks: DashMap<Box<str>, Timestamp>,
}

impl Pods {
    /// Remembers what a pod was resized to.
    pub fn was_asked(&self, uid: &str, quota: Quota) {
        self.asked.insert(uid.into(), quota);
    }

    /// What a pod was last asked to become.
    #[must_use]
    pub fn asked(&self, uid: &str) -> Option<Quota> {
        self.asked.get(uid).map(|quota| *quota)
    }

    /// Remembers that a pod cannot be resized to this where it is.
    pub fn was_refused(&self, uid: &str, refused: RefusedResize) {
        self.refused.insert(uid.into(), refused);
    }

    /// What the API server refused to make of a pod.
    #[must_use]
    pub fn refused(&self, uid: &str) -> Option<RefusedResize> {
        self.refused.get(uid).map(|refused| refused.clone())
    }

    /// Remembers that a pod is to be marked, or is not.
    pub fn asked_mark(&self, uid: &str, marked: bool, now: Timestamp) {
        if marked {
            self.marks.entry(uid.into()).or_insert(now);
        } else {
            self.marks.remove(uid);
        }
    }

    /// Since when a pod's mark is asked for and not seen.
    #[must_use]
    pub fn mark_asked(&self, uid: &str) -> Option<Timestamp> {
        self.marks.get(uid).map(|since| *since)
    }

    /// Enters a pod. Returns its workload when that has to plan: a mark came or went, it was taken out of the Service
    /// or put back, it came to be somebody else's, the pod's quota is another one, it began to run and is to be held,
    /// or it was killed by the OOM killer. With it the workload that the pod was taken from, if it was.
    pub(super) fn enter(&self, object: &core::Pod) -> Vec<WorkloadKey> {
        self.enter_at(object, Timestamp::now())
    }

    pub(super) fn enter_at(&self, object: &core::Pod, now: Timestamp) -> Vec<WorkloadKey> {
        let mut entry = PodEntry::from(object);
        let before = self.index.find(&object.metadata);
        if entry.marked {
            self.marks.remove(entry.uid.as_str());
        }
        let mut concerns = false;
        match before {
            None => concerns = true,
            Some(before) => {
                entry.remember_limits(&before, object, now);
                let began = entry.quota.annotation.is_some() && entry.pod.phase != before.pod.phase;
                concerns |= entry.owner != before.owner || entry.released != before.released;
                concerns |= entry.marked != before.marked || entry.leaving != before.leaving;
                concerns |= entry.urgent_trouble() != before.urgent_trouble();
                concerns |= began || entry.quota != before.quota || entry.oom_kill != before.oom_kill;
            }
        }
        let news = self.index.apply(&object.metadata, entry);
        if let Some(uid) = self.index.uid(object.metadata.uid.as_deref().unwrap_or_default()) {
            self.uids.insert(key(&object.metadata), uid);
        }
        if concerns || news.len() > 1 { news } else { Vec::new() }
    }

    /// Drops a pod.
    pub(super) fn remove(&self, object: &core::Pod) {
        self.uids.remove(&key(&object.metadata));
        let uid = object.uid().unwrap_or_default();
        self.asked.remove(uid.as_str());
        self.refused.remove(uid.as_str());
        self.marks.remove(uid.as_str());
        self.index.remove(&object.metadata);
    }

    /// A listing is complete, with these pods in it.
    pub(super) fn listed(&self, names: &HashSet<Box<str>>) {
        self.uids.retain(|name, _| names.contains(name));
        let here: HashSet<Uid> = self.uids.iter().map(|uid| uid.value().clone()).collect();
        self.asked.retain(|uid, _| here.contains(&**uid));
        self.refused.retain(|uid, _| here.contains(&**uid));
        self.marks.retain(|uid, _| here.contains(&**uid));
        self.index.end_listing();
    }
}

impl Placement for Pods {
    fn check(&self, pod: &PodIdentity, node: &str) -> Placed {
        let uid = self.uids.get(place(pod.namespace(), pod.name()).as_ref()).map(|uid| uid.clone());
        match uid.and_then(|uid| self.index.by_uid(&uid)) {
            None => Placed::Unknown,
            Some(entry) if entry.node.as_deref() != Some(node) => Placed::OtherNode,
            Some(entry) if entry.uid != pod.uid() => Placed::OtherUid,
            Some(_) => Placed::Here,
        }
    }
}

fn place(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}

pub(super) fn key(meta: &ObjectMeta) -> Box<str> {
    place(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value, limit: &str) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u", "generation": 3, "resourceVersion": "5",
                "labels": {"catamaran.dev/workload": "web"},
            },
            "spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": limit}}}]},
            "status": status,
        }))
        .expect("a pod")
    }

    fn condition(type_: &str, reason: Option<&str>) -> Value {
        json!({"conditions": [{"type": type_, "status": "True", "reason": reason, "message": "why"}]})
    }

    fn reported(limit: &str, state: &str) -> Value {
        json!({"containerStatuses": [{
            "name": "main", "image": "a", "imageID": "", "ready": true, "restartCount": 0, "state": {state: {}},
            "resources": {"limits": {"cpu": limit}},
        }]})
    }

    #[test]
    fn how_far_a_resize_is_as_the_kubelet_says() {
        let why = || "why".to_owned();
        for (status, expected) in [
            (json!({}), Resize::Settled),
            (condition("PodResizePending", Some("Infeasible")), Resize::Infeasible(why())),
            (condition("PodResizePending", Some("Deferred")), Resize::Deferred(why())),
            (condition("PodResizeInProgress", None), Resize::InProgress),
            (condition("PodResizeInProgress", Some("Error")), Resize::Failing(why())),
            (reported("1", "running"), Resize::Settled),
            // The same quantity, written otherwise.
            (reported("1000m", "running"), Resize::Settled),
            (reported("500m", "running"), Resize::InProgress),
            // It starts with what the spec says.
            (reported("500m", "waiting"), Resize::Settled),
            (json!({"observedGeneration": 2}), Resize::InProgress),
            (json!({"observedGeneration": 3}), Resize::Settled),
        ] {
            assert_eq!(resize(&pod(status.clone(), "1")), expected, "{status}");
        }
    }

    #[test]
    fn the_quota_of_the_template_counts_until_the_spec_is_changed() {
        for (generation, expected) in [(Some(1), Some("cpu limit 1")), (Some(2), None), (None, None)] {
            let mut pod = pod(json!({}), "1");
            pod.metadata.generation = generation;
            pod.metadata.annotations = Some([(TEMPLATE_QUOTA_ANNOTATION.to_owned(), "cpu limit 1".to_owned())].into());
            assert_eq!(pod_quota(&pod).template.as_deref(), expected, "{generation:?}");
        }
    }

    #[test]
    fn a_pod_wakes_its_workload_when_its_quota_is_another_one() {
        let pods = Pods::default();
        let enter = |version: &str, limit: &str, status: Value| {
            let mut pod = pod(status, limit);
            pod.metadata.resource_version = Some(version.to_owned());
            !pods.enter(&pod).is_empty()
        };
        assert!(enter("5", "1", json!({})), "a new pod may be of an older template");
        assert!(!enter("6", "1", json!({"phase": "Running"})), "nothing about the quota");
        assert!(enter("7", "2", json!({"phase": "Running"})), "resized");
        assert!(enter("8", "2", condition("PodResizeInProgress", None)), "under way");
        assert!(enter("9", "2", json!({})), "done");
    }

    #[test]
    fn a_mark_is_awaited_from_when_it_was_asked_for_and_wakes_when_it_comes_or_goes() {
        let (pods, second) = (Pods::default(), |second| Timestamp::from_second(second).expect("a time"));
        let enter = |version: &str, cost: Option<&str>| {
            let mut pod = pod(json!({}), "1");
            pod.metadata.resource_version = Some(version.to_owned());
            let note = cost.map(|cost| [(POD_DELETION_COST_ANNOTATION.to_owned(), cost.to_owned())].into());
            pod.metadata.annotations = note;
            !pods.enter(&pod).is_empty()
        };
        enter("5", None);
        pods.asked_mark("u", true, second(10));
        pods.asked_mark("u", true, second(20));
        assert_eq!(pods.mark_asked("u"), Some(second(10)), "asked for again, as it does not show");
        assert!(enter("6", Some(VICTIM_COST)), "it came");
        assert_eq!(pods.mark_asked("u"), None);
        assert!(!enter("7", Some(VICTIM_COST)));
        assert!(enter("8", None), "somebody took it off");
        pods.asked_mark("u", true, second(30));
        pods.asked_mark("u", false, second(31));
        assert_eq!(pods.mark_asked("u"), None, "called off");
        pods.asked_mark("u", true, second(32));
        pods.remove(&pod(json!({}), "1"));
        assert_eq!(pods.mark_asked("u"), None);
    }

    #[test]
    fn what_was_asked_of_a_pod_is_forgotten_with_it() {
        let (pods, quota) = (Pods::default(), Quota { cpu_limit: Some(1), ..Quota::default() });
        pods.was_asked("u", quota);
        assert_eq!(pods.asked("u"), Some(quota));
        pods.remove(&pod(json!({}), "1"));
        assert_eq!(pods.asked("u"), None);
    }
}
