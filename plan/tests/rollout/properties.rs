//! Properties of any history: bounds at every write, promises of every plan, and a stable end.

use catamaran_crds::{Hull, OnFailure, State};
use catamaran_plan::{facts::Resize, plan};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    history::{Event, happen},
    settle::settle,
    simulator::{Choice, Replica, Scenario, Set, Wish, World, asked_for},
};

fn events() -> impl Strategy<Value = Vec<Event>> {
    let (set, replica) = (0..4usize, 0..16usize);
    let event = prop_oneof![
        8 => Just(Event::Pass(usize::MAX)),
        4 => (1..4usize).prop_map(Event::Pass),
        3 => Just(Event::StalePlan),
        4 => Just(Event::Write),
        3 => set.clone().prop_map(Event::See),
        3 => set.clone().prop_map(Event::SeeInstances),
        1 => Just(Event::OperatorCrash),
        10 => (set.clone(), replica.clone()).prop_map(|(set, seed)| Event::Controller(set, seed)),
        4 => (set.clone(), replica.clone()).prop_map(|(set, replica)| Event::Progress(set, replica)),
        6 => set.clone().prop_map(Event::AllReady),
        4 => (set.clone(), replica.clone()).prop_map(|(set, replica)| Event::Kubelet(set, replica)),
        2 => (set.clone(), replica.clone()).prop_map(|(set, replica)| Event::Unready(set, replica)),
        2 => (set.clone(), replica).prop_map(|(set, replica)| Event::Vanish(set, replica)),
        3 => prop_oneof![Just(1), Just(6), Just(20), Just(61), Just(400)].prop_map(Event::Time),
        4 => (0..5usize).prop_map(Event::User),
        1 => set.prop_map(Event::DeleteSet),
    ];
    prop::collection::vec(event, 0..120)
}

fn count_or_percentage() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(0)),
        Just(json!("0%")),
        (1..4u32).prop_map(|count| json!(count)),
        Just(json!("25%")),
        Just(json!("34%")),
        Just(json!("100%")),
    ]
}

/// Quotas: in place from one to another, of another QoS class, with fewer fields, with a burst, beyond what a node has.
fn quotas() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"cpu": {"limit": "500m"}, "memory": {"limit": "64Mi"}})),
        Just(json!({"cpu": {"limit": 1, "burst": "250m"}, "memory": {"limit": "64Mi"}, "pids": 100})),
        Just(json!({"cpu": {"limit": "200m", "burst": "100m", "weight": 50}, "memory": {"limit": "128Mi"}})),
        Just(
            json!({"cpu": {"request": "100m", "limit": 2, "burst": 2}, "memory": {"request": "64Mi", "limit": "96Mi"}})
        ),
        Just(json!({"cpu": {"request": "200m", "limit": 9}, "memory": {"request": "64Mi"}})),
        Just(json!({"memory": {"request": "64Mi"}, "io": [{"device": "*", "readBytesPerSecond": "1Mi"}]})),
    ]
}

/// A first spec and four more that the user may change to and fro between.
fn scenarios() -> impl Strategy<Value = Scenario> {
    let constant = (count_or_percentage(), count_or_percentage(), prop_oneof![3 => Just(0u32), 1 => Just(5)], 0..3u32);
    let failure = prop_oneof![Just(OnFailure::Hold), Just(OnFailure::Rollback)];
    let hull = || prop_oneof![Just(Hull::Container), Just(Hull::VirtualMachine)];
    let state = prop_oneof![85 => Just(State::Running), 5 => Just(State::Stopped), 10 => Just(State::Frozen)];
    let change = (hull(), 1..4u8, 0..13u32, prop::bool::weighted(0.15), state, prop::bool::weighted(0.3));
    let quota = prop_oneof![
        1 => prop::collection::vec(Just(Wish::default().quota), 5),
        1 => prop::collection::vec(quotas(), 5),
    ];
    let broken = prop_oneof![3 => Just(vec![]), 1 => Just(vec![2u8]), 1 => Just(vec![2, 3])];
    let parts = (constant, failure, prop::collection::vec(change, 5), quota, broken);
    parts.prop_map(|(constant, on_failure, changes, quotas, broken)| {
        let (surge, unavailable, min_ready, history) = constant;
        let changes = changes.into_iter().zip(quotas);
        let wishes = changes.map(|((hull, tag, replicas, paused, state, service), quota)| Wish {
            hull,
            tag,
            replicas,
            quota,
            surge: surge.clone(),
            unavailable: unavailable.clone(),
            min_ready,
            deadline: 60,
            history,
            paused,
            on_failure,
            state,
            service,
        });
        Scenario::new(wishes.collect(), &broken)
    })
}

/// What a workload at rest looks like, given what it asks for.
fn check_end(scenario: &Scenario, world: &World) -> Result<(), String> {
    let (wish, desired) = (&scenario.wishes[world.wish], &scenario.desired[world.wish]);
    let status = &world.status;
    let condition = |type_: &str| {
        status.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True").is_some()
    };
    let wanted_revision = status.update_revision.clone().unwrap_or_default();
    let of_revision = || world.sets.iter().filter(|set| scenario.revisions[set.revision] == wanted_revision);
    let of_wanted: usize = of_revision().map(|set| set.replicas.len()).sum();
    let all: usize = world.sets.iter().map(|set| set.replicas.len()).sum();
    let wanted = usize::try_from(asked_for(desired)).expect("few");
    let broken = scenario.broken.contains(&scenario.revision(&wanted_revision));
    if desired.state == State::Frozen {
        let stopped = |set: &Set, replica: &Replica| match set.hull {
            Hull::VirtualMachine => replica.paused,
            Hull::Container => replica.quota.annotation.as_ref().is_some_and(|text| text.contains(r#""frozen":true"#)),
        };
        let all = world.sets.iter().all(|set| set.replicas.iter().all(|replica| stopped(set, replica)));
        return if all && condition("Ready") { Ok(()) } else { Err("not all are frozen".to_owned()) };
    }
    let is_frozen = |replica: &Replica| {
        replica.paused || replica.quota.annotation.as_ref().is_some_and(|text| text.contains("frozen"))
    };
    if world.sets.iter().any(|set| set.replicas.iter().any(is_frozen)) {
        return Err("some are frozen still".to_owned());
    }
    if status.failed_revision.as_ref() == Some(&wanted_revision) {
        // It had its time in this history and missed it. A pause holds the way back as well, wherever it is.
        if wish.paused {
            return Ok(());
        }
        let back = wish.on_failure == OnFailure::Rollback && (condition("Stalled") || wanted == 0) && all == wanted;
        return if back { Ok(()) } else { Err("neither rolled back nor forward".to_owned()) };
    }
    for replica in of_revision().flat_map(|set| &set.replicas) {
        let (there, in_place) = (&replica.quota, &desired.in_place);
        let resources = there.containers.get(&in_place.container).unwrap_or_default();
        let fits = in_place.resources.is_none_or(|wanted| wanted == resources);
        if there.annotation != in_place.annotation() || !fits || there.resize != Resize::Settled {
            return Err(format!("replica {} has another quota: {there:?}", replica.id));
        }
    }
    if condition("Reconciling") && !broken {
        return Err("at rest and still Reconciling".to_owned());
    }
    if !wish.paused && !broken && (of_wanted != wanted || all != wanted) {
        return Err(format!("{of_wanted} of the wanted revision and {all} in all, {wanted} are wanted"));
    }
    if !wish.paused && !broken && !condition("Ready") {
        return Err("not Ready".to_owned());
    }
    if broken
        && wanted > 0
        && (condition("Ready")
            || (!wish.paused && !condition("Stalled") && status.current_revision.as_deref() != Some(&wanted_revision)))
    {
        return Err("a revision that never gets ready is not told".to_owned());
    }
    let empty = world.sets.iter().filter(|set| set.object.asked == 0).count();
    if condition("Ready") && wanted > 0 && empty > usize::try_from(wish.history).expect("few") {
        return Err(format!("{empty} old revisions are kept"));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 8,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_keeps_the_bounds_and_comes_to_rest(scenario in scenarios(), events in events()) {
        let mut world = World::new();
        for event in events {
            happen(&scenario, &mut world, event).map_err(TestCaseError::fail)?;
            let (desired, observed) = (&scenario.desired[world.wish], world.observed(&scenario));
            prop_assert_eq!(plan(desired, &observed, None), plan(desired, &observed, None));
        }
        world.step(&scenario, Choice::OperatorCrash).map_err(TestCaseError::fail)?;
        let end = settle(&scenario, &mut world).map_err(TestCaseError::fail)?;
        check_end(&scenario, &world).map_err(|error| TestCaseError::fail(format!("{error}\n{end}\n{world}")))?;
    }
}
