//! The status when a write of the plan failed, or the spec makes no sense.

use catamaran_crds::ElasticWorkloadStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    goal::Invalid,
    plan::Problem,
    status::conditions::{OF_THE_QUOTA, OF_THE_ROLLOUT, OF_THE_SETS, Progress, conditions},
};

/// Says in the conditions what went wrong with a write of the plan; what the plan itself found wrong goes first.
/// `progress` is [`Progress::Retrying`] or [`Progress::Stopped`].
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
