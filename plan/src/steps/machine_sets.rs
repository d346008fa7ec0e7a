//! How a VirtualMachineInstanceReplicaSet is scaled.
//!
//! Left to itself it takes random instances on scale-in. So every scale-in goes through: pause, delete the chosen, then lower
//! and unpause in one write. Each step is found again from what is observed, so a crash between any two of them costs nothing.
//! virt-controller works from a cache: its own status tells when it has seen the pause (condition ReplicaPaused) and the
//! deletions (status.replicas); going on earlier would make it replace, or delete at random.

use crate::{
    facts::{Instance, InstanceSet, Stage},
    plan::{Action, Reason, SetUpdate, Step, Wait},
    steps::crash_loop::{self, Verdict},
};
use catamaran_autoscale::victims::{Candidate, Victims, is_open, order};
use jiff::Timestamp;

/// What to do with one set of virtual machines.
pub(crate) struct Scaling {
    pub(crate) steps: Vec<Step>,
    pub(crate) wait: Option<Wait>,
    pub(crate) verdict: Verdict,
}

/// Brings a set of `current` replicas to `wanted`. `update` carries what else is to be noted with a change of scale; until
/// `usage_due` the choice may be put off ([`crate::Facts`]). `room`: whether all that sets ask for is within the upper bound.
#[allow(clippy::too_many_arguments)]
pub(crate) fn scale(
    set: &InstanceSet,
    mut update: SetUpdate,
    current: u32,
    wanted: u32,
    why: Reason,
    victims: Victims,
    usage_due: Option<Timestamp>,
    room: bool,
    now: Timestamp,
) -> Scaling {
    let verdict = crash_loop::judge(set, wanted, now);
    if verdict.state != set.crash_loop {
        update.crash_loop = Some(verdict.state);
    }
    let live = set.live_count();
    let reference = update.set.clone();
    let mut wait = None;
    let mut steps = Vec::new();
    let mut why = why;
    let pause = if wanted < current || (set.paused && live > wanted) {
        if !set.pause_seen || !set.paused {
            wait = Some(Wait::PauseSeen(reference.clone()));
            why = Reason::PauseToChoose { surplus: live.saturating_sub(wanted) };
            true
        } else if live > wanted
            && let Some(until) = usage_due.filter(|_| is_open(victims, &candidates(set)))
        {
            wait = Some(Wait::Usage { set: reference.name.clone(), until });
            true
        } else if live > wanted {
            if set.counted == live {
                steps.extend(choose(set, live - wanted, victims).into_iter().map(|victim| Step {
                    action: Action::DeleteInstance { name: victim.name.clone(), uid: victim.uid.clone() },
                    why: Reason::Victim { stage: victim.stage, victims },
                }));
            }
            wait = Some(Wait::DeletionsSeen(reference.clone()));
            true
        } else if set.counted != live {
            wait = Some(Wait::DeletionsSeen(reference.clone()));
            true
        } else {
            update.replicas = Some(wanted);
            why = Reason::ChosenGone;
            verdict.pause
        }
    } else {
        if wanted > current {
            update.replicas = Some(wanted);
        }
        verdict.pause
    };
    // A set that is paused makes nothing up. While others have still to give up replicas, an end of the pause could bring the sum
    // above the upper bound: for a replica that was lost meanwhile, seen or not.
    let pause = pause || (set.paused && !room);
    if pause != set.paused {
        update.paused = Some(pause);
        if wanted == current {
            why = if verdict.pause {
                Reason::CrashLoop { rounds: verdict.state.map_or(0, |state| state.rounds) }
            } else if pause {
                why
            } else if set.crash_loop.is_some() {
                Reason::CrashPauseOver
            } else {
                Reason::PauseOver
            };
        }
    } else if update.crash_loop.is_some() && wanted == current {
        why = verdict.state.map_or(Reason::CrashesOver, |state| Reason::CrashLoop { rounds: state.rounds });
    }
    if update.replicas.is_none() {
        update.desired_replicas = update.desired_replicas.filter(|_| wanted == current);
    }
    if !update.is_empty() {
        steps.insert(0, Step { action: Action::UpdateSet(Box::new(update)), why });
    }
    if let Some(state) = verdict.state.filter(|state| live < wanted && now < state.until) {
        wait = Some(Wait::CrashLoop { set: reference, until: state.until });
    }
    Scaling { steps, wait, verdict }
}

/// The instances to go: those that are least far first, ready ones as `victims` says.
fn choose(set: &InstanceSet, count: u32, victims: Victims) -> Vec<&Instance> {
    let live: Vec<&Instance> = set.live().collect();
    let place: Vec<&str> = order(victims, &candidates(set)).into_iter().map(|candidate| candidate.name).collect();
    let mut chosen = live;
    chosen.sort_by_key(|instance| (rank(instance), place.iter().position(|name| *name == instance.name)));
    chosen.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    chosen
}

fn candidates(set: &InstanceSet) -> Vec<Candidate<'_>> {
    set.live().map(Instance::candidate).collect()
}

fn rank(instance: &Instance) -> u8 {
    match instance.stage {
        Stage::Leaving | Stage::Pending => 0,
        Stage::Scheduling => 1,
        Stage::Started => 2,
        Stage::Ready(_) => 3,
    }
}
