//! How a VirtualMachineInstanceReplicaSet is scaled.
//!
//! Left to itself it takes random instances on scale-in. So every scale-in goes through: pause, delete the chosen, then
//! lower and unpause in one write. Each step is found again from what is observed, so a crash between any two of them
//! costs nothing. virt-controller works from a cache: its own status tells when it has seen the pause (condition
//! ReplicaPaused) and the deletions (status.replicas); going on earlier would make it replace, or delete at random.

use catamaran_autoscale::victims::{Candidate, is_open};
use jiff::Timestamp;

use crate::{
    draft::{Context, Draft},
    facts::{Instance, InstanceSet, Selects, ServiceFacts, SetFacts, Stage},
    plan::{Action, Move, Next, Problem, Reason, SetReference, SetUpdate, Wait},
    steps::{
        crash_loop::{self, Verdict},
        depart, freeze, victims,
    },
};

/// Brings a set of virtual machines to its next size. `update` carries what else is to be noted on it.
pub(crate) fn scale(
    context: &Context<'_>,
    draft: &mut Draft,
    set: &SetFacts,
    instances: &InstanceSet,
    mut update: SetUpdate,
    next: Next,
) {
    let thaw = freeze::thaw_instances(instances, context.now());
    update.notes.frozen = thaw.note;
    draft.steps.extend(thaw.steps);
    draft.look_again(thaw.look_again);
    let verdict = crash_loop::judge(instances, next.asked, context.now());
    draft.look_again(verdict.look_again);
    let scaling = Scaling { context, set, instances, wanted: next.asked, verdict };
    let phase = scaling.phase();
    let why = scaling.fill_in(&mut update, &phase, next.why);
    if !update.is_empty() {
        draft.step(Action::UpdateSet(Box::new(update)), why);
    }
    let until = scaling.depart(draft, &phase);
    scaling.report_crashes(draft);
    if let Some(wait) = scaling.wait(&phase, until) {
        draft.wait(wait);
    }
}

/// How far a scale-in is.
enum Phase<'a> {
    /// None is under way.
    None,
    /// The set has to be paused, and seen to be.
    Pause,
    /// The choice is put off until usage is known.
    AwaitUsage(Timestamp),
    /// These go; none while those that went before are not counted out.
    Delete(Vec<&'a Instance>),
    /// All that was to go is gone.
    Lower,
}

struct Scaling<'a> {
    context: &'a Context<'a>,
    set: &'a SetFacts,
    instances: &'a InstanceSet,
    wanted: u32,
    verdict: Verdict,
}

impl<'a> Scaling<'a> {
    fn phase(&self) -> Phase<'a> {
        let (instances, live) = (self.instances, self.instances.live_count());
        if self.wanted >= self.set.replicas && !(instances.paused && live > self.wanted) {
            return Phase::None;
        }
        if !instances.pause_seen || !instances.paused {
            return Phase::Pause;
        }
        if live > self.wanted
            && let Some(until) = self.usage_due()
        {
            return Phase::AwaitUsage(until);
        }
        if live > self.wanted && instances.counted == live {
            return Phase::Delete(self.choose(live - self.wanted));
        }
        if live > self.wanted || instances.counted != live {
            return Phase::Delete(Vec::new());
        }
        Phase::Lower
    }

    /// Lets the chosen go, out of the Service first. Until when that is waited for.
    fn depart(&self, draft: &mut Draft, phase: &Phase<'_>) -> Option<Timestamp> {
        match phase {
            Phase::None => draft.steps.extend(depart::stay(self.instances, &[])),
            Phase::Delete(chosen) if !chosen.is_empty() => {
                let selects = &self.context.facts.service;
                let has_service = matches!(selects, ServiceFacts::Owned { selects: Some(Selects::Replicas), .. });
                let victims = self.context.goal.victims;
                let departure = depart::depart(self.instances, chosen, victims, has_service, self.context.now());
                draft.steps.extend(departure.steps);
                return departure.until;
            }
            Phase::Pause | Phase::AwaitUsage(_) | Phase::Delete(_) | Phase::Lower => {}
        }
        None
    }

    /// Until when the choice may be put off: while usage that it depends on is on its way.
    fn usage_due(&self) -> Option<Timestamp> {
        let until = self.context.facts.usage_due?;
        let candidates: Vec<Candidate<'_>> = self.instances.live().map(Instance::candidate).collect();
        is_open(self.context.goal.victims, &candidates).then_some(until)
    }

    /// The instances to go: those that are least far first, ready ones as the workload's `victims` says. One that is
    /// leaving the Service comes back if another one got unready meanwhile: that one serves nobody.
    fn choose(&self, count: u32) -> Vec<&'a Instance> {
        let live: Vec<&Instance> = self.instances.live().collect();
        let mut chosen = victims::in_order(self.context.goal.victims, &live, Instance::candidate, |instance| {
            (rank(instance), !depart::is_leaving(instance))
        });
        chosen.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        chosen
    }

    /// Fills in size, pause and the note of the backoff; why the set is written.
    fn fill_in(&self, update: &mut SetUpdate, phase: &Phase<'_>, why: Move) -> Reason {
        let state = self.verdict.state;
        if state != self.instances.crash_loop {
            update.notes.crash_loop = Some(state);
        }
        let current = self.set.replicas;
        let grows = matches!(phase, Phase::None) && self.wanted > current;
        update.spec.replicas = (grows || matches!(phase, Phase::Lower)).then_some(self.wanted);
        if update.spec.replicas.is_none() && self.wanted != current {
            update.notes.desired_replicas = None;
        }
        let pause = self.pauses(phase);
        update.spec.paused = (pause != self.instances.paused).then_some(pause);
        if self.wanted == current {
            if update.spec.paused.is_some() {
                return self.why_paused(pause, phase, update, why);
            }
            if update.notes.crash_loop.is_some() {
                return state.map_or(Reason::CrashesOver, |state| Reason::CrashLoop { rounds: state.rounds });
            }
        }
        self.why_scaled(phase, update, why)
    }

    /// Whether the set has to be paused. One that is makes nothing up. While others have still to give up replicas, an
    /// end of the pause could bring the sum above the upper bound: for a replica that was lost meanwhile, seen or not.
    fn pauses(&self, phase: &Phase<'_>) -> bool {
        let chooses = match phase {
            Phase::Pause | Phase::AwaitUsage(_) | Phase::Delete(_) => true,
            Phase::None | Phase::Lower => self.verdict.pause,
        };
        chooses || (self.instances.paused && !self.has_room())
    }

    /// Whether all that sets ask for is within the upper bound, this one at its next size.
    fn has_room(&self) -> bool {
        let sets = self.context.sets.iter().filter(|set| !set.deleting);
        let asked: u64 = sets.map(|set| u64::from(set.replicas)).sum();
        asked - u64::from(self.set.replicas) + u64::from(self.wanted) <= u64::from(self.context.bounds.max_total)
    }

    /// Why a set is paused, or no longer, whose size stays.
    fn why_paused(&self, pause: bool, phase: &Phase<'_>, update: &SetUpdate, why: Move) -> Reason {
        if self.verdict.pause {
            Reason::CrashLoop { rounds: self.verdict.state.map_or(0, |state| state.rounds) }
        } else if pause {
            self.why_scaled(phase, update, why)
        } else if self.instances.crash_loop.is_some() {
            Reason::CrashPauseOver
        } else {
            Reason::PauseOver
        }
    }

    fn why_scaled(&self, phase: &Phase<'_>, update: &SetUpdate, why: Move) -> Reason {
        match phase {
            Phase::Pause => Reason::PauseToChoose { surplus: self.instances.live_count().saturating_sub(self.wanted) },
            Phase::Lower => Reason::ChosenGone,
            Phase::None | Phase::AwaitUsage(_) | Phase::Delete(_) => match why {
                Move::Stay if update.quota.is_some() => Reason::Quota,
                Move::Stay => Reason::Notes,
                why => Reason::Scale(why),
            },
        }
    }

    fn report_crashes(&self, draft: &mut Draft) {
        if self.verdict.backing_off
            && let Some(state) = self.verdict.state
        {
            draft.problems.push(Problem::CrashLoop {
                set: self.set.name.clone(),
                rounds: state.rounds,
                until: state.until,
            });
        }
    }

    fn wait(&self, phase: &Phase<'_>, departed: Option<Timestamp>) -> Option<Wait> {
        let set = SetReference::new(self.set);
        let missing = self.instances.live_count() < self.wanted;
        if let Some(state) = self.verdict.state.filter(|state| missing && self.context.now() < state.until) {
            return Some(Wait::CrashLoop { set, until: state.until });
        }
        match phase {
            Phase::None | Phase::Lower => None,
            Phase::Pause => Some(Wait::PauseSeen(set)),
            Phase::AwaitUsage(until) => Some(Wait::Usage { set: set.name, until: *until }),
            Phase::Delete(_) => Some(match departed {
                Some(until) => Wait::OutOfService { set: set.name, until },
                None => Wait::DeletionsSeen(set),
            }),
        }
    }
}

fn rank(instance: &Instance) -> u8 {
    match instance.stage {
        Stage::Leaving | Stage::Pending => 0,
        Stage::Scheduling => 1,
        Stage::Started => 2,
        Stage::Ready(_) => 3,
    }
}
