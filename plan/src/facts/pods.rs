//! ReplicaSets and their pods.

use catamaran_autoscale::victims::Candidate;
use jiff::Timestamp;

use crate::{
    facts::quota::{PodQuota, RefusedResize},
    goal::quota::Quota,
};

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
    /// Whether this was counted after the last change of the spec (`status.observedGeneration`). Before that, a set
    /// that was raised and lowered at once may have more pods than are counted.
    pub current: bool,
    /// Since when marks of victims are asked for that are not all seen; this process remembers it.
    pub marks_asked: Option<Timestamp>,
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
    /// What this process asked its resize for last.
    pub asked: Option<Quota>,
    /// What the API server refused last, since its node can never do it.
    pub refused: Option<RefusedResize>,
}

impl Pod {
    /// As a candidate for going.
    #[must_use]
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate { name: &self.name, created: self.created, ready_since: self.ready_since, usage: self.usage }
    }
}
