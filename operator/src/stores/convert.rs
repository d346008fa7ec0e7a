//! From API objects to what plans look at.

use std::collections::BTreeMap;

use catamaran_crds::{
    ServicePort,
    kubevirt::{
        KubeVirtCondition, VirtualMachineInstance, VirtualMachineInstancePhase, VirtualMachineInstanceReplicaSet,
    },
    names::{
        CRASH_LOOP_ANNOTATION, DESIRED_REPLICAS_ANNOTATION, FROZEN_ANNOTATION, NODE_QUOTA_ANNOTATION, REVISION_LABEL,
        REVISION_NUMBER_ANNOTATION, TEMPLATE_HASH_ANNOTATION, WORKLOAD_LABEL,
    },
};
use catamaran_plan::{
    facts::{
        Crash, FrozenNote, Instance, InstanceSet, Members, Pause, PodQuota, PodSet, Selects, ServiceFacts, SetFacts,
        Stage,
    },
    goal::killing_probe,
    goal::revision::Template,
    objects::service_selector,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use super::pods::container_quota;

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
}

/// A Service and who controls it.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    /// The uid of the controlling owner.
    pub owner: Option<String>,
    /// Its name.
    pub name: String,
    /// What is known of it, if it is ours.
    pub service: ServiceFacts,
}

/// The uid of the controlling owner.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<String> {
    let owners = meta.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

fn unsigned(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

fn set_entry(meta: &ObjectMeta, replicas: Option<i32>, quota: PodQuota, probed: bool, members: Members) -> SetEntry {
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
            members,
        },
    }
}

fn template_quota(metadata: Option<&ObjectMeta>) -> PodQuota {
    let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
    let annotation = annotations.and_then(|annotations| annotations.get(NODE_QUOTA_ANNOTATION)).cloned();
    let lone = annotation.is_some() && annotations.is_some_and(|annotations| annotations.len() == 1);
    PodQuota { annotation, lone, ..PodQuota::default() }
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
            pods: Vec::new(),
        };
        let template = spec.template.unwrap_or_default();
        let containers = template.spec.iter().flat_map(|spec| &spec.containers).map(container_quota).collect();
        let quota = PodQuota { containers, ..template_quota(template.metadata.as_ref()) };
        let probed = killing_probe(&Template::Container(Box::new(template))).is_some();
        set_entry(&set.metadata, spec.replicas, quota, probed, Members::Pods(pods))
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
        };
        let quota = template_quota(set.spec.template.as_ref().and_then(|template| template.metadata.as_ref()));
        let template = set.spec.template.clone().map(|template| Template::VirtualMachine(Box::new(template)));
        let probed = template.is_some_and(|template| killing_probe(&template).is_some());
        set_entry(&set.metadata, set.spec.replicas, quota, probed, Members::Instances(members))
    }
}

impl From<&VirtualMachineInstance> for InstanceEntry {
    fn from(object: &VirtualMachineInstance) -> Self {
        Self {
            owner: controller(&object.metadata),
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
            service: ServiceFacts::Owned {
                uid: object.uid().unwrap_or_default(),
                ports: ports.collect(),
                selects: selects(&workload, &spec.selector.unwrap_or_default()),
            },
        }
    }
}

fn selects(workload: &str, selector: &BTreeMap<String, String>) -> Option<Selects> {
    [Selects::Replicas, Selects::Nothing].into_iter().find(|selects| service_selector(workload, *selects) == *selector)
}

fn created(object: &VirtualMachineInstance) -> Timestamp {
    object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

fn condition<'a>(conditions: Option<&'a [KubeVirtCondition]>, type_: &str) -> Option<&'a KubeVirtCondition> {
    conditions.unwrap_or_default().iter().find(|condition| condition.type_ == type_)
}

fn is_true(conditions: Option<&[KubeVirtCondition]>, type_: &str) -> bool {
    condition(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// How far an instance is; what virt-controller no longer counts is leaving (`filterActiveVMIs` of its replica set controller).
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

/// The crash that an instance shows: it ended, and nobody had asked it to.
pub(super) fn crash(object: &VirtualMachineInstance, now: Timestamp) -> Option<Crash> {
    let status = object.status.as_ref()?;
    let phase = status.phase.filter(|phase| phase.is_final())?;
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let transitions = status.phase_transition_timestamps.as_deref().unwrap_or_default();
    let ended = transitions.iter().find(|transition| transition.phase == phase);
    Some(Crash {
        created: created(object),
        ended: ended.map_or(now, |transition| transition.phase_transition_timestamp.0),
    })
}
