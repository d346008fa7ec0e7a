//! Histories as lists of events that make sense whatever there is at the moment.

use crate::simulator::{Choice, Scenario, World};

/// What happens, before it is known which sets and replicas there are.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The operator sees everything, plans, and is stopped after so many writes.
    Pass(usize),
    /// The operator plans on what it happens to have seen.
    StalePlan,
    Write,
    See(usize),
    SeeInstances(usize),
    OperatorCrash,
    Controller(usize, usize),
    Progress(usize, usize),
    /// All replicas of a set get ready.
    AllReady(usize),
    Kubelet(usize, usize),
    Unready(usize, usize),
    Vanish(usize, usize),
    Time(i64),
    User(usize),
    DeleteSet(usize),
}

/// Lets an event happen.
///
/// # Errors
/// When it breaks a bound of the rollout.
pub fn happen(scenario: &Scenario, world: &mut World, event: Event) -> Result<(), String> {
    let sets = world.sets.len();
    let pick = |set: usize| if sets == 0 { 0 } else { set % sets };
    let replica = |world: &World, set: usize, replica: usize| {
        let count = world.sets.get(pick(set)).map_or(0, |set| set.replicas.len());
        if count == 0 { 0 } else { replica % count }
    };
    let choice = match event {
        Event::Pass(writes) => {
            world.flight = None;
            world.see_all(scenario);
            world.step(scenario, Choice::Plan)?;
            for _ in 0..writes {
                if world.flight.is_none() {
                    break;
                }
                world.step(scenario, Choice::Write)?;
            }
            world.flight = None;
            return Ok(());
        }
        Event::StalePlan => Choice::Plan,
        Event::Write => Choice::Write,
        Event::See(set) => Choice::SeeSet(pick(set)),
        Event::SeeInstances(set) => Choice::SeeInstances(pick(set)),
        Event::OperatorCrash => Choice::OperatorCrash,
        Event::Controller(set, seed) => Choice::Controller { set: pick(set), seed },
        Event::Progress(set, which) => Choice::Progress { set: pick(set), replica: replica(world, set, which) },
        Event::AllReady(set) => {
            let set = pick(set);
            for replica in 0..world.sets.get(set).map_or(0, |set| set.replicas.len()) {
                world.step(scenario, Choice::Progress { set, replica })?;
            }
            return Ok(());
        }
        Event::Kubelet(set, which) => Choice::Kubelet { set: pick(set), replica: replica(world, set, which) },
        Event::Unready(set, which) => Choice::Unready { set: pick(set), replica: replica(world, set, which) },
        Event::Vanish(set, which) => Choice::Vanish { set: pick(set), replica: replica(world, set, which) },
        Event::Time(seconds) => Choice::Time(seconds),
        Event::User(wish) => Choice::User(wish),
        Event::DeleteSet(set) => Choice::DeleteSet(pick(set)),
    };
    world.step(scenario, choice)
}
