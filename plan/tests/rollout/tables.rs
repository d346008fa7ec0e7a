//! Small rules, case by case: the backoff of crashing guests, each state of a scale-in of virtual machines, each
//! condition.

use catamaran_crds::{ElasticWorkloadStatus, Hull, State};
use catamaran_plan::{
    Facts, Problem,
    facts::{
        Instance, InstanceSet, KubeVirt, Launcher, Members, Pause, ResizeApi, Selects, ServiceFacts, SetFacts, Stage,
        TemplateQuota,
    },
    plan,
    status::{Progress, conditions},
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

/// What is planned for one set of virtual machines, in words.
fn planned(replicas: u32, set: InstanceSet, wanted: u32) -> Vec<String> {
    planned_with(ServiceFacts::Absent, replicas, set, wanted)
}

fn planned_with(service: ServiceFacts, replicas: u32, set: InstanceSet, wanted: u32) -> Vec<String> {
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
            quota: TemplateQuota::default(),
            probed: false,
            deleting: false,
            failure: None,
            changed_by: None,
            members: Members::Instances(Box::new(set)),
        }],
        foreign_sets: Vec::new(),
        service,
        status: ElasticWorkloadStatus::default(),
        watched_since: jiff::Timestamp::MIN,
        resize: ResizeApi::Served,
        usage_due: None,
        enforcement: Vec::new(),
        out_of_memory: Vec::new(),
        strays: Vec::new(),
        troubles: Vec::new(),
    };
    let plan = plan(desired, &observed, None);
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
fn ready_victims_leave_the_service_before_they_go() {
    let with = |name: &str, leaving: Option<i64>, served: bool| Instance {
        launchers: vec![Launcher {
            name: format!("virt-launcher-{name}"),
            uid: format!("pod-{name}"),
            annotation: None,
            leaving: leaving.map(time),
            served,
        }],
        ..ready(name)
    };
    let b = || with("b", None, true);
    let table: Vec<(&str, Instance, u32, Vec<&str>)> = vec![
        ("it is in the Service", with("a", None, true), 1, vec!["take Pod virt-launcher-a out of the Service"]),
        ("EndpointSlices have it still", with("a", Some(-9), true), 1, vec![]),
        ("they never drop it", with("a", Some(-10), true), 1, vec!["delete VMI a"]),
        ("they dropped it just now", with("a", Some(-1), false), 1, vec![]),
        ("the kube-proxies had time to follow", with("a", Some(-2), false), 1, vec!["delete VMI a"]),
        ("it was chosen before, and stays chosen", with("z", Some(-1), false), 1, vec![]),
        (
            "it was ready no longer",
            Instance { stage: Stage::Started, ..with("a", None, true) },
            1,
            vec!["delete VMI a"],
        ),
        (
            "the scale-in is called off",
            with("a", Some(-1), true),
            2,
            vec!["put Pod virt-launcher-a back into the Service", "VMIReplicaSet web-set: unpause"],
        ),
    ];
    for (state, first, wanted, expected) in table {
        let paused = InstanceSet { paused: true, pause_seen: true, counted: 2, ..InstanceSet::default() };
        let set = InstanceSet { instances: vec![first, b()], ..paused };
        let (uid, ports) = ("uid".to_owned(), Vec::new());
        let service = ServiceFacts::Owned { uid, ports, selects: Some(Selects::Replicas) };
        let mut steps = planned_with(service, 2, set, wanted);
        steps.retain(|step| !step.contains("the Service with") && step != "delete the Service");
        steps.sort();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(steps, expected, "{state}");
    }
    // Without a Service nobody has to be waited for.
    let set = InstanceSet {
        paused: true,
        pause_seen: true,
        counted: 2,
        instances: vec![with("a", None, false), b()],
        ..InstanceSet::default()
    };
    assert_eq!(planned(2, set, 1), ["delete VMI a"]);
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
        (
            Progress::Rolling { target: "x", returning: false, trouble: None },
            "False",
            Some("Reconciling"),
            "RollingOut",
        ),
        (
            Progress::Rolling { target: "x", returning: true, trouble: None },
            "False",
            Some("Reconciling"),
            "RollingBack",
        ),
        (Progress::Scaling { trouble: None }, "False", Some("Reconciling"), "Scaling"),
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
