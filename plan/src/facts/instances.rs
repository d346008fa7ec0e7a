//! VirtualMachineInstanceReplicaSets, their instances and the launcher pods of these.

use catamaran_autoscale::victims::Candidate;
use jiff::Timestamp;

use crate::facts::{
    arithmetic::count,
    notes::{Crash, CrashLoop, FrozenNote},
};

/// A VirtualMachineInstanceReplicaSet and its instances.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstanceSet {
    /// `spec.paused`.
    pub paused: bool,
    /// Whether virt-controller has seen the pause (condition ReplicaPaused).
    pub pause_seen: bool,
    /// `status.replicas`: what virt-controller counted at its last pass.
    pub counted: u32,
    /// The instances that it owns.
    pub instances: Vec<Instance>,
    /// Whether its instances are noted to be paused by us.
    pub frozen: Option<FrozenNote>,
    /// The backoff noted on the set, if any.
    pub crash_loop: Option<CrashLoop>,
    /// Instances that ended by themselves, as far as remembered.
    pub crashes: Vec<Crash>,
    /// While an instance has ended and it is not known yet whether by itself: until when that is waited for.
    pub unexplained_until: Option<Timestamp>,
}

impl InstanceSet {
    /// The instances that count: as virt-controller counts them.
    pub fn live(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.stage != Stage::Leaving)
    }

    /// How many instances count.
    #[must_use]
    pub fn live_count(&self) -> u32 {
        count(self.live())
    }
}

/// One VirtualMachineInstance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its uid: the precondition of its deletion.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// How far it is.
    pub stage: Stage,
    /// Whether its guest can be paused, or is.
    pub pause: Pause,
    /// The CPU that its guest uses, in thousandths of a core, where that is known.
    pub usage: Option<i64>,
    /// Its launcher pods: one, and two during a migration.
    pub launchers: Vec<Launcher>,
}

impl Instance {
    /// As a candidate for going.
    #[must_use]
    pub fn candidate(&self) -> Candidate<'_> {
        let ready_since = match self.stage {
            Stage::Ready(since) => Some(since),
            Stage::Leaving | Stage::Pending | Stage::Scheduling | Stage::Started => None,
        };
        Candidate { name: &self.name, created: self.created, ready_since, usage: self.usage }
    }
}

/// Whether a guest is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    /// It does not run yet, or no longer: KubeVirt refuses to pause it.
    #[default]
    NotRunning,
    /// It runs.
    Running,
    /// It is paused (condition Paused).
    Paused,
}

/// How far an instance is, in the order in which victims are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Terminating, ended, or losing its pod: it no longer counts.
    Leaving,
    /// Accepted, without a launcher pod.
    Pending,
    /// Its launcher pod is on the way.
    Scheduling,
    /// The guest starts, or runs without being ready.
    Started,
    /// Ready since then.
    Ready(Timestamp),
}

/// A launcher pod of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// Its name.
    pub name: String,
    /// Its uid: the precondition of its annotation.
    pub uid: String,
    /// What the node agent is told.
    pub annotation: Option<String>,
    /// Since when it is out of the Service, as its guest is about to go.
    pub leaving: Option<Timestamp>,
    /// Whether an EndpointSlice of the Service has it.
    pub served: bool,
}
