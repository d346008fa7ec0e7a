//! What the intake asks of the rest of the operator.

use std::sync::Arc;

use catamaran_protocol::stream::{identity::PodIdentity, snapshot::PodReading};

use super::store::Reading;

/// Whether a pod may be reported by a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It runs there, and has the uid that was reported.
    Here,
    /// It runs on another node, or on none yet.
    OtherNode,
    /// A pod of that name runs there, but it is another one.
    OtherUid,
    /// There is no such pod among those that are watched. It may become known later.
    Unknown,
}

/// Where pods run: only the node of a pod may report it.
pub trait Placement: Send + Sync + 'static {
    /// Looks a pod up. Called for every pod in every report, so it must be quick and must not block.
    fn check(&self, pod: &PodIdentity, node: &str) -> Placed;
}

/// Who is told of new usage.
pub trait Observer: Send + Sync + 'static {
    /// New usage of these pods of one node is in the store. Called once for each report, so it must be quick and must
    /// not block.
    fn reported(&self, pods: &[Arc<PodIdentity>]);

    /// This was read of these pods, all of one node. Called once for each report, before [`Self::reported`].
    fn read(&self, reading: &Reading<'_>, pods: &[PodReading]) {
        let _ = (reading, pods);
    }
}
