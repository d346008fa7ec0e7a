//! What an agent read at one moment.

use std::{sync::Arc, time::Duration};

use crate::{Counters, identity::PodIdentity};

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

/// The counters of a pod's containers.
#[derive(Clone, Debug, PartialEq)]
pub struct PodReading {
    pod: Arc<PodIdentity>,
    counters: Vec<Counters>,
}

impl PodReading {
    /// The counters of a pod's containers, in the order of [`PodIdentity::containers`]. `None` when there are not as many
    /// counters as containers.
    #[must_use]
    pub fn new(pod: Arc<PodIdentity>, counters: Vec<Counters>) -> Option<Self> {
        (pod.containers().len() == counters.len()).then_some(Self { pod, counters })
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
}
