//! What node agents and kubelets report of replicas, besides what they use.

use jiff::Timestamp;

/// A pod that runs and has the quota annotation, and what its node's agent says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// Its name.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// What the agent says.
    pub told: QuotaReport,
}

/// What an agent says of a pod's quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaReport {
    /// Nothing, or it has fallen silent.
    Nothing,
    /// It cannot be said yet, since: no container runs, or the agent has not read the present annotation.
    NotYet(String),
    /// The kernel holds all of it.
    Held,
    /// The kernel does not hold it as asked, since.
    NotHeld(String),
}

/// The kernel's OOM killer killed a process of a replica.
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
