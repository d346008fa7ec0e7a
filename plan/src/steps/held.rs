//! The count where nothing decides it: as the spec says, and as it runs where the spec does not say. A pause of scaling
//! is never an outage.

use catamaran_autoscale::{History, policy::Mode, toward::toward};
use catamaran_crds::{ElasticWorkloadStatus, HeldReplicas, MovingReplicas, State, history::StoredHistory};
use jiff::Timestamp;

use crate::{
    decision::Scaled,
    facts::{Facts, SetFacts},
    goal::Goal,
    status::scaling::noted_count,
};

/// A replica count, and what has to be remembered of how it came about.
#[derive(Default)]
pub(crate) struct Count {
    pub(crate) replicas: u32,
    pub(crate) held: Option<HeldReplicas>,
    pub(crate) moving: Option<MovingReplicas>,
    /// When it moves on.
    pub(crate) again: Option<Timestamp>,
}

/// How many replicas there are to be.
pub(crate) fn count(goal: &Goal, facts: &Facts, sets: &[&SetFacts], scaled: Option<&Scaled>) -> Count {
    let before = facts.status.held.clone();
    let moving = facts.status.moving.clone();
    match goal.state {
        // What was held, or on its way, goes on afterwards.
        State::Stopped => Count { replicas: 0, held: before, moving, again: None },
        State::Frozen => Count { replicas: noted(sets).unwrap_or(0), held: before, moving, again: None },
        State::Running => match (goal.mode(), scaled) {
            (Some(Mode::Auto), Some(scaled)) => Count { replicas: unsigned(scaled.decision.to), ..Count::default() },
            // Not decided yet.
            (Some(Mode::Auto), None) => {
                let replicas = present(sets, &facts.status).or(goal.replicas).unwrap_or(1);
                Count { replicas, held: before, ..Count::default() }
            }
            (Some(Mode::Hold), _) => hold(goal.replicas, before, present(sets, &facts.status)),
            (Some(Mode::Recommend | Mode::Off) | None, _) => rest(goal, facts, present(sets, &facts.status)),
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
    let held = Some(HeldReplicas { replicas: signed(replicas), spec: set });
    Count { replicas, held, ..Count::default() }
}

/// Otherwise it is what the spec says, and stays where that says nothing. A new workload begins with 1.
fn rest(goal: &Goal, facts: &Facts, present: Option<u32>) -> Count {
    let before = facts.status.held.as_ref();
    if let Some(wanted) = goal.replicas {
        return moving(goal, facts, present, wanted).unwrap_or(Count { replicas: wanted, ..Count::default() });
    }
    let held = before.map(|before| unsigned(before.replicas));
    let replicas = held.or(present).unwrap_or(1);
    let note = HeldReplicas { replicas: signed(replicas), spec: None };
    Count { replicas, held: (replicas != 1).then_some(note), ..Count::default() }
}

/// The way from the count that scaling had made to that of the spec, by the rates of `behavior`; `None` without one.
fn moving(goal: &Goal, facts: &Facts, present: Option<u32>, wanted: u32) -> Option<Count> {
    let behavior = goal.scaling.as_ref()?.behavior.as_ref()?;
    let (from, mut history) = way_so_far(&facts.status, signed(present?), signed(wanted))?;
    let step = toward(behavior, &mut history, from, signed(wanted), facts.now);
    let moving = MovingReplicas { replicas: step.replicas, history: StoredHistory::store(&history) };
    let moving = (step.replicas != signed(wanted)).then_some(moving);
    Some(Count { replicas: unsigned(step.replicas), held: None, moving, again: step.again })
}

/// Where it is, and the changes on it so far: it began with the count of scaling, or with that of mode Hold. A count
/// that is set later, with scaling off, is nothing that scaling had a part in.
fn way_so_far(status: &ElasticWorkloadStatus, present: i32, wanted: i32) -> Option<(i32, History)> {
    if let Some(moving) = &status.moving {
        return Some((moving.replicas, moving.history.read().unwrap_or_default()));
    }
    if let Some(held) = &status.held {
        return held.spec.is_some().then(|| (held.replicas, History::default()));
    }
    let scaling = status.scaling.as_ref()?;
    // The write of a first step may have been the last of an operator: it counts as made now.
    let (low, high) = (scaling.desired_replicas.min(wanted), scaling.desired_replicas.max(wanted));
    (low..=high).contains(&present).then(|| (present, scaling.history.read().unwrap_or_default()))
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
