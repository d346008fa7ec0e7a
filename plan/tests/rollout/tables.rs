//! Small rules, case by case: the backoff of crashing guests, each state of a scale-in of virtual machines, each condition.

use catamaran_crds::{ElasticWorkloadStatus, Hull, State};
use catamaran_plan::{
    Facts, Problem,
    facts::{
        Crash, CrashLoop, Instance, InstanceSet, KubeVirt, Members, Pause, PodQuota, ResizeApi, ServiceFacts, SetFacts,
        Stage,
    },
    plan,
    status::{Progress, conditions},
    steps::crash_loop::judge,
};

use crate::simulator::{Scenario, Wish, time};

fn ready(name: &str) -> Instance {
    Instance {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        created: time(-9000),
        stage: Stage::Ready(time(-9000)),
        pause: Pause::Running,
        usage: None,
        launchers: Vec::new(),
    }
}

fn at(name: &str, stage: Stage) -> Instance {
    Instance { stage, ..ready(name) }
}

/// A guest that ended a second after its creation.
fn crash(ended: i64) -> Crash {
    Crash { created: time(ended - 1), ended: time(ended) }
}

#[test]
fn the_pause_after_crashes_doubles_from_10_s_to_300_s() {
    let mut set = InstanceSet::default();
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..8 {
        set.crashes = vec![crash(now)];
        let verdict = judge(&set, 2, time(now));
        let state = verdict.state.expect("it is noted");
        assert!(verdict.pause && verdict.holding, "at {now}");
        assert_eq!(verdict.look_again, Some(state.until));
        pauses.push((state.until.as_second() - state.last.as_second(), state.rounds));
        set.crash_loop = verdict.state;
        // Just before the end it still holds; then it lets replacements through, which crash two seconds later.
        let end = now + pauses[pauses.len() - 1].0;
        assert!(judge(&set, 2, time(end - 1)).pause);
        assert!(!judge(&set, 2, time(end)).pause, "a missing guest is replaced at {end}");
        now = end + 2;
    }
    assert_eq!(pauses, [(10, 1), (20, 2), (40, 3), (80, 4), (160, 5), (300, 6), (300, 7), (300, 8)]);
}

#[test]
fn a_replacement_is_on_probation_behind_a_pause() {
    let note = CrashLoop { rounds: 1, last: time(0), until: time(10) };
    let with = |instances: Vec<Instance>| InstanceSet { crash_loop: Some(note), instances, ..InstanceSet::default() };
    // (instances there of 2, now, pause, holding)
    for (there, now, pause, holding) in [
        (0, 9, true, true),
        (2, 9, true, false),
        (1, 10, false, false),
        (2, 10, true, false),
        (2, 29, true, false),
        (2, 30, false, false),
        (0, 30, false, false),
    ] {
        let set = with((0..there).map(|index| ready(&format!("vmi-{index}"))).collect());
        let verdict = judge(&set, 2, time(now));
        assert_eq!((verdict.pause, verdict.holding), (pause, holding), "{there} of 2 at {now} s");
        assert_eq!(verdict.state, Some(note));
    }
}

#[test]
fn which_crashes_count() {
    let note = Some(CrashLoop { rounds: 3, last: time(100), until: time(140) });
    let set = |crash_loop, crashes| InstanceSet { crash_loop, crashes, ..InstanceSet::default() };
    let rounds = |set: &InstanceSet, now| judge(set, 1, time(now)).state.map(|state| state.rounds);

    let two_at_once = vec![crash(5), Crash { created: time(4), ended: time(6) }];
    assert_eq!(rounds(&set(None, two_at_once), 7), Some(1), "two that die together are one round");
    let one_after_the_other = vec![crash(5), Crash { created: time(6), ended: time(7) }];
    assert_eq!(rounds(&set(None, one_after_the_other), 7), Some(2), "a replacement that dies is the next round");
    assert_eq!(rounds(&set(note, vec![crash(100)]), 101), Some(3), "a crash that is noted does not count again");
    let old = Crash { created: time(0), ended: time(600) };
    assert_eq!(rounds(&set(None, vec![old]), 601), None, "a guest of 10 minutes did not crash young");
    let young = Crash { created: time(0), ended: time(599) };
    assert_eq!(rounds(&set(None, vec![young]), 601), Some(1), "one of just less did");
    assert_eq!(rounds(&set(note, vec![crash(700)]), 701), Some(1), "after 10 quiet minutes the count starts again");
    assert_eq!(rounds(&set(note, Vec::new()), 699), Some(3), "until then the note stays");
    assert_eq!(rounds(&set(note, Vec::new()), 700), None, "and then it goes");
    assert_eq!(judge(&set(note, vec![crash(110)]), 0, time(111)).state, None, "nothing is held that is not wanted");
}

/// Two VMs that die at once and again 1 s after each start: a plain replica set makes about 40 guests in the first minute.
#[test]
fn a_crash_loop_of_two_guests_makes_fewer_than_ten_in_the_first_minute() {
    let scenario = Scenario::new(vec![Wish { hull: Hull::VirtualMachine, replicas: 2, ..Wish::default() }], &[]);
    let mut world = crate::simulator::World::new();
    let happen =
        |world: &mut crate::simulator::World, choice| world.step(&scenario, choice).expect("within the bounds");
    use crate::simulator::Choice::{Controller, Plan, SeeAll, Time, Vanish, Write};
    let mut made = 0;
    for _ in 0..60 {
        // The operator and virt-controller, a few times a second.
        for _ in 0..4 {
            happen(&mut world, SeeAll);
            happen(&mut world, Plan);
            while world.flight.is_some() {
                happen(&mut world, Write);
            }
            if !world.sets.is_empty() {
                let before = world.sets[0].live();
                happen(&mut world, Controller { set: 0, seed: 0 });
                made += world.sets[0].live().saturating_sub(before);
            }
        }
        happen(&mut world, Time(1));
        while world.sets[0].live() > 0 {
            happen(&mut world, Vanish { set: 0, replica: 0 });
        }
    }
    assert!((4..10).contains(&made), "{made} guests");
}

/// What is planned for one set of virtual machines, in words.
fn planned(replicas: u32, set: InstanceSet, wanted: u32) -> Vec<String> {
    let scenario = Scenario::new(vec![Wish { hull: Hull::VirtualMachine, replicas: wanted, ..Wish::default() }], &[]);
    let desired = &scenario.desired[0];
    let observed = Facts {
        now: time(0),
        kubevirt: KubeVirt::Installed,
        sets: vec![SetFacts {
            name: "web-set".to_owned(),
            uid: "uid".to_owned(),
            resource_version: "1".to_owned(),
            revision: desired.revision.clone(),
            number: 1,
            replicas,
            desired_replicas: Some(replicas),
            template_hash: Some(desired.in_place.hash.clone()),
            quota: PodQuota::default(),
            probed: false,
            deleting: false,
            members: Members::Instances(set),
        }],
        foreign_sets: Vec::new(),
        service: ServiceFacts::Absent,
        status: ElasticWorkloadStatus::default(),
        scaling: None,
        resize: ResizeApi::Served,
        usage_due: None,
        enforcement: Vec::new(),
        out_of_memory: Vec::new(),
    };
    let plan = plan(desired, &observed);
    plan.steps.iter().map(|step| step.action.to_string().replace("VirtualMachineInstance", "VMI")).collect()
}

#[test]
fn each_state_of_a_scale_in() {
    const NOTHING: [&str; 0] = [];
    let three = || vec![ready("a"), ready("b"), ready("c")];
    let set = |paused, pause_seen, counted, instances| InstanceSet {
        paused,
        pause_seen,
        counted,
        instances,
        ..InstanceSet::default()
    };
    let table: Vec<(&str, u32, InstanceSet, u32, Vec<&str>)> = vec![
        ("at rest", 3, set(false, false, 3, three()), 3, NOTHING.to_vec()),
        ("fewer are wanted", 3, set(false, false, 3, three()), 2, vec!["VMIReplicaSet web-set: pause"]),
        ("the pause is not seen", 3, set(true, false, 3, three()), 2, NOTHING.to_vec()),
        ("an older pause is still shown", 3, set(false, true, 3, three()), 2, vec!["VMIReplicaSet web-set: pause"]),
        ("the pause is seen", 3, set(true, true, 3, three()), 2, vec!["delete VMI a"]),
        ("an instance is counted and not seen", 3, set(true, true, 4, three()), 2, NOTHING.to_vec()),
        ("a deletion is counted and not seen", 3, set(true, true, 2, three()), 2, NOTHING.to_vec()),
        (
            "a deletion is seen and not counted",
            3,
            set(true, true, 3, vec![ready("b"), ready("c")]),
            2,
            NOTHING.to_vec(),
        ),
        (
            "all is seen",
            3,
            set(true, true, 2, vec![ready("b"), ready("c")]),
            2,
            vec!["VMIReplicaSet web-set: scale to 2, unpause"],
        ),
        (
            "one more ended by itself",
            3,
            set(true, true, 1, vec![ready("c")]),
            2,
            vec!["VMIReplicaSet web-set: scale to 2, unpause"],
        ),
        (
            "more are wanted again, before any was deleted",
            3,
            set(true, true, 3, three()),
            4,
            vec!["VMIReplicaSet web-set: scale to 4, unpause"],
        ),
        ("all are wanted again", 3, set(true, true, 3, three()), 3, vec!["VMIReplicaSet web-set: unpause"]),
        ("more are wanted", 3, set(false, false, 3, three()), 5, vec!["VMIReplicaSet web-set: scale to 5"]),
        ("somebody lowered it: what is there is too much", 2, set(true, true, 3, three()), 2, vec!["delete VMI a"]),
    ];
    for (state, replicas, set, wanted, expected) in table {
        assert_eq!(planned(replicas, set, wanted), expected, "{state}");
    }
}

#[test]
fn victims_go_in_the_order_of_how_far_they_are() {
    let instances = vec![
        at("ready-long", Stage::Ready(time(-900))),
        at("ready-lately", Stage::Ready(time(-5))),
        at("started", Stage::Started),
        at("scheduling", Stage::Scheduling),
        at("leaving", Stage::Leaving),
        at("pending", Stage::Pending),
    ];
    let set = InstanceSet { paused: true, pause_seen: true, counted: 5, instances, ..InstanceSet::default() };
    let order = ["pending", "scheduling", "started", "ready-lately", "ready-long"];
    for gone in 1..=5 {
        let expected: Vec<String> = order[..gone].iter().map(|name| format!("delete VMI {name}")).collect();
        assert_eq!(planned(5, set.clone(), 5 - u32::try_from(gone).expect("few")), expected, "{gone} go");
    }
}

#[test]
fn each_condition() {
    let crash = Problem::CrashLoop { set: "web-x".to_owned(), rounds: 2, until: time(20) };
    let refused = Problem::Refused { object: "Service web".to_owned(), message: "no".to_owned() };
    let table: [(Progress, &str, Option<&str>, &str); 10] = [
        (Progress::Complete { state: State::Running }, "True", None, "Available"),
        (Progress::Complete { state: State::Stopped }, "True", None, "Stopped"),
        (Progress::Frozen { replicas: 2, left: 0, change_waits: true }, "True", None, "Frozen"),
        (Progress::Frozen { replicas: 2, left: 1, change_waits: false }, "False", Some("Reconciling"), "Freezing"),
        (Progress::Rolling { target: "x", returning: false }, "False", Some("Reconciling"), "RollingOut"),
        (Progress::Rolling { target: "x", returning: true }, "False", Some("Reconciling"), "RollingBack"),
        (Progress::Scaling, "False", Some("Reconciling"), "Scaling"),
        (Progress::Paused, "False", None, "Paused"),
        (Progress::Stopped { problem: &crash }, "False", Some("Stalled"), "CrashLoopBackOff"),
        (Progress::Stopped { problem: &refused }, "False", Some("Stalled"), "Refused"),
    ];
    let mut before = ElasticWorkloadStatus::default();
    let mut last: Option<(&str, i64)> = None;
    for (index, (progress, ready, other, reason)) in table.into_iter().enumerate() {
        let now = i64::try_from(index).expect("few") * 10;
        let is = conditions(&before, 7, time(now), &progress);
        let types: Vec<(&str, &str)> =
            is.iter().map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect();
        let expected: Vec<(&str, &str)> =
            [("Ready", ready)].into_iter().chain(other.map(|type_| (type_, "True"))).collect();
        assert_eq!(types, expected, "{progress:?}");
        for condition in &is {
            assert_eq!((condition.reason.as_str(), condition.observed_generation), (reason, Some(7)), "{progress:?}");
            assert!(!condition.message.is_empty());
        }
        // A transition time is that of the last change of status, not of reason.
        let since = last.filter(|(status, _)| *status == ready).map_or(now, |(_, since)| since);
        assert_eq!(is[0].last_transition_time.0, time(since), "{progress:?}");
        last = Some((ready, since));
        before.conditions = is;
    }
}
