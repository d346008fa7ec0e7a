//! What is: the children of one workload and its last status, as the stores of the operator show them.

use catamaran_crds::{ElasticWorkloadStatus, Hull, ServicePort, State};
use jiff::Timestamp;

mod notes;

use crate::goal::quota::Quota;

use catamaran_autoscale::{Decision, History, victims::Candidate};
pub use notes::{Crash, CrashLoop, FrozenNote};

/// Everything that a plan for one workload may look at, besides [`crate::Goal`].
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The time of the observation; the plan crate has no clock of its own.
    pub now: Timestamp,
    /// Whether KubeVirt's kinds are served.
    pub kubevirt: KubeVirt,
    /// The replica sets that the workload owns, in any order.
    pub sets: Vec<SetFacts>,
    /// Replica sets that carry a name or label of ours and are not owned by the workload: never touched.
    pub foreign_sets: Vec<(Hull, String)>,
    /// The Service of the workload's name.
    pub service: ServiceFacts,
    /// The status as last written.
    pub status: ElasticWorkloadStatus,
    /// What scaling decided just now, with `spec.scaling`.
    pub scaling: Option<Scaled>,
    /// Whether pods can be resized.
    pub resize: ResizeApi,
    /// Until when usage that is not known yet may still come in, because the operator has begun to listen to node agents only
    /// lately. `None`: what is not known now is not on its way.
    pub usage_due: Option<Timestamp>,
    /// The replicas that run and that a node agent is to hold to their quota, by name.
    pub enforcement: Vec<Enforcement>,
    /// Kills for want of memory, at most the last one of each replica.
    pub out_of_memory: Vec<OomKill>,
}

/// A pod that runs and has the quota annotation, and what its node's agent says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// Its name.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// What the agent says.
    pub told: Told,
}

/// What an agent says of a pod's quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing, or it has fallen silent.
    Nothing,
    /// It cannot be said yet, since: no container runs, or the agent has not read the present annotation.
    NotYet(String),
    /// The kernel holds all of it.
    Held,
    /// The kernel does not hold it as asked, since.
    NotHeld(String),
}

/// The kernel killed a process of a replica for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// The pod's name.
    pub pod: String,
    /// The container, where the kubelet says it: not if its first process went on.
    pub container: Option<String>,
    /// When, or when it was seen.
    pub at: Timestamp,
    /// The memory limit then, in bytes: of the container, or of the pod where the container is not known.
    pub limit: Option<u64>,
    /// memory.peak of the pod, in bytes, where an agent reads it.
    pub peak: Option<u64>,
}

impl Facts {
    /// The replica sets from the oldest to the newest.
    pub(crate) fn in_order(&self) -> Vec<&SetFacts> {
        let mut sets: Vec<&SetFacts> = self.sets.iter().collect();
        sets.sort_by(|a, b| a.number.cmp(&b.number).then_with(|| a.name.cmp(&b.name)));
        sets
    }
}

/// A decision of scaling, and what has to be remembered if it is carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// The decision.
    pub decision: Decision,
    /// The history with it.
    pub history: History,
}

/// Whether KubeVirt's kinds are served by this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeVirt {
    /// Its CustomResourceDefinitions are there.
    Installed,
    /// They are not (yet).
    Absent,
}

/// Whether this cluster resizes pods in place, memory limits downwards included: Kubernetes 1.34 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeApi {
    /// It does.
    Served,
    /// It does not: another quota for CPU or memory is another revision.
    Absent,
}

/// The quota of a template or a pod, as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodQuota {
    /// What the node agent is told.
    pub annotation: Option<String>,
    /// Whether that is the only annotation: where it goes, the map has to go with it (see [`SetQuota`](crate::plan::SetQuota)).
    pub lone: bool,
    /// CPU and memory by container, as the spec has them.
    pub containers: Containers,
    /// How far the kubelet is; a template has nothing to do with it.
    pub resize: Resize,
    /// What this process asked the pod's resize for last.
    pub asked: Option<Quota>,
    /// What the API server refused last, since the pod's node can never do it.
    pub refused: Option<RefusedResize>,
}

/// CPU and memory by container. A pod has few, and there are many pods: this takes no more room than they need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Containers(Box<[(Box<str>, Quota)]>);

impl Containers {
    /// The quota of a container.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Quota> {
        self.iter().find(|(container, _)| *container == name).map(|(_, quota)| quota)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quota)> {
        self.0.iter().map(|(container, quota)| (&**container, *quota))
    }

    /// The same with another quota for a container, which may be new.
    #[must_use]
    pub fn with(&self, name: &str, quota: Quota) -> Self {
        self.iter().filter(|(container, _)| *container != name).chain([(name, quota)]).collect()
    }
}

impl<Name: Into<Box<str>>> FromIterator<(Name, Quota)> for Containers {
    fn from_iter<T: IntoIterator<Item = (Name, Quota)>>(containers: T) -> Self {
        Self(containers.into_iter().map(|(name, quota)| (name.into(), quota)).collect())
    }
}

/// A resize that the API server refused, since the node can never do it: Kubernetes 1.36 tells by admission what a kubelet
/// told before by its status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusedResize {
    /// What was asked for.
    pub quota: Quota,
    /// What the API server said.
    pub message: String,
}

/// How far the kubelet is with a pod's spec (conditions PodResizePending and PodResizeInProgress).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resize {
    /// The pod has what its spec says.
    #[default]
    Settled,
    /// On the way, or not seen yet.
    InProgress,
    /// The kubelet fails to; it tries again.
    Failing(String),
    /// The node has no room for it now; the kubelet tries again.
    Deferred(String),
    /// The node can never do it.
    Infeasible(String),
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

/// A replica set of either hull that the workload owns.
#[derive(Clone, Debug, PartialEq)]
pub struct SetFacts {
    /// Its name.
    pub name: String,
    /// Its uid: the precondition of every write.
    pub uid: String,
    /// Its resourceVersion: the precondition of every change of scale.
    pub resource_version: String,
    /// The revision of its template.
    pub revision: String,
    /// Its place in the history; grows with each rollout.
    pub number: u64,
    /// `spec.replicas`.
    pub replicas: u32,
    /// The workload's replica count when the set was last scaled.
    pub desired_replicas: Option<u32>,
    /// The hash over what of its template cannot change in place, if it was noted.
    pub template_hash: Option<String>,
    /// The quota in its template, for replicas to come.
    pub quota: PodQuota,
    /// Whether its template has a liveness or startup probe: the kubelet would kill its replicas when they are frozen.
    pub probed: bool,
    /// True once it is being deleted; then it is left alone.
    pub deleting: bool,
    /// Why its controller cannot make replicas, in the API server's words (condition ReplicaFailure).
    pub failure: Option<String>,
    /// Who else wrote its template or its selector. What we did not write is not what the spec says.
    pub changed_by: Option<String>,
    /// What is known of its replicas.
    pub members: Members,
}

/// What is known of the replicas of a set, by hull.
#[derive(Clone, Debug, PartialEq)]
pub enum Members {
    /// A ReplicaSet: its controller counts.
    Pods(PodSet),
    /// A VirtualMachineInstanceReplicaSet: counted here, since its status knows neither availability nor a generation.
    Instances(InstanceSet),
}

/// What the ReplicaSet controller reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSet {
    /// Pods that are neither terminating nor ended.
    pub live: u32,
    /// Those of them that are ready.
    pub ready: u32,
    /// Those that have been ready for minReadySeconds.
    pub available: u32,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: u32,
    /// Whether this was counted after the last change of the spec (`status.observedGeneration`). Before that, a set that was
    /// raised and lowered at once may have more pods than are counted.
    pub current: bool,
    /// Its pods that are neither terminating nor ended, as watched here: for victims and for the quota; never counted.
    pub pods: Vec<Pod>,
}

/// A pod of a ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid: the precondition of a mark.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// Since when it is ready; `None` when it is not.
    pub ready_since: Option<Timestamp>,
    /// The CPU that it uses, in thousandths of a core, where that is known.
    pub usage: Option<i64>,
    /// Whether it is marked as a victim.
    pub marked: bool,
    /// The quota that it has.
    pub quota: PodQuota,
}

impl Pod {
    /// As a candidate for going.
    #[must_use]
    pub fn candidate(&self) -> Candidate<'_> {
        let Self { name, uid: _, created, ready_since, usage, marked: _, quota: _ } = self;
        Candidate { name, created: *created, ready_since: *ready_since, usage: *usage }
    }
}

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

/// The Service of the workload's name.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceFacts {
    /// There is none.
    Absent,
    /// It is ours.
    Owned {
        /// Its uid.
        uid: String,
        /// Its ports, defaults left out.
        ports: Vec<ServicePort>,
        /// What it selects; `None` for what we never write.
        selects: Option<Selects>,
    },
    /// It is somebody else's: never touched.
    Foreign,
}

/// What a Service of ours selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selects {
    /// The replicas of the workload.
    Replicas,
    /// Nothing, while they are frozen.
    Nothing,
}

impl Selects {
    /// What it is to select in a state.
    #[must_use]
    pub fn of(state: State) -> Self {
        match state {
            State::Frozen => Self::Nothing,
            State::Running | State::Stopped => Self::Replicas,
        }
    }
}

/// The counts of a set at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Replicas that are neither terminating nor ended.
    pub live: u32,
    /// Those of them that are ready.
    pub ready: u32,
    /// Those that have been ready for minReadySeconds.
    pub available: u32,
}

impl SetFacts {
    /// What the replicas are.
    #[must_use]
    pub fn hull(&self) -> Hull {
        match self.members {
            Members::Pods(_) => Hull::Container,
            Members::Instances(_) => Hull::VirtualMachine,
        }
    }

    /// `spec.replicas`, or less while a set of virtual machines is paused and known to be: then it makes no replacements and can
    /// be taken at what it has. Whatever ends the pause has to lower it to what it may have then.
    ///
    /// Instances and their set are watched apart, so one may be counted that is not seen yet.
    #[must_use]
    pub fn asked_for(&self) -> u32 {
        match &self.members {
            Members::Instances(set) if set.paused && set.pause_seen => {
                self.replicas.min(set.live_count().max(set.counted))
            }
            Members::Pods(_) | Members::Instances(_) => self.replicas,
        }
    }

    /// How many replicas there are, at `now`.
    #[must_use]
    pub fn counts(&self, now: Timestamp, min_ready_seconds: u32) -> Counts {
        match &self.members {
            Members::Pods(pods) => Counts { live: pods.live, ready: pods.ready, available: pods.available },
            Members::Instances(set) => Counts {
                live: set.live_count(),
                ready: count(set.live().filter(|instance| matches!(instance.stage, Stage::Ready(_)))),
                available: count(
                    set.live()
                        .filter(|instance| available_from(instance, min_ready_seconds).is_some_and(|at| at <= now)),
                ),
            },
        }
    }

    /// Whether what is known of its replicas was counted after the last change of its spec. Instances are counted here.
    #[must_use]
    pub fn is_current(&self) -> bool {
        match &self.members {
            Members::Pods(pods) => pods.current,
            Members::Instances(_) => true,
        }
    }

    /// When the next ready instance becomes available, if that is ahead. The ReplicaSet controller tells by itself.
    #[must_use]
    pub fn next_available(&self, now: Timestamp, min_ready_seconds: u32) -> Option<Timestamp> {
        match &self.members {
            Members::Pods(_) => None,
            Members::Instances(set) => set
                .live()
                .filter_map(|instance| available_from(instance, min_ready_seconds))
                .filter(|at| *at > now)
                .min(),
        }
    }
}

fn available_from(instance: &Instance, min_ready_seconds: u32) -> Option<Timestamp> {
    match instance.stage {
        Stage::Ready(since) => Some(after(since, min_ready_seconds)),
        Stage::Leaving | Stage::Pending | Stage::Scheduling | Stage::Started => None,
    }
}

/// `seconds` after `time`, or the end of time.
#[must_use]
pub fn after(time: Timestamp, seconds: u32) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

pub(crate) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
