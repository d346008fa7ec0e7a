//! Small rollouts, played through in every order: each controller, each replica, the operator's writes one at a time,
//! watches that lag, a lost replica and a killed operator at any moment.
//!
//! Checked are the bounds at every write, what is there whenever nothing can happen any more, and that nothing goes
//! round in circles: so every run ends, and ends well.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    time::Instant,
};

use catamaran_crds::{ElasticWorkloadStatus, Hull};
use serde_json::json;
use stateright::{Checker, Model, Property};

use crate::{
    settle::settle,
    simulator::{Choice, Scenario, Wish, World, asked_for},
};

/// A world and what may still go wrong in it.
#[derive(Clone, Debug)]
struct State {
    world: World,
    losses: u8,
    kills: u8,
    /// A bound that was broken on the way here.
    broken: Option<String>,
}

impl State {
    fn key(&self) -> impl Hash + PartialEq + '_ {
        let World { now, wish, sets, service, status, view, flight, crashes, asked, next_id, next_set, ceiling } =
            &self.world;
        let flight = flight
            .as_ref()
            .map(|flight| (&flight.writes, flight.wish, flight.losses, flight.available, status_key(&flight.status)));
        (
            (now, wish, sets, service, view, flight, (crashes, asked), (next_id, next_set), ceiling),
            status_key(status),
            (self.losses, self.kills, &self.broken),
        )
    }
}

/// All of a status but its conditions, which no plan looks at but for their times.
fn status_key(status: &ElasticWorkloadStatus) -> impl Hash + PartialEq + '_ {
    let ElasticWorkloadStatus {
        observed_generation,
        hull,
        selector,
        desired_replicas,
        replicas,
        ready_replicas,
        available_replicas,
        updated_replicas,
        current_revision,
        update_revision,
        failed_revision,
        last_progress_time,
        held,
        restarted_at,
        // The model scales by hand.
        moving: _,
        scaling: _,
        conditions: _,
        last_good_spec: _,
    } = status;
    (
        (observed_generation, hull, selector),
        (desired_replicas, replicas, ready_replicas, available_replicas, updated_replicas),
        (current_revision, update_revision, failed_revision),
        held.as_ref().map(|held| (held.replicas, held.spec)),
        restarted_at.as_ref().map(|time| time.0),
        last_progress_time.as_ref().map(|time| time.0),
    )
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for State {}

/// One change from a settled first wish to the second.
struct Rollout {
    scenario: Scenario,
    losses: u8,
    kills: u8,
    /// Whether watches of sets and instances may lag, each by itself; else the operator sees everything before it
    /// plans.
    lag: bool,
}

impl Model for Rollout {
    type State = State;
    type Action = Choice;

    fn init_states(&self) -> Vec<State> {
        let mut world = World::new();
        settle(&self.scenario, &mut world).expect("the first wish settles");
        (world.wish, world.now) = (self.scenario.wishes.len() - 1, 0);
        for replica in world.sets.iter_mut().flat_map(|set| &mut set.replicas) {
            (replica.created, replica.ready) = (-10_000, Some(-10_000));
        }
        world.see_all(&self.scenario);
        let mut state = State { world, losses: self.losses, kills: self.kills, broken: None };
        normalize(&mut state.world);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Choice>) {
        let world = &state.world;
        if state.broken.is_some() {
            return;
        }
        actions.push(if world.flight.is_none() { Choice::Plan } else { Choice::Write });
        if self.lag {
            actions.extend((0..world.sets.len()).map(Choice::SeeSet));
            actions.extend((0..world.sets.len()).map(Choice::SeeInstances));
        }
        if state.kills > 0 && world.flight.is_some() {
            actions.push(Choice::OperatorCrash);
        }
        for (index, set) in world.sets.iter().enumerate() {
            let surplus = set.replicas.len() > usize::try_from(set.object.asked).expect("few");
            let seeds = if set.hull == Hull::VirtualMachine && surplus { set.replicas.len() } else { 1 };
            actions.extend((0..seeds).map(|seed| Choice::Controller { set: index, seed }));
            for replica in 0..set.replicas.len() {
                actions.push(Choice::Progress { set: index, replica });
                if state.losses > 0 {
                    actions.push(Choice::Unready { set: index, replica });
                    actions.push(Choice::Vanish { set: index, replica });
                }
            }
        }
        // A backoff is long: time passes only when nothing else can happen.
        if world.sets.iter().any(|set| set.object.crash_loop.is_some())
            && let Some(at) = world.next_look(&self.scenario).filter(|at| *at > world.now)
            && !actions.iter().any(|choice| !is_fault(*choice) && self.next_state(state, *choice).is_some())
        {
            actions.push(Choice::Time(at - world.now));
        }
    }

    fn next_state(&self, last: &State, choice: Choice) -> Option<State> {
        let mut state = last.clone();
        match choice {
            Choice::Unready { .. } | Choice::Vanish { .. } => state.losses -= 1,
            Choice::OperatorCrash => state.kills -= 1,
            _ => {}
        }
        let before = state.world.status.clone();
        if choice == Choice::Plan && !self.lag {
            state.world.see_all(&self.scenario);
        }
        state.broken = state.world.step(&self.scenario, choice).err();
        // A plan without writes that leaves the status as it is has no effect.
        if let (Choice::Plan, Some(flight)) = (choice, &mut state.world.flight) {
            flight.status.conditions.clear();
            if flight.writes.is_empty() && flight.status == before {
                state.world.flight = None;
                state.world.view = last.world.view.clone();
            }
        }
        normalize(&mut state.world);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the bounds are kept", |_, state: &State| state.broken.is_none()),
            Property::always("where nothing can happen, all is as it was wished", |model: &Self, state: &State| {
                !model.is_over(state) || model.is_good_end(&state.world)
            }),
            Property::sometimes("it comes to an end", |model: &Self, state: &State| model.is_over(state)),
        ]
    }
}

impl Rollout {
    /// Nothing can happen any more but faults.
    fn is_over(&self, state: &State) -> bool {
        let mut calm = state.clone();
        (calm.losses, calm.kills) = (0, 0);
        let mut actions = Vec::new();
        self.actions(&calm, &mut actions);
        state.broken.is_none() && actions.into_iter().all(|choice| self.next_state(&calm, choice).is_none())
    }

    fn is_good_end(&self, world: &World) -> bool {
        let desired = &self.scenario.desired[world.wish];
        world.sets.iter().all(|set| {
            let wanted = self.scenario.revisions[set.revision] == desired.revision;
            let count = if wanted { asked_for(desired) } else { 0 };
            let ready = set.available(0, world.now);
            (set.object.asked, set.live(), ready, set.object.paused) == (count, count, count, false)
        }) && world.status.current_revision.as_ref() == Some(&desired.revision)
    }

    /// Searches for a way back to a state that was left: depth first, with the states on the way marked.
    fn has_circle(&self) -> bool {
        let mut on_the_way: HashMap<State, bool> = HashMap::new();
        let mut stack: Vec<(State, Option<Vec<State>>)> =
            self.init_states().into_iter().map(|state| (state, None)).collect();
        while let Some((state, next)) = stack.pop() {
            let mut next = match next {
                Some(next) => next,
                None => match on_the_way.insert(state.clone(), true) {
                    None => self.next_states(&state),
                    Some(on_the_way_already) => {
                        on_the_way.insert(state, on_the_way_already);
                        continue;
                    }
                },
            };
            match next.pop() {
                None => {
                    on_the_way.insert(state, false);
                }
                Some(child) => {
                    if on_the_way.get(&child) == Some(&true) {
                        println!("goes in circles:\n{}", child.world);
                        let way = stack.iter().map(|(state, _)| state).chain([&state]);
                        way.skip_while(|state| **state != child).for_each(|state| println!("{}", state.world));
                        return true;
                    }
                    stack.push((state, Some(next)));
                    stack.push((child, None));
                }
            }
        }
        false
    }
}

fn is_fault(choice: Choice) -> bool {
    matches!(choice, Choice::Unready { .. } | Choice::Vanish { .. } | Choice::OperatorCrash)
}

/// Makes equal what differs by name only: pods have no names here, instances are numbered anew in the same order.
fn normalize(world: &mut World) {
    world.status.conditions.clear();
    if let Some(flight) = &mut world.flight {
        flight.status.conditions.clear();
    }
    world.normalize_names();
}

fn check(name: &str, wishes: &[Wish], losses: u8, kills: u8) {
    let started = Instant::now();
    let rollout = |lag| Rollout { scenario: Scenario::new(wishes.to_vec(), &[]), losses, kills, lag };
    let checker = rollout(true).checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, {:?}", checker.unique_state_count(), started.elapsed());
    checker.assert_properties();
    // A plan on an old view may be made again and again until the watch delivers: that is no circle of the plan's.
    assert!(!rollout(false).has_circle(), "{name} goes in circles");
    println!("{name}: no circle, {:?}", started.elapsed());
}

fn containers(tag: u8, replicas: u32, surge: u32, unavailable: u32) -> Wish {
    Wish {
        hull: Hull::Container,
        tag,
        replicas,
        surge: json!(surge),
        unavailable: json!(unavailable),
        deadline: 1_000_000,
        ..Wish::default()
    }
}

fn machines(tag: u8, replicas: u32) -> Wish {
    Wish { hull: Hull::VirtualMachine, ..containers(tag, replicas, 1, 0) }
}

#[test]
fn an_update_of_containers_with_surge() {
    check("2 containers, surge 1", &[containers(1, 2, 1, 0), containers(2, 2, 1, 0)], 1, 1);
}

#[test]
fn an_update_of_containers_within_the_count() {
    check("3 containers, unavailable 1", &[containers(1, 3, 0, 1), containers(2, 3, 0, 1)], 1, 1);
}

#[test]
fn an_update_and_a_scale_in_of_containers() {
    check("3 -> 2 containers, surge 1, unavailable 1", &[containers(1, 3, 1, 1), containers(2, 2, 1, 1)], 1, 1);
}

#[test]
fn a_scale_in_of_virtual_machines() {
    check("3 -> 1 machines", &[machines(1, 3), machines(1, 1)], 1, 1);
}

#[test]
fn a_switch_from_virtual_machines_to_containers() {
    check("2 machines -> containers", &[machines(1, 2), containers(1, 2, 1, 0)], 1, 1);
}

#[test]
fn a_switch_from_containers_to_virtual_machines() {
    check("2 containers -> machines", &[containers(1, 2, 1, 0), machines(1, 2)], 1, 1);
}
