//! What an agent read at one moment.

use std::{sync::Arc, time::Duration};

use crate::stream::{
    Counters,
    identity::PodIdentity,
    proto::{PodTotals, QuotaState},
};

/// Everything that was read on a node at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When, by a clock that never steps; CLOCK_MONOTONIC on a real node.
    pub taken: Duration,
    /// When, by the wall clock, in microseconds since 1970.
    pub unix_usec: i64,
    /// All pods of the node. One that is not in here is gone.
    pub pods: Vec<PodReading>,
}

/// The counters of a pod's containers, and what is known of the pod as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct PodReading {
    pod: Arc<PodIdentity>,
    counters: Vec<Counters>,
    totals: Option<PodTotals>,
    quota: Option<QuotaState>,
}

impl PodReading {
    /// The counters of a pod's containers, in the order of [`PodIdentity::containers`]. `None` when there are not as
    /// many counters as containers.
    #[must_use]
    pub fn new(pod: Arc<PodIdentity>, counters: Vec<Counters>) -> Option<Self> {
        (pod.containers().len() == counters.len()).then_some(Self { pod, counters, totals: None, quota: None })
    }

    /// The same with the readings of the pod's own cgroup, where there are some, and with what became of its quota,
    /// where it has one.
    #[must_use]
    pub fn with(self, totals: Option<PodTotals>, quota: Option<QuotaState>) -> Self {
        Self { totals, quota, ..self }
    }

    /// The pod.
    #[must_use]
    pub fn pod(&self) -> &Arc<PodIdentity> {
        &self.pod
    }

    /// One for each container of the pod, in its order.
    #[must_use]
    pub fn counters(&self) -> &[Counters] {
        &self.counters
    }

    /// The readings of the pod's own cgroup.
    #[must_use]
    pub fn totals(&self) -> Option<&PodTotals> {
        self.totals.as_ref()
    }

    /// What became of the pod's quota annotation.
    #[must_use]
    pub fn quota(&self) -> Option<&QuotaState> {
        self.quota.as_ref()
    }
}
