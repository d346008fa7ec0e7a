//! The status: conditions after kstatus (Ready, and Reconciling or Stalled only while true), and what is worth an Event.

use catamaran_crds::{ElasticWorkloadStatus, State, StoredHistory, names::WORKLOAD_LABEL};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

pub(crate) mod enforced;
pub(crate) mod out_of_memory;
pub mod scaling;
pub(crate) mod sets;

pub use sets::{FOREIGN_CHANGE, REPLICA_FAILURE};

use crate::{
    facts::{Counts, SetFacts},
    goal::{Goal, Invalid},
    plan::{Announcement, HeldUp, Obstruction, Problem, Resizing},
    status::{enforced::QUOTA_ENFORCED, out_of_memory::OUT_OF_MEMORY},
};

/// The conditions that [`conditions`] makes.
const OF_THE_ROLLOUT: [&str; 3] = ["Ready", "Reconciling", "Stalled"];
/// The conditions of the quota and of replica sets; those of neither list are of scaling.
const OF_THE_QUOTA: [&str; 2] = [QUOTA_ENFORCED, OUT_OF_MEMORY];
/// The conditions of replica sets.
const OF_THE_SETS: [&str; 2] = [REPLICA_FAILURE, FOREIGN_CHANGE];

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
    },
    /// The revision is right, the count is not (yet, or again).
    Scaling,
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
        Progress::Rolling { target, returning } => {
            let way = if returning { "returning to" } else { "rolling out" };
            let text =
                format!("{way} revision {target}: {updated} of {desired} replicas up to date, {available} available");
            ("False", Some("Reconciling"), if returning { "RollingBack" } else { "RollingOut" }, text)
        }
        Progress::Scaling => {
            ("False", Some("Reconciling"), "Scaling", format!("{available} of {desired} replicas are available"))
        }
        Progress::Resizing { resizing } => {
            let (reason, message) = told_of_resize(resizing);
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
pub(crate) fn told_of_resize(resizing: &Resizing) -> (&'static str, String) {
    let Resizing { open, held_up } = resizing;
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

/// Says in the conditions what went wrong with a write of the plan; what the plan itself found wrong goes first. `progress` is
/// [`Progress::Retrying`] or [`Progress::Stopped`].
#[must_use]
pub fn with_problem(
    planned: ElasticWorkloadStatus,
    previous: &ElasticWorkloadStatus,
    progress: &Progress<'_>,
    now: Timestamp,
) -> ElasticWorkloadStatus {
    match planned.conditions.iter().any(|condition| condition.type_ == "Stalled") {
        true => planned,
        false => in_place_of_the_rollout(planned, previous, progress, now),
    }
}

/// Says in the conditions that the spec makes no sense; the plan is for the last one that did.
#[must_use]
pub fn with_invalid(
    planned: ElasticWorkloadStatus,
    previous: &ElasticWorkloadStatus,
    invalid: &Invalid,
    now: Timestamp,
) -> ElasticWorkloadStatus {
    let problem = Problem::Invalid(invalid.clone());
    in_place_of_the_rollout(planned, previous, &Progress::Stopped { problem: &problem }, now)
}

fn in_place_of_the_rollout(
    planned: ElasticWorkloadStatus,
    previous: &ElasticWorkloadStatus,
    progress: &Progress<'_>,
    now: Timestamp,
) -> ElasticWorkloadStatus {
    let generation = planned.observed_generation.unwrap_or_default();
    let mut conditions = conditions(previous, generation, now, progress);
    conditions.extend(planned.conditions.into_iter().filter(|condition| !is_of(&OF_THE_ROLLOUT, condition)));
    ElasticWorkloadStatus { conditions, ..planned }
}

/// The same without what scaling decided, since that was not carried out.
#[must_use]
pub fn undecided(planned: ElasticWorkloadStatus, previous: &ElasticWorkloadStatus) -> ElasticWorkloadStatus {
    let others = [OF_THE_ROLLOUT.as_slice(), &OF_THE_QUOTA, &OF_THE_SETS].concat();
    let of_scaling = |condition: &&Condition| !is_of(&others, condition);
    let kept = planned.conditions.iter().filter(|condition| !of_scaling(condition));
    let conditions = kept.chain(previous.conditions.iter().filter(of_scaling)).cloned().collect();
    ElasticWorkloadStatus { conditions, scaling: previous.scaling.clone(), ..planned }
}

fn is_of(types: &[&str], condition: &Condition) -> bool {
    types.contains(&condition.type_.as_str())
}

/// What changed between two statuses that is worth an Event: a new reason of Ready, not every count; each change of the count
/// that scaling made; a quota that is not held any more; and what was killed for want of memory.
#[must_use]
pub fn announcements(previous: &ElasticWorkloadStatus, status: &ElasticWorkloadStatus) -> Vec<Announcement> {
    let ready =
        |status: &ElasticWorkloadStatus| status.conditions.iter().find(|condition| condition.type_ == "Ready").cloned();
    let stalled = status.conditions.iter().any(|condition| condition.type_ == "Stalled");
    let told = |condition: &Condition| (condition.reason.clone(), stalled.then(|| condition.message.clone()));
    let scaled = |status: &ElasticWorkloadStatus| status.scaling.as_ref().and_then(|s| s.last_scale_time.clone());
    let rescale =
        status.scaling.as_ref().and_then(|scaling| scaling.last_decision.as_ref()).map(|decision| Announcement {
            warning: false,
            reason: "SuccessfulRescale".to_owned(),
            note: format!("{} ({})", decision.message, decision.reason),
        });
    let rescale = rescale.filter(|_| scaled(status).is_some() && scaled(previous) != scaled(status));
    let of_ready = match (ready(previous), ready(status)) {
        (before, Some(after))
            if before.as_ref().map(told) != Some(told(&after))
                || previous.update_revision != status.update_revision =>
        {
            let warning = stalled || [crate::plan::WRITE_FAILING, REPLICA_FAILURE].contains(&after.reason.as_str());
            Some(Announcement { warning, reason: after.reason, note: after.message })
        }
        _ => None,
    };
    let of_others = OF_THE_QUOTA.into_iter().chain([FOREIGN_CHANGE]).filter_map(|type_| {
        let find = |status: &ElasticWorkloadStatus| status.conditions.iter().find(|c| c.type_ == type_).cloned();
        // A resize that is held up is told with Ready.
        let trouble = |condition: &Condition| {
            ["NotEnforced", "OOMKilled", "TemplateChanged"].contains(&condition.reason.as_str())
        };
        let after = find(status).filter(trouble)?;
        let news = find(previous).filter(trouble).is_none_or(|before| before.message != after.message);
        news.then_some(Announcement { warning: true, reason: after.reason, note: after.message })
    });
    rescale.into_iter().chain(of_ready).chain(of_others).collect()
}

/// The status that follows from counts alone, each of the set in the same place; what is known of revisions stays as it was.
pub(crate) fn from_counts(
    desired: &Goal,
    previous: &ElasticWorkloadStatus,
    sets: &[&SetFacts],
    counts: &[Counts],
) -> ElasticWorkloadStatus {
    let count = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let sum = |pick: fn(&Counts) -> u32| count(counts.iter().map(pick).fold(0, u32::saturating_add));
    let of_revision = sets.iter().zip(counts).find(|(set, _)| set.revision == desired.revision);
    ElasticWorkloadStatus {
        observed_generation: Some(desired.generation),
        hull: Some(desired.hull()),
        selector: Some(selector(&desired.name)),
        desired_replicas: count(desired.replicas),
        replicas: sum(|counts| counts.live),
        ready_replicas: sum(|counts| counts.ready),
        available_replicas: sum(|counts| counts.available),
        updated_replicas: of_revision.map_or(0, |(_, counts)| count(counts.live)),
        current_revision: previous.current_revision.clone(),
        update_revision: Some(desired.revision.clone()),
        failed_revision: previous.failed_revision.clone(),
        last_progress_time: None,
        last_good_spec: StoredHistory::default(),
        scaling: None,
        conditions: Vec::new(),
    }
}

/// Since when the rollout has come no further (`DeploymentProgressing`): now, if it just did.
pub(crate) fn progress_since(previous: &ElasticWorkloadStatus, status: &ElasticWorkloadStatus, now: Timestamp) -> Time {
    let old = |status: &ElasticWorkloadStatus| status.replicas - status.updated_replicas;
    let further = previous.update_revision != status.update_revision
        || status.updated_replicas > previous.updated_replicas
        || old(status) < old(previous)
        || status.ready_replicas > previous.ready_replicas
        || status.available_replicas > previous.available_replicas;
    match &previous.last_progress_time {
        Some(since) if !further => since.clone(),
        Some(_) | None => time(now),
    }
}

/// The selector of all replicas, as the scale subresource wants it.
#[must_use]
pub fn selector(workload: &str) -> String {
    format!("{WORKLOAD_LABEL}={workload}")
}

/// Whole seconds, as `metav1.Time` has them: a status read back is equal to the one written.
pub(crate) fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
