//! The pods of workloads: what a decision of scaling looks at, and where each of them runs.

use std::collections::HashSet;

use catamaran_crds::names::{POD_DELETION_COST_ANNOTATION, VICTIM_COST};
use catamaran_plan::{
    autoscale::{
        pods::{ConditionStatus, Container, InitContainer, Phase, Pod, Readiness, Requests},
        quantity::milli,
    },
    quantity::bytes,
};
use catamaran_usage::identity::PodIdentity;
use dashmap::DashMap;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{self as core, ResourceRequirements},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use super::{
    convert::controller,
    index::{Index, WorkloadKey},
};
use crate::intake::hooks::{Placed, Placement};

/// The container of a launcher pod that runs the guest (KubeVirt).
pub const GUEST_CONTAINER: &str = "compute";
/// The label that launcher pods carry, with [`LAUNCHER`] (KubeVirt).
const LAUNCHER_LABEL: &str = "kubevirt.io";
const LAUNCHER: &str = "virt-launcher";
/// The label of a launcher pod that names its VirtualMachineInstance (KubeVirt).
const INSTANCE_LABEL: &str = "vm.kubevirt.io/name";

/// A pod and who controls it.
#[derive(Clone, Debug)]
pub struct PodEntry {
    /// The uid of the controlling owner: a ReplicaSet or a VirtualMachineInstance.
    pub owner: Option<String>,
    /// Its uid.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it is marked as a victim.
    pub marked: bool,
    /// The VirtualMachineInstance that it runs, if it is a launcher pod.
    pub instance: Option<String>,
    /// The memory limits of its containers together, in bytes; `None` where one has no limit, and for a launcher pod.
    pub memory_limit: Option<i64>,
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
}

impl From<&core::Pod> for PodEntry {
    fn from(object: &core::Pod) -> Self {
        let labels = object.labels();
        let launcher = labels.get(LAUNCHER_LABEL).is_some_and(|value| value == LAUNCHER);
        let mut pod = view(object);
        if launcher {
            pod.containers.retain(|container| container.name == GUEST_CONTAINER);
            pod.init_containers.clear();
        }
        Self {
            owner: controller(&object.metadata),
            uid: object.uid().unwrap_or_default(),
            created: object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            marked: object.annotations().get(POD_DELETION_COST_ANNOTATION).is_some_and(|cost| cost == VICTIM_COST),
            memory_limit: (!launcher).then(|| memory_limit(object)).flatten(),
            instance: launcher.then(|| labels.get(INSTANCE_LABEL).cloned()).flatten(),
            pod,
        }
    }
}

fn memory_limit(object: &core::Pod) -> Option<i64> {
    object.spec.as_ref()?.containers.iter().try_fold(0_i64, |sum, container| {
        let limits = container.resources.as_ref()?.limits.as_ref();
        Some(sum.saturating_add(of(limits).memory?))
    })
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

/// Where a pod runs, and for whom.
#[derive(Clone, Debug)]
struct Place {
    uid: String,
    node: Option<String>,
    workload: WorkloadKey,
}

/// The pods of all workloads.
#[derive(Default)]
pub struct Pods {
    /// By workload.
    pub index: Index<PodEntry>,
    /// By `namespace/name`.
    places: DashMap<Box<str>, Place>,
}

impl Pods {
    /// The workload that a pod belongs to.
    #[must_use]
    pub fn workload_of(&self, namespace: &str, name: &str) -> Option<WorkloadKey> {
        self.places.get(place(namespace, name).as_ref()).map(|place| place.workload.clone())
    }

    /// Enters a pod. Returns its workload when that has to plan: a mark came or went.
    pub(super) fn enter(&self, object: &core::Pod) -> Option<WorkloadKey> {
        let entry = PodEntry::from(object);
        let workload = WorkloadKey::of(&object.metadata)?;
        let node = object.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let place = Place { uid: entry.uid.clone(), node, workload: workload.clone() };
        self.places.insert(key(&object.metadata), place);
        let marked = entry.marked;
        let news = self.index.apply(&object.metadata, entry);
        news.filter(|_| marked)
    }

    /// Drops a pod.
    pub(super) fn remove(&self, object: &core::Pod) {
        self.places.remove(&key(&object.metadata));
        self.index.remove(&object.metadata);
    }

    /// A listing is complete, with these pods in it.
    pub(super) fn listed(&self, names: &HashSet<Box<str>>) {
        self.places.retain(|name, _| names.contains(name));
        self.index.end_listing();
    }
}

impl Placement for Pods {
    fn check(&self, pod: &PodIdentity, node: &str) -> Placed {
        match self.places.get(place(pod.namespace(), pod.name()).as_ref()) {
            None => Placed::Unknown,
            Some(place) if place.node.as_deref() != Some(node) => Placed::OtherNode,
            Some(place) if place.uid != pod.uid() => Placed::OtherUid,
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
