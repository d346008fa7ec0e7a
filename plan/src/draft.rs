//! What passes read and what they fill in.

use catamaran_crds::{ElasticWorkloadStatus, HeldReplicas, MovingReplicas, State};
use jiff::Timestamp;

use crate::{
    decision::Scaled,
    facts::{Counts, Facts, SetFacts, Trouble},
    goal::{Bounds, Goal},
    plan::{Action, Announcement, Infeasible, Next, Plan, Problem, Reason, Resizing, Step, Wait},
};

/// One pass over a draft. What it decides on is in the context; passes before it have filled in the draft.
pub(crate) type Pass = fn(&Context<'_>, &mut Draft);

/// What a plan is made of: the same for all passes.
pub(crate) struct Context<'a> {
    pub(crate) goal: &'a Goal,
    pub(crate) facts: &'a Facts,
    /// What scaling decided, where it decides.
    pub(crate) scaled: Option<&'a Scaled>,
    /// How many replicas are wanted now.
    pub(crate) replicas: u32,
    /// What is remembered of it where nothing decides it.
    pub(crate) held: Option<HeldReplicas>,
    /// What is remembered of it while it goes to spec.replicas.
    pub(crate) moving: Option<MovingReplicas>,
    /// When it goes on.
    pub(crate) again: Option<Timestamp>,
    /// The bounds at that count.
    pub(crate) bounds: Bounds,
    /// The replica sets from the oldest to the newest.
    pub(crate) sets: Vec<&'a SetFacts>,
    /// The counts of each of them.
    pub(crate) counts: Vec<Counts>,
    pub(crate) target: Target,
}

/// The revision to bring about.
pub(crate) struct Target {
    /// The name of the revision that the spec wants.
    pub(crate) wanted: String,
    /// Why the newest set that is like it is not kept.
    pub(crate) infeasible: Option<Infeasible>,
    /// The revision that is brought about: the wanted one, or the one to return to.
    pub(crate) revision: String,
    /// The place of its set, if there is one.
    pub(crate) existing: Option<usize>,
    /// Why that set can neither be made nor changed.
    pub(crate) obstacle: Option<Obstacle>,
    pub(crate) deadline: Deadline,
}

/// What keeps the target's set from being made or changed.
pub(crate) enum Obstacle {
    Deleting { name: String },
    KubeVirtAbsent,
    NameTaken { kind: &'static str, name: String },
}

/// How a rollout stands to its deadline.
pub(crate) enum Deadline {
    /// There is nothing to be late for.
    None,
    /// Without progress since then, and late after `until`.
    Running { since: Timestamp, until: Timestamp },
    /// It was missed, and there is no revision to return to.
    Missed { since: Timestamp },
    /// It was missed, and an earlier revision is brought about instead.
    Returned,
}

impl Context<'_> {
    pub(crate) fn now(&self) -> Timestamp {
        self.facts.now
    }

    pub(crate) fn min_ready_seconds(&self) -> u32 {
        self.goal.rollout.min_ready_seconds
    }

    /// What keeps a replica of the target from becoming ready.
    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        let set = self.sets.get(self.target.existing?)?;
        self.facts.troubles.iter().find(|trouble| trouble.set == set.uid)
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.target.obstacle.is_some()
    }

    /// Whether the revision that the spec wants is brought about, and not one to return to.
    pub(crate) fn is_wanted(&self) -> bool {
        self.target.revision == self.target.wanted
    }

    /// A set whose pods its controller has not counted since its last change. A plan on old counts could add to pods
    /// that are not counted yet.
    pub(crate) fn uncounted(&self) -> Option<&SetFacts> {
        self.sets.iter().find(|set| !set.is_current()).copied()
    }

    /// Whether the target's set is to be made.
    pub(crate) fn creates(&self) -> bool {
        self.target.existing.is_none()
            && !self.is_blocked()
            && self.uncounted().is_none()
            && !self.goal.rollout.paused
            && self.replicas > 0
    }

    /// The next place in the history.
    pub(crate) fn next_number(&self) -> u64 {
        self.sets.iter().map(|set| set.number).max().unwrap_or(0).saturating_add(1)
    }

    pub(crate) fn live(&self) -> u32 {
        self.counts.iter().map(|counts| counts.live).fold(0, u32::saturating_add)
    }

    pub(crate) fn available(&self) -> u32 {
        self.counts.iter().map(|counts| counts.available).fold(0, u32::saturating_add)
    }

    /// Whether the target has all replicas, available, and no other set has any.
    pub(crate) fn counts_are_right(&self) -> bool {
        let counts = self.target.existing.map(|index| self.counts[index]).unwrap_or_default();
        let asked = self.target.existing.map_or(0, |index| self.sets[index].replicas);
        [self.live(), counts.live, counts.available, asked].iter().all(|count| *count == self.replicas)
            && !self.is_blocked()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.counts_are_right() && self.uncounted().is_none()
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.goal.state == State::Frozen
    }
}

/// A plan in the making.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) steps: Vec<Step>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) status: ElasticWorkloadStatus,
    pub(crate) announcements: Vec<Announcement>,
    /// The size of each set, and of the one to be made after them.
    pub(crate) sizes: Vec<Next>,
    /// What is left to do until all replicas of the target have their quota.
    pub(crate) resizing: Resizing,
    /// Replicas that are to be frozen and are not known to be.
    pub(crate) unfrozen: u32,
    /// Whether a change of the template or the quota waits for the end of the frozen state.
    pub(crate) change_waits: bool,
    requeue_at: Option<Timestamp>,
}

impl Draft {
    pub(crate) fn step(&mut self, action: Action, why: Reason) {
        self.steps.push(Step { action, why });
    }

    pub(crate) fn wait(&mut self, wait: Wait) {
        self.look_again(wait.until());
        self.waits.push(wait);
    }

    /// Asks for the next plan at the soonest of all the times that passes name.
    pub(crate) fn look_again(&mut self, at: Option<Timestamp>) {
        self.requeue_at = self.requeue_at.into_iter().chain(at).min();
    }

    pub(crate) fn into_plan(self, bounds: Bounds) -> Plan {
        let Self { steps, waits, status, announcements, requeue_at, .. } = self;
        Plan { steps, waits, bounds: Some(bounds), status, announcements, requeue_at }
    }
}
