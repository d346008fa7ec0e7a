//! What is: the children of one workload and its last status, as the stores of the operator show them. Built once for a
//! plan, and read only.

mod agents;
mod arithmetic;
mod instances;
mod notes;
mod pods;
mod quota;
mod service;
mod sets;
mod trouble;

use catamaran_crds::{ElasticWorkloadStatus, Hull};
use jiff::Timestamp;

pub use agents::{Enforcement, OomKill, QuotaReport};
pub use arithmetic::after;
pub(crate) use arithmetic::count;
pub use instances::{Instance, InstanceSet, Launcher, Pause, Stage};
pub use notes::{Crash, CrashLoop, FrozenNote};
pub use pods::{Pod, PodSet};
pub use quota::{Containers, PodQuota, RefusedResize, Resize, TemplateQuota};
pub use service::{Selects, ServiceFacts, Stray};
pub use sets::{Counts, Members, SetFacts};
pub use trouble::{Cause, Severity, Trouble};

/// Everything that a plan for one workload may look at, besides [`crate::Goal`].
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The time of the observation; the plan crate has no clock of its own.
    pub now: Timestamp,
    /// Since when this process has watched the workload without a break of its clock. What happened before is no delay
    /// of a rollout.
    pub watched_since: Timestamp,
    /// Whether KubeVirt's kinds are served.
    pub kubevirt: KubeVirt,
    /// The replica sets that the workload owns, in any order.
    pub sets: Vec<SetFacts>,
    /// Replica sets that carry a name or label of ours and are not owned by the workload: never touched.
    pub foreign_sets: Vec<(Hull, String)>,
    /// The Service of the workload's name.
    pub service: ServiceFacts,
    /// Pods that would get its traffic and are no replicas.
    pub strays: Vec<Stray>,
    /// The status as last written.
    pub status: ElasticWorkloadStatus,
    /// Whether pods can be resized.
    pub resize: ResizeApi,
    /// Until when usage that is not known yet may still come in, because the operator has begun to listen to node
    /// agents only lately. `None`: what is not known now is not on its way.
    pub usage_due: Option<Timestamp>,
    /// The replicas that run and that a node agent is to hold to their quota, by name.
    pub enforcement: Vec<Enforcement>,
    /// OOM kills, at most the last one of each replica.
    pub out_of_memory: Vec<OomKill>,
    /// Replicas that do not become ready, by name.
    pub troubles: Vec<Trouble>,
}

/// Whether KubeVirt's kinds are served by this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeVirt {
    /// Its CustomResourceDefinitions are there.
    Installed,
    /// They are not (yet).
    Absent,
    /// The API server does not say, or what it said is too old: what runs on KubeVirt is left alone.
    Unknown,
}

/// Whether this cluster resizes pods in place, memory limits downwards included: Kubernetes 1.34 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeApi {
    /// It does.
    Served,
    /// It does not: another quota for CPU or memory is another revision.
    Absent,
}
