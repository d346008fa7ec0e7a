//! The conditions of the rollout, after kstatus: Ready, and Reconciling or Stalled only while true.

use catamaran_crds::{ElasticWorkloadStatus, State};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    facts::Trouble,
    plan::{HeldUp, Obstruction, Problem, REPLICA_FAILURE, Resizing},
};

/// Whether the kernels of the nodes hold the replicas to their quota.
pub const QUOTA_ENFORCED: &str = "QuotaEnforced";
/// Whether processes of replicas were killed lately by the OOM killer.
pub const OUT_OF_MEMORY: &str = "OutOfMemory";
/// The conditions that [`conditions`] makes.
pub(crate) const OF_THE_ROLLOUT: [&str; 3] = ["Ready", "Reconciling", "Stalled"];
/// The conditions of the quota; those of none of these lists are of scaling.
pub(crate) const OF_THE_QUOTA: [&str; 2] = [QUOTA_ENFORCED, OUT_OF_MEMORY];
/// Replicas run of a template that somebody else wrote.
pub const FOREIGN_CHANGE: &str = "ForeignChange";
/// The conditions of replica sets.
pub(crate) const OF_THE_SETS: [&str; 2] = [REPLICA_FAILURE, FOREIGN_CHANGE];

/// Where a workload stands; the conditions say it.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// The spec is in effect.
    Complete {
        /// Running or stopped.
        state: State,
    },
    /// A revision takes over.
    Rolling {
        /// Which.
        target: &'a str,
        /// Whether it is the way back from a failed one.
        returning: bool,
        /// What keeps one of its replicas from becoming ready.
        trouble: Option<&'a Trouble>,
    },
    /// The revision is right, the count is not (yet, or again).
    Scaling {
        /// What keeps one of the replicas from becoming ready.
        trouble: Option<&'a Trouble>,
    },
    /// Revision and count are right, replicas do not all have the quota yet.
    Resizing {
        /// What is left.
        resizing: &'a Resizing,
    },
    /// A change waits for `rollout.paused` to end.
    Paused,
    /// The user froze it.
    Frozen {
        /// Replicas that there are.
        replicas: u32,
        /// Replicas that are not frozen yet.
        left: u32,
        /// Whether a change of the template or the quota waits.
        change_waits: bool,
    },
    /// A write fails, and is tried again.
    Retrying {
        /// Which, and how.
        problem: &'a Problem,
    },
    /// It cannot go on by itself.
    Stopped {
        /// Why.
        problem: &'a Problem,
    },
}

/// A [`Progress`] with the counts for its message.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    progress: Progress<'a>,
    counts: Option<(i32, i32, i32)>,
}

impl<'a> Progress<'a> {
    /// Adds the counts of a status.
    #[must_use]
    pub fn with(self, status: &ElasticWorkloadStatus) -> Counted<'a> {
        Counted {
            progress: self,
            counts: Some((status.desired_replicas, status.updated_replicas, status.available_replicas)),
        }
    }
}

impl<'a> From<&Progress<'a>> for Counted<'a> {
    fn from(progress: &Progress<'a>) -> Self {
        Self { progress: *progress, counts: None }
    }
}

impl<'a> From<&Counted<'a>> for Counted<'a> {
    fn from(counted: &Counted<'a>) -> Self {
        *counted
    }
}

/// The conditions for a progress. A transition time stays while the condition's status stays.
#[must_use]
pub fn conditions<'a>(
    previous: &ElasticWorkloadStatus,
    generation: i64,
    now: Timestamp,
    progress: impl Into<Counted<'a>>,
) -> Vec<Condition> {
    let Counted { progress, counts } = progress.into();
    let (desired, updated, available) = counts.unwrap_or_default();
    let (ready, extra, reason, message) = match progress {
        // The only way to get there while frozen: replicas of a revision with probes have just gone.
        Progress::Complete { state: State::Running | State::Frozen } => {
            ("True", None, "Available", format!("{available} of {desired} replicas are available and up to date"))
        }
        Progress::Complete { state: State::Stopped } => {
            ("True", None, "Stopped", "no replicas run (spec.state: Stopped)".to_owned())
        }
        Progress::Rolling { target, returning, trouble } => {
            let way = if returning { "returning to" } else { "rolling out" };
            let text =
                format!("{way} revision {target}: {updated} of {desired} replicas up to date, {available} available");
            let reason = if returning { "RollingBack" } else { "RollingOut" };
            ("False", Some("Reconciling"), reason, with_trouble(text, trouble))
        }
        Progress::Scaling { trouble } => {
            let text = format!("{available} of {desired} replicas are available");
            ("False", Some("Reconciling"), "Scaling", with_trouble(text, trouble))
        }
        Progress::Resizing { resizing } => {
            let (reason, message) = resize_message(resizing);
            ("False", Some("Reconciling"), reason, message)
        }
        Progress::Paused => (
            "False",
            None,
            "Paused",
            "a change of the template waits while spec.rollout.paused is true; set it to false to roll it out"
                .to_owned(),
        ),
        Progress::Frozen { replicas, left: 0, change_waits } => {
            let waits =
                if change_waits { "; a change of the template or the quota waits for spec.state: Running" } else { "" };
            let text = match replicas {
                0 => "there is no replica to freeze (spec.state: Frozen)".to_owned(),
                _ => format!(
                    "all {replicas} replicas stay as they are and are told to freeze (spec.state: Frozen){waits}"
                ),
            };
            ("True", None, "Frozen", text)
        }
        Progress::Frozen { replicas, left, change_waits: _ } => {
            ("False", Some("Reconciling"), "Freezing", format!("{left} of {replicas} replicas have yet to be frozen"))
        }
        Progress::Retrying { problem } => ("False", Some("Reconciling"), problem.reason(), problem.message()),
        Progress::Stopped { problem } => ("False", Some("Stalled"), problem.reason(), problem.message()),
    };
    let condition =
        |type_: &str, status: &str| kept_condition(previous, type_, status, reason, &message, generation, now);
    let mut conditions = vec![condition("Ready", ready)];
    conditions.extend(extra.map(|type_| condition(type_, "True")));
    conditions
}

/// The reason and the message while replicas get a changed quota. All of these go on by themselves, so none is Stalled.
pub(crate) fn resize_message(resizing: &Resizing) -> (&'static str, String) {
    let Resizing { open, held_up, changed: _ } = resizing;
    let Some(HeldUp { pod, by }) = held_up else {
        return ("Resizing", format!("{open} replicas do not have the changed quota yet; nothing restarts"));
    };
    let text = |what: String| format!("{open} replicas do not have the changed quota yet; {what}");
    match by {
        Obstruction::Deferred(message) => (
            "ResizeDeferred",
            text(format!(
                "the node of Pod {pod} has no room for it now ({message}); the kubelet tries again by itself, or delete the pod to have it placed anew"
            )),
        ),
        Obstruction::Failing(message) => (
            "ResizeFailing",
            text(format!("the kubelet fails to resize Pod {pod} ({message}) and tries again by itself")),
        ),
        Obstruction::Overruled => (
            "ResizeOverruled",
            text(format!(
                "Pod {pod} was resized and has other requests or limits again; find what changes it (an admission webhook, a VerticalPodAutoscaler) and exempt it"
            )),
        ),
    }
}

fn with_trouble(text: String, trouble: Option<&Trouble>) -> String {
    match trouble {
        Some(trouble) => format!("{text}; {trouble}"),
        None => text,
    }
}

/// A condition; its transition time stays while its status stays.
pub(crate) fn kept_condition(
    previous: &ElasticWorkloadStatus,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    generation: i64,
    now: Timestamp,
) -> Condition {
    let kept = previous
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_ && condition.status == status)
        .map(|condition| condition.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: kept.unwrap_or_else(|| time(now)),
    }
}

/// Whole seconds, as `metav1.Time` has them: a status read back is equal to the one written.
pub(crate) fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
