//! The count where nothing decides it: as the spec says, and as it runs where the spec does not say. A pause of scaling
//! is never an outage.

use catamaran_autoscale::policy::Mode;
use catamaran_crds::{ElasticWorkloadStatus, HeldReplicas, State};

use crate::{
    decision::Scaled,
    facts::{Facts, SetFacts},
    goal::Goal,
    status::scaling::noted_count,
};

/// A replica count, and what has to be remembered of how it came about.
pub(crate) struct Count {
    pub(crate) replicas: u32,
    pub(crate) held: Option<HeldReplicas>,
}

/// How many replicas there are to be.
pub(crate) fn count(goal: &Goal, facts: &Facts, sets: &[&SetFacts], scaled: Option<&Scaled>) -> Count {
    let before = facts.status.held.clone();
    match goal.state {
        // What was held goes on afterwards.
        State::Stopped => Count { replicas: 0, held: before },
        State::Frozen => Count { replicas: noted(sets).unwrap_or(0), held: before },
        State::Running => match (goal.mode(), scaled) {
            (Some(Mode::Auto), Some(scaled)) => Count { replicas: unsigned(scaled.decision.to), held: None },
            // Not decided yet.
            (Some(Mode::Auto), None) => {
                let replicas = present(sets, &facts.status).or(goal.replicas).unwrap_or(1);
                Count { replicas, held: before }
            }
            (Some(Mode::Hold), _) => hold(goal.replicas, before, present(sets, &facts.status)),
            (Some(Mode::Recommend | Mode::Off) | None, _) => rest(goal.replicas, before, present(sets, &facts.status)),
        },
    }
}

/// In mode Hold the count stays, unless the user sets another one.
fn hold(spec: Option<u32>, before: Option<HeldReplicas>, present: Option<u32>) -> Count {
    let set = spec.map(signed);
    let replicas = match (&before, spec) {
        (Some(before), Some(wanted)) if before.spec != set => wanted,
        (Some(before), _) => unsigned(before.replicas),
        (None, _) => present.or(spec).unwrap_or(1),
    };
    Count { replicas, held: Some(HeldReplicas { replicas: signed(replicas), spec: set }) }
}

/// Otherwise it is what the spec says, and stays where that says nothing. A new workload begins with 1.
fn rest(spec: Option<u32>, before: Option<HeldReplicas>, present: Option<u32>) -> Count {
    if let Some(replicas) = spec {
        return Count { replicas, held: None };
    }
    let held = before.map(|before| unsigned(before.replicas));
    let replicas = held.or(present).unwrap_or(1);
    let note = HeldReplicas { replicas: signed(replicas), spec: None };
    Count { replicas, held: (replicas != 1).then_some(note) }
}

/// The count that there is: what the sets were last scaled for, or what scaling wanted when it took away the last one.
fn present(sets: &[&SetFacts], status: &ElasticWorkloadStatus) -> Option<u32> {
    noted(sets).or_else(|| noted_count(status).map(unsigned))
}

/// What the sets with replicas were last scaled for.
fn noted(sets: &[&SetFacts]) -> Option<u32> {
    let active = || sets.iter().filter(|set| set.replicas > 0 && !set.deleting);
    let asked = || active().map(|set| set.replicas).reduce(u32::saturating_add);
    active().filter_map(|set| set.desired_replicas).max().or_else(asked)
}

fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn unsigned(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(0)
}
