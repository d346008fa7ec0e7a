//! The plan for one workload: which writes bring it closer to what is wanted, and why.

use catamaran_crds::ElasticWorkloadStatus;

use crate::{
    decision::Scaled,
    draft::{Draft, Pass},
    facts::Facts,
    goal::{Goal, Invalid},
    plan::{Plan, Problem},
    status::{self, Progress},
    steps::{counts, freeze, history, in_place, service, sets, target, unseen},
};

/// The passes of a plan that goes towards its target: the order of the steps is theirs.
const ROLLOUT: &[Pass] = &[
    target::report_obstacle,
    counts::share_out,
    sets::change,
    target::create,
    service::apply,
    service::expel,
    in_place::wait,
    history::delete,
    target::wait_for_replicas,
    target::report_deadline,
    status::of_rollout,
    status::of_scaling,
    status::of_quota,
    status::of_sets,
    status::announce,
];

/// The passes while all stays as it is. Traffic ends first.
const FREEZE: &[Pass] =
    &[service::apply, freeze::freeze, status::of_frozen, status::of_scaling, status::of_quota, status::announce];

/// Plans the next writes for a workload. Total and deterministic.
#[must_use]
pub fn plan(goal: &Goal, facts: &Facts, scaled: Option<&Scaled>) -> Plan {
    if unseen::may_have_machines(goal, facts) {
        return unseen::leave_alone(goal, facts);
    }
    let context = target::context(goal, facts, scaled);
    let passes = if freeze::holds(&context) { FREEZE } else { ROLLOUT };
    let mut draft = Draft::default();
    for pass in passes {
        pass(&context, &mut draft);
    }
    draft.into_plan(context.bounds)
}

/// Plans for a workload that cannot be resolved, and of which no spec is known that could: nothing is touched, the
/// condition says why, and the counts are those that there are.
#[must_use]
pub fn plan_invalid(generation: i64, invalid: &Invalid, facts: &Facts) -> Plan {
    let (previous, now) = (&facts.status, facts.now);
    let problem = Problem::Invalid(invalid.clone());
    // What minReadySeconds is, only the spec knows.
    let counts: Vec<_> = facts.sets.iter().map(|set| set.counts(now, 0)).collect();
    let count =
        |counts: &mut dyn Iterator<Item = u32>| i32::try_from(counts.fold(0, u32::saturating_add)).unwrap_or(i32::MAX);
    let updated = facts.sets.iter().zip(&counts);
    let updated = updated.filter(|(set, _)| Some(&set.revision) == previous.update_revision.as_ref());
    let status = ElasticWorkloadStatus {
        observed_generation: Some(generation),
        replicas: count(&mut counts.iter().map(|counts| counts.live)),
        ready_replicas: count(&mut counts.iter().map(|counts| counts.ready)),
        available_replicas: count(&mut counts.iter().map(|counts| counts.available)),
        updated_replicas: count(&mut updated.map(|(_, counts)| counts.live)),
        conditions: status::conditions(previous, generation, now, &Progress::Stopped { problem: &problem }),
        ..previous.clone()
    };
    Plan {
        steps: Vec::new(),
        waits: Vec::new(),
        bounds: None,
        announcements: status::announcements(previous, &status),
        status,
        requeue_at: None,
    }
}
