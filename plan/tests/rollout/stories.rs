//! Golden stories: read them to see how Catamaran behaves.

use catamaran_crds::{
    Hull::{Container, VirtualMachine},
    OnFailure, State,
};
use catamaran_plan::{Invalid, facts::KubeVirt, plan, plan_invalid, resolve};
use serde_json::json;

use crate::{
    simulator::{Choice, Wish},
    story::Story,
};

fn container(tag: u8, replicas: u32) -> Wish {
    Wish { hull: Container, tag, replicas, ..Wish::default() }
}

fn machine(tag: u8, replicas: u32) -> Wish {
    Wish { hull: VirtualMachine, tag, replicas, ..Wish::default() }
}

fn running(wishes: Vec<Wish>, broken: &[u8]) -> Story {
    let mut story = Story::new(wishes, broken);
    story.say("It runs");
    story.run();
    story
}

#[test]
fn first_create() {
    let mut story = Story::new(vec![Wish { service: true, ..container(1, 3) }], &[]);
    story.say("The user applies 3 replicas and a Service");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn image_update() {
    let mut story = running(vec![container(1, 3), container(2, 3)], &[]);
    story.user(1, "A new image, with maxSurge 1 and maxUnavailable 0");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn from_container_to_virtual_machine() {
    let mut story = running(vec![container(1, 2), machine(1, 2)], &[]);
    story.user(1, "From containers to virtual machines, with maxSurge 1 and maxUnavailable 0");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn from_virtual_machine_to_container() {
    let mut story = running(vec![machine(1, 2), container(1, 2)], &[]);
    story.user(1, "From virtual machines to containers, with maxSurge 1 and maxUnavailable 0");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn scale_in_mid_rollout() {
    let wish = |tag, replicas| Wish { surge: json!("50%"), unavailable: json!("50%"), ..container(tag, replicas) };
    let mut story = running(vec![wish(1, 8), wish(2, 8), wish(2, 4)], &[]);
    story.user(1, "A new image");
    story.pass();
    story.controllers();
    story.user(2, "In the middle of it, 4 replicas instead of 8");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn unhealthy_old_replicas_go_first() {
    let wish = |tag| Wish { surge: json!(1), unavailable: json!(1), ..container(tag, 4) };
    let mut story = running(vec![wish(1), wish(2)], &[]);
    story.say("One replica is no longer ready");
    story.happen(Choice::Unready { set: 0, replica: 1 });
    story.controllers();
    story.user(1, "A new image");
    story.pass();
    story.controllers();
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn paused_and_resumed() {
    let mut story = running(vec![container(1, 2), Wish { paused: true, ..container(2, 3) }, container(2, 3)], &[]);
    story.user(1, "A new image and a third replica, while rollout.paused is true");
    story.run();
    story.user(2, "rollout.paused is false again");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn a_revision_that_fails_is_held() {
    let mut story = running(vec![container(1, 3), container(2, 3)], &[2]);
    story.user(1, "An image whose replicas never get ready, with onFailure Hold");
    story.run();
    story.say("The progress deadline passes");
    story.wait();
    story.run();
    story.user(0, "The user applies the earlier spec again");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn a_revision_that_fails_is_rolled_back() {
    let wish = |tag| Wish { on_failure: OnFailure::Rollback, ..container(tag, 3) };
    let mut story = running(vec![wish(1), wish(2), wish(3)], &[2]);
    story.user(1, "An image whose replicas never get ready, with onFailure Rollback");
    story.run();
    story.say("The progress deadline passes");
    story.wait();
    story.run();
    story.user(2, "The user corrects the image");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn scale_in_of_virtual_machines() {
    let mut story = running(vec![machine(1, 4), machine(1, 2)], &[]);
    story.say("The second of the four is not ready");
    story.happen(Choice::Unready { set: 0, replica: 1 });
    story.user(1, "2 replicas instead of 4");
    story.pass();
    story.controllers();
    story.pass();
    story.controllers();
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn crash_loop() {
    let mut story = running(vec![machine(1, 2), machine(2, 2)], &[]);
    for round in 1..=3 {
        story.say(&format!("Both guests end within a second of each other, for the {round}. time"));
        for _ in 0..2 {
            story.world.now += 1;
            story.happen(Choice::Vanish { set: 0, replica: 0 });
        }
        story.pass();
        story.controllers();
        story.pass();
        story.say("The pause is over");
        story.wait();
        story.pass();
        story.controllers();
        story.pass();
        story.ready();
        story.pass();
    }
    story.say("The guests stay up");
    while story.world.next_look(&story.scenario).is_some() {
        story.wait();
        story.run();
    }
    insta::assert_snapshot!(story.told());
}

#[test]
fn old_revisions_beyond_the_limit_go() {
    let wish = |tag| Wish { history: 1, ..container(tag, 1) };
    let mut story = running(vec![wish(1), wish(2), wish(3)], &[]);
    story.user(1, "A second image, with revisionHistoryLimit 1");
    story.run();
    story.user(2, "A third image");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn stopped_and_started() {
    let running_wish = || Wish { service: true, ..machine(1, 2) };
    let mut story = running(vec![running_wish(), Wish { state: State::Stopped, ..running_wish() }], &[]);
    story.user(1, "state: Stopped");
    story.run();
    story.user(0, "state: Running");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn frozen_and_thawed() {
    for (hull, first) in [("containers", container(1, 2)), ("machines", machine(1, 2))] {
        let first = || Wish { service: true, ..first.clone() };
        let frozen = Wish { state: State::Frozen, ..first() };
        // Another template and another count wait.
        let changed = Wish { tag: 2, replicas: 4, ..frozen.clone() };
        let mut story = running(vec![first(), frozen, changed, Wish { tag: 2, ..first() }], &[]);
        story.user(1, "state: Frozen");
        story.run();
        story.user(2, "Another template and another count, frozen still");
        story.run();
        story.user(0, "state: Running, as it was");
        story.run();
        if hull == "machines" {
            story.wait();
            story.run();
        }
        story.user(2, "Frozen again, with another template");
        story.run();
        story.user(3, "state: Running");
        story.run();
        insta::assert_snapshot!(format!("frozen_and_thawed_{hull}"), story.told());
    }
}

#[test]
fn a_rollout_is_held_in_the_middle() {
    let wish = |tag, state| Wish { state, quota: json!({"cpu": {"limit": 1}, "pids": 50}), ..container(tag, 3) };
    let mut story = running(vec![wish(1, State::Running), wish(2, State::Running), wish(2, State::Frozen)], &[]);
    story.user(1, "Another image");
    story.pass();
    story.controllers();
    story.user(2, "state: Frozen, while both revisions have replicas");
    story.run();
    story.user(1, "state: Running");
    story.run();
    insta::assert_snapshot!(story.told());
}

fn with_quota(quota: serde_json::Value) -> Wish {
    Wish { quota, ..container(1, 2) }
}

#[test]
fn a_quota_changes_in_place() {
    let mut story = running(
        vec![
            with_quota(json!({"cpu": {"limit": 1, "burst": "800m"}, "memory": {"limit": "64Mi"}})),
            with_quota(json!({"cpu": {"limit": "200m", "burst": "100m"}, "memory": {"limit": "64Mi"}, "pids": 50})),
            with_quota(json!({"cpu": {"limit": 2, "burst": 2}, "memory": {"limit": "64Mi"}})),
        ],
        &[],
    );
    for (wish, what) in
        [(1, "A CPU limit below the burst so far"), (2, "A higher limit and burst, no limit to processes")]
    {
        story.user(wish, what);
        story.pass();
        story.controllers();
        story.say("The kubelets did it");
        story.kubelets();
        story.run();
    }
    insta::assert_snapshot!(story.told());
}

#[test]
fn a_quota_that_cannot_change_in_place_rolls() {
    let memory = json!({"request": "64Mi"});
    let mut story = running(
        vec![
            with_quota(json!({"cpu": {"request": "100m", "limit": 1}, "memory": memory})),
            with_quota(json!({"cpu": {"request": "100m", "limit": 9}, "memory": memory})),
            with_quota(json!({"cpu": {"request": "100m"}, "memory": memory})),
        ],
        &[],
    );
    story.user(1, "A limit that the nodes of the pods do not have");
    story.run();
    story.user(2, "No limit");
    story.run();
    insta::assert_snapshot!(story.told());
}

#[test]
fn what_the_agent_holds_in_launcher_pods() {
    let wish = |pids| Wish { quota: json!({"memory": {"request": "64Mi"}, "pids": pids}), ..machine(1, 1) };
    let mut story = running(vec![wish(1000), wish(2000)], &[]);
    story.user(1, "More processes in the launcher pods");
    story.run();
    insta::assert_snapshot!(story.told());
}

/// What stands in the way before anything can be made.
#[test]
fn what_stands_in_the_way() {
    let story = Story::new(vec![Wish { service: true, ..machine(1, 2) }], &[]);
    let (desired, observed) = (&story.scenario.desired[0], story.world.observed(&story.scenario));
    let mut told = String::new();
    let mut tell = |what: &str, plan: &catamaran_plan::Plan| told.push_str(&format!("## {what}\n\n{plan}\n"));

    let mut absent = observed.clone();
    absent.kubevirt = KubeVirt::Absent;
    tell("KubeVirt is not installed", &plan(desired, &absent, None));

    let mut taken = observed.clone();
    taken.foreign_sets = vec![(desired.hull(), desired.set_name(&desired.revision))];
    tell("Somebody else's replica set has the name", &plan(desired, &taken, None));

    let mut service = observed.clone();
    service.service = catamaran_plan::facts::ServiceFacts::Foreign;
    tell("Somebody else's Service has the name", &plan(desired, &service, None));

    let mut workload = story.scenario.wishes[0].workload(1);
    workload.spec.class_name = Some("small".to_owned());
    let missing = resolve(&workload, None).expect_err("there is no class");
    tell("The class does not exist", &plan_invalid(1, &missing, &observed));

    let unreadable = Invalid::Unreadable("spec.replicas: invalid type: string".to_owned());
    tell("The object is stored in a form that cannot be read", &plan_invalid(1, &unreadable, &observed));
    insta::assert_snapshot!(told.trim());
}
