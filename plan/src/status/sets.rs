//! What is to be said of the replica sets themselves: that one cannot make replicas, and that somebody else wrote one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    draft::{Context, Draft},
    facts::{Facts, SetFacts},
    plan::{Problem, REPLICA_FAILURE, set_kind},
    status::conditions::{FOREIGN_CHANGE, kept_condition},
};

/// Adds what there is to say of the sets.
pub(crate) fn of_sets(context: &Context<'_>, draft: &mut Draft) {
    draft.status.conditions.extend(conditions(context.facts, context.goal.generation));
}

/// The newest set that wants replicas and cannot make them.
pub(crate) fn failure(facts: &Facts) -> Option<Problem> {
    let failing = facts.sets.iter().filter(|set| !set.deleting && set.replicas > 0 && set.failure.is_some());
    let set = failing.max_by_key(|set| set.number)?;
    Some(Problem::ReplicasRefused {
        kind: set_kind(set.hull()),
        set: set.name.clone(),
        message: set.failure.clone().unwrap_or_default(),
    })
}

/// Both conditions; each is there only while true.
fn conditions(facts: &Facts, generation: i64) -> Vec<Condition> {
    let condition = |type_: &str, reason: &str, message: &str| {
        kept_condition(&facts.status, type_, "True", reason, message, generation, facts.now)
    };
    let failure = failure(facts).map(|problem| condition(REPLICA_FAILURE, "FailedCreate", &problem.message()));
    let foreign = facts.sets.iter().filter(|set| !set.deleting && set.replicas > 0 && set.changed_by.is_some());
    let foreign =
        foreign.max_by_key(|set| set.number).map(|set| condition(FOREIGN_CHANGE, "TemplateChanged", &changed(set)));
    failure.into_iter().chain(foreign).collect()
}

fn changed(set: &SetFacts) -> String {
    format!(
        "the template of {} {} was changed by {}, not by the spec; its replicas are replaced by ones of the spec; change the ElasticWorkload instead",
        set_kind(set.hull()),
        set.name,
        set.changed_by.as_deref().unwrap_or("somebody else")
    )
}
