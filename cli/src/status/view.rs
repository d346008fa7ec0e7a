//! From objects to what is shown of them: the same for both hulls. Children are those that name their owner's uid.

use std::collections::HashMap;

use catamaran_crds::{
    ElasticWorkload, ElasticWorkloadStatus, ScalingMode,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstancePhase, VirtualMachineInstanceReplicaSet},
    names::{REVISION_LABEL, REVISION_NUMBER_ANNOTATION},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::ResourceExt;
use serde_json::Value;

use crate::output::{Tone, duration};

/// The objects that may belong to workloads.
#[derive(Clone, Debug, Default)]
pub struct Children {
    pub replica_sets: Vec<ReplicaSet>,
    pub pods: Vec<Pod>,
    pub machine_sets: Vec<VirtualMachineInstanceReplicaSet>,
    pub instances: Vec<VirtualMachineInstance>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Also revisions without replicas.
    pub revisions: bool,
    /// The time that ages are against.
    pub now: Timestamp,
}

/// A workload with all that is shown of it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Namespace and name.
    pub name: String,
    /// Its hull and its counts.
    pub counts: String,
    /// How it is: the name of a condition, and its reason and message.
    pub states: Vec<State>,
    pub revisions: Vec<Revision>,
    /// Revisions that are not shown, since they have no replicas.
    pub hidden: usize,
}

/// One thing to know of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub name: &'static str,
    pub text: String,
    pub tone: Tone,
}

/// A replica set.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    pub name: String,
    /// Its number and what it is to the rollout.
    pub label: String,
    pub image: Option<String>,
    pub wanted: i32,
    pub ready: i32,
    /// What is unusual of it.
    pub state: Option<&'static str>,
    pub created: Option<Time>,
    pub replicas: Vec<Replica>,
    number: u64,
}

/// A pod or a VirtualMachineInstance.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    pub name: String,
    pub ready: bool,
    pub status: String,
    pub tone: Tone,
    /// Of a pod.
    pub restarts: Option<i32>,
    pub node: Option<String>,
    pub created: Option<Time>,
}

/// What is shown of each workload, by namespace and name.
#[must_use]
pub fn views(workloads: &[ElasticWorkload], children: &Children, options: &Options) -> Vec<View> {
    let mut replicas: HashMap<&str, Vec<Replica>> = HashMap::new();
    let pods = children.pods.iter().map(|pod| (&pod.metadata, Replica::from(pod)));
    let instances = children.instances.iter().map(|instance| (&instance.metadata, Replica::from(instance)));
    for (meta, replica) in pods.chain(instances) {
        replicas.entry(owner(meta)).or_default().push(replica);
    }
    let mut revisions: HashMap<&str, Vec<Revision>> = HashMap::new();
    let sets = children.replica_sets.iter().map(|set| (&set.metadata, Revision::from(set)));
    let machine_sets = children.machine_sets.iter().map(|set| (&set.metadata, Revision::from(set)));
    for (meta, mut revision) in sets.chain(machine_sets) {
        revision.replicas = meta.uid.as_deref().and_then(|uid| replicas.remove(uid)).unwrap_or_default();
        revision.replicas.sort_by(|a, b| a.name.cmp(&b.name));
        revisions.entry(owner(meta)).or_default().push(revision);
    }
    let mut workloads: Vec<&ElasticWorkload> = workloads.iter().collect();
    workloads.sort_by_key(|workload| (workload.namespace(), workload.name_any()));
    let view = |workload: &ElasticWorkload| {
        let own = workload.metadata.uid.as_deref().and_then(|uid| revisions.remove(uid)).unwrap_or_default();
        View::new(workload, own, options)
    };
    workloads.into_iter().map(view).collect()
}

/// The uid of the controlling owner; empty when there is none.
fn owner(meta: &ObjectMeta) -> &str {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map_or("", |owner| &owner.uid)
}

impl View {
    fn new(workload: &ElasticWorkload, mut revisions: Vec<Revision>, options: &Options) -> Self {
        let empty = ElasticWorkloadStatus::default();
        let status = workload.status.as_ref().unwrap_or(&empty);
        // The newest first, as the most interesting.
        revisions.sort_by(|a, b| b.number.cmp(&a.number).then_with(|| a.name.cmp(&b.name)));
        let all = revisions.len();
        revisions.retain(|revision| options.revisions || revision.wanted > 0 || !revision.replicas.is_empty());
        let hidden = all - revisions.len();
        for revision in &mut revisions {
            revision.label = label(revision, status);
        }
        let hull = status.hull.map_or("no hull yet", |hull| hull.as_str());
        let ElasticWorkloadStatus { ready_replicas, desired_replicas, available_replicas, updated_replicas, .. } =
            status;
        Self {
            name: format!("{}/{}", workload.namespace().unwrap_or_default(), workload.name_any()),
            counts: format!(
                "{hull}, {ready_replicas}/{desired_replicas} ready, {available_replicas} available, {updated_replicas} up to date"
            ),
            states: states(workload, status, options.now),
            revisions,
            hidden,
        }
    }
}

/// `3, current`: the number of a revision, and what it is to the rollout.
fn label(revision: &Revision, status: &ElasticWorkloadStatus) -> String {
    let is = |name: &Option<String>| name.as_deref().is_some_and(|name| name == revision.label);
    let role = match (is(&status.failed_revision), is(&status.update_revision), is(&status.current_revision)) {
        (true, _, _) => ", failed",
        (false, true, true) => ", current",
        (false, true, false) => ", updating",
        (false, false, true) => ", current",
        (false, false, false) => "",
    };
    format!("{}{role}", revision.number)
}

fn states(workload: &ElasticWorkload, status: &ElasticWorkloadStatus, now: Timestamp) -> Vec<State> {
    let mut states = Vec::new();
    if workload.metadata.deletion_timestamp.is_some() {
        states.push(State { name: "Deleting", text: "its children go with it".to_owned(), tone: Tone::Busy });
    }
    if status.observed_generation.is_none() {
        let text = "the operator has not seen it yet; does it run?".to_owned();
        states.push(State { name: "Unseen", text, tone: Tone::Busy });
    } else if status.observed_generation != workload.metadata.generation {
        let text = "the operator has not seen the last change yet".to_owned();
        states.push(State { name: "Outdated", text, tone: Tone::Busy });
    }
    let said = |type_: &str, value: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == value);
        found.map(|condition| format!("{}: {}", condition.reason, condition.message))
    };
    let (stalled, reconciling) = (said("Stalled", "True"), said("Reconciling", "True"));
    let alone = stalled.is_none() && reconciling.is_none();
    let shown = [
        ("Ready", said("Ready", "True"), Tone::Good),
        // The others tell why.
        ("Not ready", said("Ready", "False").or(said("Ready", "Unknown")).filter(|_| alone), Tone::Bad),
        ("Stalled", stalled, Tone::Bad),
        ("Reconciling", reconciling, Tone::Busy),
        ("Scaling", scaling(workload, status, now), Tone::Plain),
        ("Not scaling", said("ScalingActive", "False"), Tone::Bad),
        ("Not scaling", said("AbleToScale", "False"), Tone::Bad),
        ("Limited", said("ScalingLimited", "True"), Tone::Busy),
        ("Quota", said("QuotaEnforced", "False"), Tone::Bad),
        ("Quota", said("QuotaEnforced", "Unknown"), Tone::Busy),
        ("Memory", said("OutOfMemory", "True"), Tone::Bad),
    ];
    let told = |(name, text, tone): (&'static str, Option<String>, Tone)| text.map(|text| State { name, text, tone });
    states.extend(shown.into_iter().filter_map(told));
    states
}

/// Mode, bounds, and the last decision that changed anything.
fn scaling(workload: &ElasticWorkload, status: &ElasticWorkloadStatus, now: Timestamp) -> Option<String> {
    let spec = workload.spec.scaling.as_ref()?;
    let mode = match spec.mode.unwrap_or_default() {
        ScalingMode::Auto => "Auto",
        ScalingMode::Recommend => "Recommend",
        ScalingMode::Hold => "Hold",
        ScalingMode::Off => return Some("Off, the count is spec.replicas, or stays where that is absent".to_owned()),
    };
    let bounds = format!("{mode}, {} to {} replicas", spec.min_replicas.unwrap_or(1), spec.max_replicas);
    let Some(scaling) = &status.scaling else { return Some(format!("{bounds}, nothing decided yet")) };
    let last = scaling.last_decision.as_ref().map(|decision| {
        let ago = duration(now.duration_since(decision.time.0).as_secs());
        format!("; {ago} ago: {}", decision.message)
    });
    Some(format!("{bounds}, wants {}{}", scaling.desired_replicas, last.unwrap_or_default()))
}

/// The number of a replica set; 0 when it has none.
fn number(meta: &ObjectMeta) -> u64 {
    let noted = meta.annotations.as_ref().and_then(|all| all.get(REVISION_NUMBER_ANNOTATION));
    noted.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn revision_of(meta: &ObjectMeta) -> String {
    meta.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL)).cloned().unwrap_or_default()
}

fn set_state(meta: &ObjectMeta, paused: bool) -> Option<&'static str> {
    match (meta.deletion_timestamp.is_some(), paused) {
        (true, _) => Some("Deleting"),
        (false, true) => Some("Paused"),
        (false, false) => None,
    }
}

impl From<&ReplicaSet> for Revision {
    fn from(set: &ReplicaSet) -> Self {
        let spec = set.spec.as_ref();
        let template = spec.and_then(|spec| spec.template.as_ref()?.spec.as_ref());
        Self {
            name: set.name_any(),
            label: revision_of(&set.metadata),
            image: template.and_then(|template| template.containers.first()?.image.clone()),
            wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            ready: set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
            state: set_state(&set.metadata, false),
            created: set.metadata.creation_timestamp.clone(),
            replicas: Vec::new(),
            number: number(&set.metadata),
        }
    }
}

impl From<&VirtualMachineInstanceReplicaSet> for Revision {
    fn from(set: &VirtualMachineInstanceReplicaSet) -> Self {
        let volumes = set.spec.template.as_ref().and_then(|template| template.spec.get("volumes")?.as_array());
        let image = |volume: &Value| volume.get("containerDisk")?.get("image")?.as_str().map(str::to_owned);
        Self {
            name: set.name_any(),
            label: revision_of(&set.metadata),
            image: volumes.and_then(|volumes| volumes.iter().find_map(image)),
            wanted: set.spec.replicas.unwrap_or(1),
            ready: set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
            state: set_state(&set.metadata, set.spec.paused == Some(true)),
            created: set.metadata.creation_timestamp.clone(),
            replicas: Vec::new(),
            number: number(&set.metadata),
        }
    }
}

impl From<&Pod> for Replica {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let containers = || status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
        let ready = status.is_some_and(|status| {
            status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        // As kubectl's STATUS: what a container waits for or ended by says more than the phase.
        let trouble = containers().find_map(|container| {
            let state = container.state.as_ref()?;
            let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
            waiting.or_else(|| state.terminated.as_ref()?.reason.clone())
        });
        let phase = status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let status_text = match status.and_then(|status| status.reason.clone()).or(trouble) {
            _ if terminating => "Terminating".to_owned(),
            Some(reason) => reason,
            None => phase,
        };
        Self {
            name: pod.name_any(),
            ready,
            tone: tone(&status_text, ready),
            status: status_text,
            restarts: Some(containers().map(|container| container.restart_count).fold(0, i32::saturating_add)),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            created: pod.metadata.creation_timestamp.clone(),
        }
    }
}

impl From<&VirtualMachineInstance> for Replica {
    fn from(instance: &VirtualMachineInstance) -> Self {
        let status = instance.status.as_ref();
        let ready = status.is_some_and(|status| {
            status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        let phase = match status.and_then(|status| status.phase).unwrap_or_default() {
            _ if instance.metadata.deletion_timestamp.is_some() => "Terminating",
            VirtualMachineInstancePhase::Pending => "Pending",
            VirtualMachineInstancePhase::Scheduling => "Scheduling",
            VirtualMachineInstancePhase::Scheduled => "Scheduled",
            VirtualMachineInstancePhase::Running => "Running",
            VirtualMachineInstancePhase::Succeeded => "Succeeded",
            VirtualMachineInstancePhase::Failed => "Failed",
            VirtualMachineInstancePhase::Unknown => "Unknown",
        };
        Self {
            name: instance.name_any(),
            ready,
            status: phase.to_owned(),
            tone: tone(phase, ready),
            restarts: None,
            node: status.and_then(|status| status.node_name.clone()),
            created: instance.metadata.creation_timestamp.clone(),
        }
    }
}

fn tone(status: &str, ready: bool) -> Tone {
    match status {
        "Running" if ready => Tone::Good,
        "Running" | "Pending" | "Scheduling" | "Scheduled" | "ContainerCreating" | "PodInitializing"
        | "Terminating" => Tone::Busy,
        _ => Tone::Bad,
    }
}
