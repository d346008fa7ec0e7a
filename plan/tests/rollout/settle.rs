//! What must come to pass once nothing changes any more.

use catamaran_plan::Plan;

use crate::simulator::{Choice, Scenario, World};

/// Lets everything run its course: controllers, replicas, time and the operator, without faults, until nothing moves.
///
/// # Errors
/// When it does not come to rest.
pub fn settle(scenario: &Scenario, world: &mut World) -> Result<Plan, String> {
    for _ in 0..400 {
        let before = world.clone();
        round(scenario, world)?;
        if !at_rest(&before, world) {
            continue;
        }
        let plan = world.planned(scenario);
        match world.next_look(scenario) {
            // Time matters only as far as the operator wants to look again.
            Some(at) => world.now = at.max(world.now + 1),
            // The ReplicaSet controller looks again by itself when a pod has been ready for long enough.
            None if world.sets.iter().any(|set| set.waits_to_be_available(world.now)) => world.now += 1,
            None => return stays_so(scenario, world, plan),
        }
    }
    Err(format!("never comes to rest\n{}\n{world}", world.planned(scenario)))
}

/// One pass of everything and everybody.
pub fn round(scenario: &Scenario, world: &mut World) -> Result<(), String> {
    for _ in 0..2 {
        for set in (0..world.sets.len()).rev() {
            world.step(scenario, Choice::Controller { set, seed: 0 })?;
        }
    }
    for set in 0..world.sets.len() {
        for replica in 0..world.sets[set].replicas.len() {
            world.step(scenario, Choice::Progress { set, replica })?;
            world.step(scenario, Choice::Kubelet { set, replica })?;
        }
        world.step(scenario, Choice::Controller { set, seed: 0 })?;
    }
    world.step(scenario, Choice::SeeAll)?;
    if world.flight.is_none() {
        world.step(scenario, Choice::Plan)?;
    }
    while world.flight.is_some() {
        world.step(scenario, Choice::Write)?;
    }
    world.step(scenario, Choice::SeeAll)
}

/// Whether nothing moved but the clock.
fn at_rest(before: &World, world: &World) -> bool {
    World { now: 0, ..before.clone() } == World { now: 0, ..world.clone() }
}

/// At rest, no later look finds anything to do.
fn stays_so(scenario: &Scenario, world: &mut World, plan: Plan) -> Result<Plan, String> {
    for later in [1, 30, 3600, 86_400] {
        world.now += later;
        let before = world.clone();
        round(scenario, world)?;
        if !at_rest(&before, world) {
            return Err(format!("moves again after {later} s\n{before}\n{}", world.planned(scenario)));
        }
    }
    Ok(plan)
}
