//! Histories that once went wrong; found by the property tests, kept by name.

use catamaran_crds::Hull::{Container, VirtualMachine};
use serde_json::json;

use crate::{
    history::{
        Event::{self, *},
        happen,
    },
    settle::settle,
    simulator::{Scenario, Wish, World},
};

/// A pass that carries out its whole plan.
const PASS: Event = Pass(usize::MAX);

fn play(wishes: Vec<Wish>, broken: &[u8], events: &[Event]) -> World {
    let scenario = Scenario::new(wishes, broken);
    let mut world = World::new();
    for event in events {
        happen(&scenario, &mut world, *event).unwrap_or_else(|error| panic!("{event:?}: {error}"));
    }
    settle(&scenario, &mut world).unwrap_or_else(|error| panic!("{error}"));
    world
}

fn no_surge(hull: catamaran_crds::Hull, tag: u8, replicas: u32) -> Wish {
    Wish { hull, tag, replicas, surge: json!(0), unavailable: json!("25%"), ..Wish::default() }
}

/// The room of a scale-in was given to the new revision; then a guest crashed, and the end of its backoff made
/// replacements for which there was no room any more.
#[test]
fn a_crash_during_the_pause_of_a_scale_in_claims_no_room_twice() {
    let wishes = vec![
        no_surge(VirtualMachine, 1, 1),
        no_surge(Container, 1, 0),
        no_surge(Container, 2, 3),
        no_surge(Container, 1, 2),
    ];
    let events = [
        PASS,
        User(3),
        StalePlan,
        PASS,
        Controller(0, 0),
        Controller(1, 0),
        PASS,
        DeleteSet(1),
        Controller(0, 0),
        StalePlan,
        Controller(1, 0),
        Pass(1),
        User(2),
        Pass(1),
        StalePlan,
        Pass(1),
        Controller(0, 0),
        Vanish(0, 0),
        PASS,
    ];
    play(wishes, &[2], &events);
}

/// A workload that was stopped and started: the old set still had more replicas than wanted, which was taken for a want
/// of room, and the only available set went to 0.
#[test]
fn a_set_that_is_on_its_way_out_takes_no_room_from_the_only_available_one() {
    let wish = |hull, replicas| Wish { hull, replicas, surge: json!("25%"), unavailable: json!(0), ..Wish::default() };
    let wishes = vec![wish(Container, 1), wish(Container, 0), wish(VirtualMachine, 7)];
    let events = [
        PASS,
        User(2),
        Controller(0, 0),
        PASS,
        Controller(0, 0),
        PASS,
        Controller(1, 0),
        User(1),
        PASS,
        Controller(2, 0),
        User(0),
        AllReady(1),
        Controller(1, 0),
        PASS,
    ];
    play(wishes, &[], &events);
}

/// The note of a crash loop stayed on a set that was lowered to 0, to be removed by whatever woke the operator later.
#[test]
fn a_set_that_goes_to_zero_keeps_no_note_of_crashes() {
    let wish = |hull, replicas| Wish { hull, replicas, ..Wish::default() };
    let wishes = vec![wish(VirtualMachine, 1), wish(Container, 0)];
    let events = [PASS, Controller(0, 0), Vanish(0, 0), Controller(0, 0), PASS, User(1)];
    let world = play(wishes, &[], &events);
    assert_eq!(world.sets[0].object.crash_loop, None);
}

/// Sets and instances come by two watches: virt-controller counted instances that were not seen yet, and the new
/// revision was given their room.
#[test]
fn instances_that_are_counted_and_not_seen_yet_have_their_room() {
    let wishes = vec![no_surge(VirtualMachine, 1, 4), no_surge(VirtualMachine, 1, 2), no_surge(Container, 1, 4)];
    let events = [
        // Paused for a scale-in while its instances are there, but not seen.
        PASS,
        User(1),
        Controller(0, 0),
        See(0),
        StalePlan,
        Write,
        Write,
        Controller(0, 0),
        See(0),
        // Room for a new revision?
        User(2),
        StalePlan,
        Write,
        Write,
        Write,
        Controller(1, 0),
        PASS,
        Controller(0, 0),
    ];
    play(wishes, &[], &events);
}

/// The ReplicaSet controller counts before it deletes, so a set at 0 showed an available replica that was gone. It was
/// raised again, that replica was taken to stay, and the only available one of the other revision went.
#[test]
fn a_replica_that_was_counted_before_it_went_replaces_no_other() {
    let wish = |tag, replicas| Wish { tag, replicas, surge: json!("34%"), unavailable: json!(1), ..Wish::default() };
    let wishes = vec![wish(1, 2), wish(2, 2)];
    let events = [
        PASS,
        User(1),
        Controller(0, 0),
        PASS,
        Controller(2, 0),
        AllReady(0),
        Controller(1, 0),
        AllReady(1),
        Controller(1, 0),
        PASS,
        Controller(2, 0),
        PASS,
        Controller(1, 0),
        User(0),
        PASS,
        Controller(1, 0),
        Controller(1, 0),
        PASS,
    ];
    play(wishes, &[], &events);
}

/// Pods were resized while the change of their template waited for a count. The next wish fitted the template as it
/// was, and not the pods: no resize takes a limit away.
#[test]
fn pods_are_resized_after_their_template() {
    let wish = |quota| Wish { quota, surge: json!(0), unavailable: json!(0), ..Wish::default() };
    let limited = json!({"cpu": {"request": "100m", "limit": 2}, "memory": {"request": "64Mi", "limit": "96Mi"}});
    let wishes = vec![
        Wish { hull: VirtualMachine, ..wish(json!({"memory": {"limit": "64Mi"}})) },
        wish(limited),
        wish(json!({"memory": {"request": "64Mi"}})),
        wish(json!({"cpu": {"request": "200m", "limit": 9}, "memory": {"request": "64Mi"}})),
    ];
    let events = [
        PASS,
        User(1),
        PASS,
        Controller(2, 0),
        User(2),
        Controller(1, 0),
        PASS,
        User(3),
        Controller(2, 0),
        PASS,
        User(1),
        PASS,
        User(3),
        PASS,
    ];
    play(wishes, &[], &events);
}

/// Two victims were leaving their Service when another guest got unready. They went nevertheless, and the available
/// ones fell below their bound: the one that serves nobody goes, and one that left comes back.
#[test]
fn a_guest_that_gets_unready_goes_in_place_of_one_that_is_leaving() {
    let wish = |replicas| Wish {
        hull: VirtualMachine,
        replicas,
        surge: json!(1),
        unavailable: json!(0),
        service: true,
        ..Wish::default()
    };
    for unready in 0..10 {
        let events = [
            PASS,
            Controller(0, 0),
            AllReady(0),
            Controller(0, 0),
            PASS,
            User(1),
            // Paused, and seen to be; then two leave.
            PASS,
            Controller(0, 0),
            PASS,
            Unready(0, unready),
            Controller(0, 0),
            PASS,
            Time(6),
            PASS,
        ];
        play(vec![wish(10), wish(8)], &[], &events);
    }
}
