//! The writes that a plan asks for. `apply` in the operator matches on them exhaustively and adds nothing of its own.

use std::fmt;

use catamaran_crds::{Hull, ServicePort};
use jiff::Timestamp;

use crate::{
    facts::{CrashLoop, FrozenNote, SetFacts},
    goal::{quota::Quota, revision::Template},
};

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the replica set of a revision.
    CreateSet(Box<NewSet>),
    /// Change a replica set's scale, pause or notes, and of its template the quota.
    UpdateSet(Box<SetUpdate>),
    /// Delete a replica set without replicas that has fallen out of the history.
    DeleteSet(SetReference),
    /// Delete one VirtualMachineInstance: a victim of a scale-in, while its set is paused.
    DeleteInstance {
        /// Its name.
        name: String,
        /// Its uid, the precondition.
        uid: String,
    },
    /// Mark a pod as a victim of a scale-in to come, or take the mark off.
    MarkPod {
        /// Its name.
        name: String,
        /// Its uid, the precondition.
        uid: String,
        /// Whether it is marked.
        marked: bool,
    },
    /// Take a pod out of the Service: a launcher pod before its guest goes, which may be put back, or one that is no
    /// replica.
    LeaveService {
        /// Its name.
        pod: String,
        /// Its uid, the precondition.
        uid: String,
        /// Since when it is out; `None` puts it back.
        since: Option<Timestamp>,
    },
    /// Pause a VirtualMachineInstance that runs, or let it go on.
    PauseInstance {
        /// Its name; KubeVirt's subresource knows no precondition, and no name is used twice.
        name: String,
        /// Whether it is to be paused.
        paused: bool,
    },
    /// Tell the node agent another quota, by a pod's annotation.
    AnnotatePod {
        /// Its name.
        name: String,
        /// Its uid, the precondition.
        uid: String,
        /// The annotation; `None` takes it off.
        annotation: Option<String>,
    },
    /// Resize a pod that runs.
    ResizePod {
        /// Its name.
        name: String,
        /// Its uid, the precondition.
        uid: String,
        /// The container.
        container: String,
        /// Its CPU and memory.
        quota: Quota,
    },
    /// Make the Service, or correct it. While the workload is frozen it selects nothing.
    ApplyService {
        /// Its uid where it exists, the precondition.
        uid: Option<String>,
        /// Its ports.
        ports: Vec<ServicePort>,
    },
    /// Delete the Service.
    DeleteService {
        /// Its uid, the precondition.
        uid: String,
    },
}

impl Action {
    /// Whether it brings a count of replicas, or notes it.
    #[must_use]
    pub fn brings_count(&self) -> bool {
        match self {
            Self::CreateSet(_) => true,
            Self::UpdateSet(update) => {
                update.spec.replicas.is_some()
                    || update.notes.desired_replicas.is_some()
                    || update.spec.paused.is_some()
            }
            Self::DeleteSet(_)
            | Self::DeleteInstance { .. }
            | Self::MarkPod { .. }
            | Self::LeaveService { .. }
            | Self::PauseInstance { .. }
            | Self::AnnotatePod { .. }
            | Self::ResizePod { .. }
            | Self::ApplyService { .. }
            | Self::DeleteService { .. } => false,
        }
    }

    /// Whether it may be carried out only after `earlier`, a step before it in the same plan. Any other order, and any
    /// part of the others alone, keeps the bounds of a rollout: each size is chosen for the case that no other one
    /// changes.
    #[must_use]
    pub fn needs(&self, earlier: &Self) -> bool {
        // A pod may never have a limit that its set's template lacks, as no resize takes it away.
        let of_template = matches!(earlier, Self::UpdateSet(update) if update.quota.is_some());
        match self {
            // The agent lowers the burst, or the kernel refuses the limit.
            Self::ResizePod { uid, .. } => {
                of_template || matches!(earlier, Self::AnnotatePod { uid: annotated, .. } if uid == annotated)
            }
            Self::AnnotatePod { .. } => of_template,
            // The view of the set may be old, and the set no longer paused.
            Self::DeleteInstance { .. } => {
                matches!(earlier, Self::UpdateSet(update) if update.set.hull == Hull::VirtualMachine)
            }
            Self::CreateSet(_)
            | Self::UpdateSet(_)
            | Self::DeleteSet(_)
            | Self::MarkPod { .. }
            | Self::LeaveService { .. }
            | Self::PauseInstance { .. }
            | Self::ApplyService { .. }
            | Self::DeleteService { .. } => false,
        }
    }
}

/// A replica set to make.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSet {
    /// Its name: workload and revision.
    pub name: String,
    /// The revision.
    pub revision: String,
    /// Its place in the history.
    pub number: u64,
    /// What its replicas are made from.
    pub template: Template,
    /// The hash over what of the template cannot change in place.
    pub template_hash: String,
    /// How many replicas it starts with.
    pub replicas: u32,
    /// The workload's replica count.
    pub desired_replicas: u32,
    /// `spec.minReadySeconds` of a ReplicaSet.
    pub min_ready_seconds: u32,
    /// The newest set, where its template may mean the same: then that one is kept.
    pub like: Option<SetReference>,
}

/// Which replica set a write is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetReference {
    /// What its replicas are.
    pub hull: Hull,
    /// Its name.
    pub name: String,
    /// Its uid, a precondition.
    pub uid: String,
    /// Its resourceVersion, a precondition: nothing is scaled on an outdated view.
    pub resource_version: String,
}

impl SetReference {
    /// The reference of a set as it was observed.
    #[must_use]
    pub fn new(set: &SetFacts) -> Self {
        Self {
            hull: set.hull(),
            name: set.name.clone(),
            uid: set.uid.clone(),
            resource_version: set.resource_version.clone(),
        }
    }
}

/// A change of a replica set, with one write.
#[derive(Clone, Debug, PartialEq)]
pub struct SetUpdate {
    /// Which set.
    pub set: SetReference,
    /// Its size and pause.
    pub spec: SpecChange,
    /// Its annotations.
    pub notes: NoteChange,
    /// The quota in its template.
    pub quota: Option<SetQuota>,
}

/// A change of a replica set's spec, besides its template; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecChange {
    /// `spec.replicas`.
    pub replicas: Option<u32>,
    /// `spec.minReadySeconds` (ReplicaSet only).
    pub min_ready_seconds: Option<u32>,
    /// `spec.paused` (VirtualMachineInstanceReplicaSet only).
    pub paused: Option<bool>,
}

/// A change of what is noted on a replica set, as annotations; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NoteChange {
    /// The workload's replica count, noted with every change of scale.
    pub desired_replicas: Option<u32>,
    /// A new place in the history: an old revision became the wanted one again.
    pub number: Option<u64>,
    /// The hash over what of its template cannot change in place, for a set from before hashes were noted.
    pub template_hash: Option<String>,
    /// The crash-loop backoff: `Some(None)` removes it.
    pub crash_loop: Option<Option<CrashLoop>>,
    /// That its instances are paused: `Some(None)` removes it (VirtualMachineInstanceReplicaSet only).
    pub frozen: Option<Option<FrozenNote>>,
}

/// A change of the quota in a replica set's template; what is `None` stays. Replicas that exist are not touched by it.
#[derive(Clone, Debug, PartialEq)]
pub struct SetQuota {
    /// The container of the quota.
    pub container: String,
    /// Its CPU and memory (ReplicaSet only).
    pub resources: Option<Quota>,
    /// What the node agent is told: `Some(None)` takes the annotation off.
    pub annotation: Option<Option<String>>,
    /// Whether the template has no other annotation: KubeVirt's webhooks may take an empty map for null, and refuse it.
    pub lone: bool,
}

impl SetUpdate {
    /// A change that changes nothing yet.
    #[must_use]
    pub fn none(set: SetReference) -> Self {
        Self { set, spec: SpecChange::default(), notes: NoteChange::default(), quota: None }
    }

    /// True when nothing would be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { set: _, spec, notes, quota } = self;
        *spec == SpecChange::default() && *notes == NoteChange::default() && quota.is_none()
    }
}

/// The kind of a replica set.
#[must_use]
pub fn set_kind(hull: Hull) -> &'static str {
    match hull {
        Hull::Container => "ReplicaSet",
        Hull::VirtualMachine => "VirtualMachineInstanceReplicaSet",
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSet(set) => {
                let kind = set_kind(set.template.hull());
                write!(f, "create {kind} {} (revision {}) with {} replicas", set.name, set.number, set.replicas)
            }
            Self::UpdateSet(update) => write!(f, "{update}"),
            Self::DeleteSet(set) => write!(f, "delete {} {}", set_kind(set.hull), set.name),
            Self::DeleteInstance { name, uid: _ } => write!(f, "delete VirtualMachineInstance {name}"),
            Self::PauseInstance { name, paused: true } => write!(f, "pause VirtualMachineInstance {name}"),
            Self::PauseInstance { name, paused: false } => write!(f, "unpause VirtualMachineInstance {name}"),
            Self::MarkPod { name, uid: _, marked: true } => write!(f, "mark Pod {name} as a victim"),
            Self::LeaveService { pod, uid: _, since: Some(_) } => write!(f, "take Pod {pod} out of the Service"),
            Self::LeaveService { pod, uid: _, since: None } => write!(f, "put Pod {pod} back into the Service"),
            Self::MarkPod { name, uid: _, marked: false } => write!(f, "take the mark off Pod {name}"),
            Self::AnnotatePod { name, uid: _, annotation: Some(annotation) } => {
                write!(f, "tell the node agent of Pod {name}: {annotation}")
            }
            Self::AnnotatePod { name, uid: _, annotation: None } => {
                write!(f, "tell the node agent of Pod {name} that there is nothing to hold")
            }
            Self::ResizePod { name, uid: _, container, quota } => {
                write!(f, "resize Pod {name}, container {container}: {quota}")
            }
            Self::ApplyService { uid: None, ports } => write!(f, "create the Service with {} ports", ports.len()),
            Self::ApplyService { uid: Some(_), ports } => write!(f, "correct the Service with {} ports", ports.len()),
            Self::DeleteService { uid: _ } => f.write_str("delete the Service"),
        }
    }
}

impl fmt::Display for SetUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, spec, notes, quota } = self;
        let SpecChange { replicas, min_ready_seconds, paused } = spec;
        let NoteChange { desired_replicas: _, number, template_hash: _, crash_loop, frozen } = notes;
        let parts = [
            replicas.map(|count| format!("scale to {count}")),
            paused.map(|paused| if paused { "pause" } else { "unpause" }.to_owned()),
            number.map(|number| format!("make it revision {number}")),
            min_ready_seconds.map(|seconds| format!("set minReadySeconds to {seconds}")),
            crash_loop.map(|state| if state.is_some() { "note the crashes" } else { "forget the crashes" }.to_owned()),
            quota.as_ref().map(|quota| format!("new replicas get {quota}")),
            frozen.map(|note| of_frozen(note).to_owned()),
        ];
        let mut changes: Vec<String> = parts.into_iter().flatten().collect();
        if changes.is_empty() {
            changes.push("bring the notes up to date".to_owned());
        }
        write!(f, "{} {}: {}", set_kind(set.hull), set.name, changes.join(", "))
    }
}

fn of_frozen(note: Option<FrozenNote>) -> &'static str {
    match note {
        Some(FrozenNote::Frozen) => "note that its instances are paused",
        Some(FrozenNote::Thawing(_)) => "note that its instances are unpaused",
        None => "forget that its instances were paused",
    }
}

impl fmt::Display for SetQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container: _, resources, annotation, lone: _ } = self;
        let node = annotation.as_ref().map(|annotation| match annotation {
            Some(annotation) => format!("for the node agent {annotation}"),
            None => "nothing for the node agent".to_owned(),
        });
        let parts: Vec<String> = resources.map(|resources| resources.to_string()).into_iter().chain(node).collect();
        f.write_str(&parts.join(", "))
    }
}
