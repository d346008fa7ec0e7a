//! From API objects to what plans look at.

use std::collections::BTreeMap;

use catamaran_crds::{
    ServicePort,
    kubevirt::{
        KubeVirtCondition, VirtualMachineInstance, VirtualMachineInstancePhase, VirtualMachineInstanceReplicaSet,
    },
    names::{
        CRASH_LOOP_ANNOTATION, DESIRED_REPLICAS_ANNOTATION, FIELD_MANAGER, FROZEN_ANNOTATION, NODE_QUOTA_ANNOTATION,
        REVISION_LABEL, REVISION_NUMBER_ANNOTATION, TEMPLATE_HASH_ANNOTATION, WORKLOAD_LABEL,
    },
};
use catamaran_plan::{
    facts::{
        Cause, FrozenNote, Instance, InstanceSet, Members, Pause, PodSet, Selects, ServiceFacts, SetFacts, Stage,
        TemplateQuota,
    },
    goal::killing_probe,
    goal::revision::Template,
    objects::service_selector,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, PodStatus, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use super::{
    objects::{GUEST_CONTAINER, container_quota, controller, is_launcher},
    trouble,
};

/// A replica set of either hull, and who controls it.
#[derive(Clone, Debug)]
pub struct SetEntry {
    /// The uid of the controlling owner.
    pub owner: Option<String>,
    /// What is known of it; instances and crashes are added when a workload is observed.
    pub set: SetFacts,
}

/// A VirtualMachineInstance and who controls it.
#[derive(Clone, Debug)]
pub struct InstanceEntry {
    /// The uid of the controlling owner, its replica set.
    pub owner: Option<String>,
    /// What is known of it.
    pub instance: Instance,
    /// What keeps it from becoming ready.
    pub trouble: Option<Cause>,
}

/// A Service and who controls it.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    /// The uid of the controlling owner.
    pub owner: Option<String>,
    /// Its name.
    pub name: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// What it selects.
    pub selector: BTreeMap<String, String>,
    /// What is known of it, if it is ours.
    pub service: ServiceFacts,
}

fn unsigned(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

/// What runs the kinds of KubeVirt; they fill in defaults.
const OF_KUBEVIRT: [&str; 3] = ["virt-controller", "virt-api", "virt-operator"];

/// Who else wrote the template or the selector of a set, by the API server's own account of it.
fn changed_by(meta: &ObjectMeta) -> Option<String> {
    let others = meta.managed_fields.iter().flatten().filter(|entry| {
        let manager = entry.manager.as_deref().unwrap_or_default();
        entry.subresource.as_deref().unwrap_or_default().is_empty()
            && manager != FIELD_MANAGER
            && !OF_KUBEVIRT.contains(&manager)
    });
    let decides = |fields: &serde_json::Value| {
        fields.get("f:spec").is_some_and(|spec| spec.get("f:template").is_some() || spec.get("f:selector").is_some())
    };
    let mut deciding = others.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| decides(&fields.0)));
    deciding.next().map(|entry| entry.manager.clone().unwrap_or_else(|| "somebody".to_owned()))
}

fn set_entry(
    meta: &ObjectMeta,
    replicas: Option<i32>,
    quota: TemplateQuota,
    probed: bool,
    failure: Option<String>,
    members: Members,
) -> SetEntry {
    let annotation = |name: &str| meta.annotations.as_ref().and_then(|annotations| annotations.get(name));
    let label = meta.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL));
    SetEntry {
        owner: controller(meta),
        set: SetFacts {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            revision: label.cloned().unwrap_or_default(),
            number: annotation(REVISION_NUMBER_ANNOTATION).and_then(|number| number.parse().ok()).unwrap_or(0),
            // Absent means 1 for both kinds.
            replicas: unsigned(Some(replicas.unwrap_or(1))),
            desired_replicas: annotation(DESIRED_REPLICAS_ANNOTATION).and_then(|count| count.parse().ok()),
            template_hash: annotation(TEMPLATE_HASH_ANNOTATION).cloned(),
            quota,
            probed,
            deleting: meta.deletion_timestamp.is_some(),
            failure,
            changed_by: changed_by(meta),
            members,
        },
    }
}

fn template_quota(metadata: Option<&ObjectMeta>) -> TemplateQuota {
    let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
    let annotation = annotations.and_then(|annotations| annotations.get(NODE_QUOTA_ANNOTATION)).cloned();
    let lone = annotation.is_some() && annotations.is_some_and(|annotations| annotations.len() == 1);
    TemplateQuota { annotation, lone, ..TemplateQuota::default() }
}

impl From<&ReplicaSet> for SetEntry {
    fn from(set: &ReplicaSet) -> Self {
        let (spec, status) = (set.spec.clone().unwrap_or_default(), set.status.clone().unwrap_or_default());
        let pods = PodSet {
            live: unsigned(Some(status.replicas)),
            ready: unsigned(status.ready_replicas),
            available: unsigned(status.available_replicas),
            min_ready_seconds: unsigned(spec.min_ready_seconds),
            current: status.observed_generation >= set.metadata.generation,
            marks_asked: None,
            pods: Vec::new(),
        };
        let template = spec.template.unwrap_or_default();
        let containers = template.spec.iter().flat_map(|spec| &spec.containers).map(container_quota).collect();
        let quota = TemplateQuota { containers, ..template_quota(template.metadata.as_ref()) };
        let probed = killing_probe(&Template::Container(Box::new(template))).is_some();
        let failure = status
            .conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        let failure = failure.map(|condition| condition.message.unwrap_or_default());
        set_entry(&set.metadata, spec.replicas, quota, probed, failure, Members::Pods(pods))
    }
}

impl From<&VirtualMachineInstanceReplicaSet> for SetEntry {
    fn from(set: &VirtualMachineInstanceReplicaSet) -> Self {
        let status = set.status.clone().unwrap_or_default();
        let note = set.annotations().get(CRASH_LOOP_ANNOTATION);
        let members = InstanceSet {
            paused: set.spec.paused.unwrap_or(false),
            pause_seen: is_true(status.conditions.as_deref(), "ReplicaPaused"),
            counted: unsigned(status.replicas),
            instances: Vec::new(),
            frozen: set.annotations().get(FROZEN_ANNOTATION).map(|note| FrozenNote::parse(note)),
            crash_loop: note.and_then(|note| serde_json::from_str(note).ok()),
            crashes: Vec::new(),
            unexplained_until: None,
        };
        let quota = template_quota(set.spec.template.as_ref().and_then(|template| template.metadata.as_ref()));
        let template = set.spec.template.clone().map(|template| Template::VirtualMachine(Box::new(template)));
        let probed = template.is_some_and(|template| killing_probe(&template).is_some());
        let failure = condition(status.conditions.as_deref(), "ReplicaFailure");
        let failure = failure.filter(|condition| condition.status == "True");
        let failure = failure.map(|condition| condition.message.clone().unwrap_or_default());
        set_entry(&set.metadata, set.spec.replicas, quota, probed, failure, Members::Instances(Box::new(members)))
    }
}

impl From<&VirtualMachineInstance> for InstanceEntry {
    fn from(object: &VirtualMachineInstance) -> Self {
        let conditions = object.status.as_ref().and_then(|status| status.conditions.as_deref());
        Self {
            owner: controller(&object.metadata),
            trouble: trouble::of_instance(conditions),
            instance: Instance {
                name: object.name_any(),
                uid: object.uid().unwrap_or_default(),
                created: created(object),
                stage: stage(object),
                pause: pause(object),
                usage: None,
                launchers: Vec::new(),
            },
        }
    }
}

impl From<&Service> for ServiceEntry {
    fn from(object: &Service) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let workload = object.labels().get(WORKLOAD_LABEL).cloned().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter().map(|port| ServicePort {
            name: port.name,
            port: port.port,
            target_port: port.target_port,
            protocol: port.protocol,
            app_protocol: port.app_protocol,
        });
        Self {
            owner: controller(&object.metadata),
            name: object.name_any(),
            resource_version: object.resource_version().unwrap_or_default(),
            service: ServiceFacts::Owned {
                uid: object.uid().unwrap_or_default(),
                ports: ports.collect(),
                selects: selects(&workload, &selector),
            },
            selector,
        }
    }
}

fn selects(workload: &str, selector: &BTreeMap<String, String>) -> Option<Selects> {
    [Selects::Replicas, Selects::Nothing].into_iter().find(|selects| service_selector(workload, *selects) == *selector)
}

pub(super) fn created(object: &VirtualMachineInstance) -> Timestamp {
    object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn condition<'a>(conditions: Option<&'a [KubeVirtCondition]>, type_: &str) -> Option<&'a KubeVirtCondition> {
    conditions.unwrap_or_default().iter().find(|condition| condition.type_ == type_)
}

fn is_true(conditions: Option<&[KubeVirtCondition]>, type_: &str) -> bool {
    condition(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// How far an instance is; what virt-controller no longer counts is leaving (`filterActiveVMIs` of its replica set
/// controller).
fn stage(object: &VirtualMachineInstance) -> Stage {
    let status = object.status.as_ref();
    let phase = status.and_then(|status| status.phase).unwrap_or_default();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let ready = condition(conditions, "Ready");
    let pod_leaves =
        ready.is_some_and(|ready| ready.status == "False" && ready.reason.as_deref() == Some("PodTerminating"));
    if object.metadata.deletion_timestamp.is_some() || phase.is_final() || pod_leaves {
        return Stage::Leaving;
    }
    if let Some(ready) = ready.filter(|ready| ready.status == "True") {
        return Stage::Ready(ready.last_transition_time.as_ref().map_or_else(|| created(object), |time| time.0));
    }
    match phase {
        VirtualMachineInstancePhase::Scheduling => Stage::Scheduling,
        VirtualMachineInstancePhase::Scheduled | VirtualMachineInstancePhase::Running => Stage::Started,
        VirtualMachineInstancePhase::Pending
        | VirtualMachineInstancePhase::Succeeded
        | VirtualMachineInstancePhase::Failed
        | VirtualMachineInstancePhase::Unknown => Stage::Pending,
    }
}

/// Whether virt-api takes a pause: of a guest that runs and is not paused, by its own condition.
fn pause(object: &VirtualMachineInstance) -> Pause {
    let status = object.status.as_ref();
    let running = status.and_then(|status| status.phase) == Some(VirtualMachineInstancePhase::Running);
    if is_true(status.and_then(|status| status.conditions.as_deref()), "Paused") {
        Pause::Paused
    } else if running && object.metadata.deletion_timestamp.is_none() {
        Pause::Running
    } else {
        Pause::NotRunning
    }
}

/// How an instance ends, as it shows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InstanceEnd {
    /// Its launcher pod goes, in whatever phase the instance is: the guest's process ended, or the pod is to go. The
    /// pod knows.
    PodGoes,
    /// Its launcher pod is gone.
    PodGone,
    /// The guest ended while its launcher pod was there.
    Guest,
}

/// How an instance ends, if it does. One that is only to be deleted has not ended.
pub(super) fn instance_end(object: &VirtualMachineInstance) -> Option<InstanceEnd> {
    let status = object.status.as_ref()?;
    let ready = condition(status.conditions.as_deref(), "Ready").filter(|ready| ready.status == "False");
    match ready.and_then(|ready| ready.reason.as_deref()) {
        Some("PodTerminating") => Some(InstanceEnd::PodGoes),
        Some("PodNotExists") => Some(InstanceEnd::PodGone),
        Some(_) | None => status.phase.is_some_and(|phase| phase.is_final()).then_some(InstanceEnd::Guest),
    }
}

/// How a launcher pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LauncherEnd {
    /// The guest's container, or the pod, ended while nobody had asked it to.
    ByItself,
    /// It was deleted, evicted or preempted, or its node went.
    Taken,
}

/// The reasons of a failed pod that the cluster took away: kubelet's (`pkg/kubelet/eviction`, `preemption`,
/// `nodeshutdown`), and the node controller's.
const TAKEN: [&str; 6] = ["Evicted", "Preempting", "NodeShutdown", "Shutdown", "Terminated", "NodeLost"];

/// The uid of the instance of a launcher pod, and how the pod ended, if it did.
pub(super) fn launcher_end(object: &Pod) -> Option<(String, LauncherEnd)> {
    let instance = controller(&object.metadata).filter(|_| is_launcher(object))?;
    let empty = PodStatus::default();
    let status = object.status.as_ref().unwrap_or(&empty);
    let disrupted = status.conditions.iter().flatten().any(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    let guest = status.container_statuses.iter().flatten().find(|container| container.name == GUEST_CONTAINER);
    let terminated = guest.and_then(|guest| guest.state.as_ref()?.terminated.as_ref());
    // The kubelet found no trace of the container when the pod had to go.
    let unknown = terminated.is_some_and(|end| end.reason.as_deref() == Some("ContainerStatusUnknown"));
    if disrupted || unknown || status.reason.as_deref().is_some_and(|reason| TAKEN.contains(&reason)) {
        return Some((instance, LauncherEnd::Taken));
    }
    let ended = terminated.is_some() || matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    let finished = terminated.and_then(|end| end.finished_at.as_ref());
    let end = match (ended, asked_to_go(&object.metadata)) {
        (true, Some(asked)) if finished.is_none_or(|finished| finished.0 > asked) => LauncherEnd::Taken,
        (false, Some(_)) => LauncherEnd::Taken,
        (true, Some(_) | None) => LauncherEnd::ByItself,
        (false, None) => return None,
    };
    Some((instance, end))
}

/// When an object's deletion was asked for: its deletionTimestamp is when its grace period will be over.
fn asked_to_go(meta: &ObjectMeta) -> Option<Timestamp> {
    let grace = SignedDuration::from_secs(meta.deletion_grace_period_seconds.unwrap_or(0));
    meta.deletion_timestamp.as_ref().map(|time| time.0.checked_sub(grace).unwrap_or(time.0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As seen with KubeVirt 1.9 and real guests.
    #[test]
    fn how_an_instance_ends() {
        let instance = |phase: &str, ready: Value| -> VirtualMachineInstance {
            serde_json::from_value(json!({
                "metadata": {"name": "web-1"}, "spec": {},
                "status": {"phase": phase, "conditions": [ready]},
            }))
            .expect("an instance")
        };
        let not_ready = |reason: &str| json!({"type": "Ready", "status": "False", "reason": reason});
        let ready = json!({"type": "Ready", "status": "True"});
        for (phase, ready, expected) in [
            ("Scheduled", not_ready("PodTerminating"), Some(InstanceEnd::PodGoes)),
            ("Running", not_ready("PodTerminating"), Some(InstanceEnd::PodGoes)),
            ("Failed", not_ready("PodTerminating"), Some(InstanceEnd::PodGoes)),
            ("Failed", not_ready("PodNotExists"), Some(InstanceEnd::PodGone)),
            ("Failed", ready.clone(), Some(InstanceEnd::Guest)),
            ("Succeeded", not_ready("GuestNotRunning"), Some(InstanceEnd::Guest)),
            ("Scheduled", not_ready("GuestNotRunning"), None),
            ("Running", ready, None),
        ] {
            assert_eq!(instance_end(&instance(phase, ready.clone())), expected, "{phase} {ready}");
        }
    }

    #[test]
    fn how_a_launcher_pod_ends() {
        let launcher = |labels: Value, deletion: Option<&str>, status: Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {
                    "name": "virt-launcher-web-1", "labels": labels,
                    "deletionTimestamp": deletion, "deletionGracePeriodSeconds": 60,
                    "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "web-1", "uid": "u", "controller": true}],
                },
                "spec": {"containers": []}, "status": status,
            }))
            .expect("a pod")
        };
        let ended = |reason: &str, phase: &str| {
            json!({"phase": phase, "containerStatuses": [{
                "name": "compute", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 137, "reason": reason, "finishedAt": "2026-11-30T10:00:10Z"}},
            }]})
        };
        let runs = || json!({"phase": "Running"});
        let evicted = || json!({"phase": "Failed", "reason": "Evicted"});
        let disrupted = || json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}]});
        let (by_itself, taken) = (Some(LauncherEnd::ByItself), Some(LauncherEnd::Taken));
        for (what, deletion, status, expected) in [
            ("it runs", None, runs(), None),
            ("it was killed", None, ended("Error", "Running"), by_itself),
            ("out of memory", None, ended("OOMKilled", "Failed"), by_itself),
            ("its guest powered off", None, ended("Completed", "Succeeded"), by_itself),
            ("its node did not take it", None, json!({"phase": "Failed", "reason": "OutOfcpu"}), by_itself),
            ("it is to go", Some("2026-11-30T10:01:09Z"), runs(), taken),
            ("it was to go, and went", Some("2026-11-30T10:01:09Z"), ended("Error", "Failed"), taken),
            ("it ended, and was to go then", Some("2026-11-30T10:01:11Z"), ended("Error", "Failed"), by_itself),
            ("the kubelet evicted it", None, evicted(), taken),
            ("it is evicted", None, disrupted(), taken),
            ("without a trace", None, ended("ContainerStatusUnknown", "Failed"), taken),
        ] {
            let labels = json!({"kubevirt.io": "virt-launcher"});
            let found = launcher_end(&launcher(labels, deletion, status));
            assert_eq!(found, expected.map(|end| ("u".to_owned(), end)), "{what}");
        }
        assert_eq!(launcher_end(&launcher(json!({}), None, evicted())), None, "not a launcher pod");
    }
}

#[cfg(test)]
mod tests_of_sets {
    use serde_json::json;

    use super::*;

    fn set(manager: &str, subresource: &str, fields: serde_json::Value) -> SetEntry {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "managedFields": [
                {"manager": FIELD_MANAGER, "operation": "Update",
                    "fieldsV1": {"f:spec": {"f:template": {}, "f:selector": {}}}},
                {"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": fields},
            ]},
            "spec": {"selector": {}},
            "status": {"replicas": 0, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]},
        }))
        .expect("a set");
        SetEntry::from(&set)
    }

    #[test]
    fn a_template_that_others_wrote_is_known_by_the_managers_of_its_fields() {
        let template = || json!({"f:spec": {"f:template": {"f:spec": {}}}});
        let changed = |manager: &str, subresource: &str, fields| set(manager, subresource, fields).set.changed_by;
        assert_eq!(changed("kubectl-set", "", template()).as_deref(), Some("kubectl-set"));
        assert_eq!(changed("kubectl-edit", "", json!({"f:spec": {"f:selector": {}}})).as_deref(), Some("kubectl-edit"));
        assert_eq!(changed("kubectl", "scale", json!({"f:spec": {"f:replicas": {}}})), None);
        assert_eq!(changed("kube-controller-manager", "status", json!({"f:status": {}})), None);
        assert_eq!(changed("kubectl-label", "", json!({"f:metadata": {"f:labels": {}}})), None);
        assert_eq!(changed(FIELD_MANAGER, "", template()), None);
        assert_eq!(changed("virt-controller", "", template()), None, "defaults");
    }

    #[test]
    fn what_keeps_a_set_from_making_replicas_is_seen() {
        assert_eq!(set("x", "", json!({})).set.failure.as_deref(), Some("exceeded quota"));
    }
}
