//! What a plan is: data alone, and how it reads. What fills it in is in [`steps`](crate::steps) and
//! [`status`](crate::status).

mod action;
mod problem;
mod reason;

use std::fmt;

use catamaran_crds::ElasticWorkloadStatus;
use jiff::Timestamp;

use crate::goal::Bounds;

pub use action::{Action, NewSet, NoteChange, SetQuota, SetReference, SetUpdate, SpecChange, set_kind};
pub(crate) use problem::WRITE_FAILING;
pub use problem::{ChangedPod, DEADLINE_EXCEEDED, HeldUp, Obstruction, Problem, REPLICA_FAILURE, Resizing};
pub use reason::{Infeasible, Move, Next, Reason, Wait};

/// What to write for one workload, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The writes, in order.
    pub steps: Vec<Step>,
    /// What is waited for.
    pub waits: Vec<Wait>,
    /// The bounds that the steps keep; none when nothing could be planned.
    pub bounds: Option<Bounds>,
    /// The status that goes with them.
    pub status: ElasticWorkloadStatus,
    /// What is worth an Event.
    pub announcements: Vec<Announcement>,
    /// When to plan again if nothing is seen before.
    pub requeue_at: Option<Timestamp>,
}

/// One write and its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The write.
    pub action: Action,
    /// Its reason.
    pub why: Reason,
}

/// Something to tell in an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Whether somebody should look.
    pub warning: bool,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub note: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, because: {}", self.action, self.why)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = &self.status;
        writeln!(
            f,
            "wanted {}, existing {}, of the wanted revision {}, ready {}, available {}",
            status.desired_replicas,
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas
        )?;
        if let Some(bounds) = self.bounds {
            writeln!(f, "bounds: at least {} available, at most {} in all", bounds.min_available, bounds.max_total)?;
        }
        if self.steps.is_empty() {
            writeln!(f, "nothing to write")?;
        }
        for step in &self.steps {
            writeln!(f, "- {step}")?;
        }
        for wait in &self.waits {
            writeln!(f, "~ waiting: {wait}")?;
        }
        for condition in &status.conditions {
            writeln!(f, "= {} {} {}: {}", condition.type_, condition.status, condition.reason, condition.message)?;
        }
        if let Some(at) = self.requeue_at {
            writeln!(f, "next look at {at}")?;
        }
        Ok(())
    }
}
