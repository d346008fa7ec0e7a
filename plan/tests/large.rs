//! Very large workloads: the work of a plan grows about as the number of replicas does, victims included.
//!
//! What is compared is the CPU time of this thread for n and for 4 n replicas, so neither the machine nor who else is
//! on it counts. Linear work gives 4, n log n a little more, quadratic 16.

use std::time::Duration;

use catamaran_crds::ElasticWorkload;
use catamaran_plan::{
    Action, Facts, Goal, Plan,
    check::check,
    facts::{
        Instance, InstanceSet, KubeVirt, Members, Pause, Pod, PodQuota, PodSet, ResizeApi, ServiceFacts, SetFacts,
        Stage, TemplateQuota,
    },
    plan, resolve,
};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// What four times the replicas may cost at most.
const BOUND: f64 = 9.0;

fn goal(hull: &str, replicas: usize) -> Goal {
    let mut spec = json!({
        "replicas": replicas,
        "scaling": {"maxReplicas": 100_000, "mode": "Recommend", "victims": "LeastBusy",
            "schedules": [{"name": "day", "start": "0 8 * * *", "end": "0 20 * * *", "minReplicas": 3}]},
        "quota": {"memory": {"request": "64Mi"}},
    });
    spec[hull] = json!({"image": "registry.test/web:1"});
    let workload: ElasticWorkload = serde_json::from_value(json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload",
        "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 1}, "spec": spec,
    }))
    .expect("a workload");
    resolve(&workload, None).expect("it makes sense")
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

/// Usage in no order.
fn usage(index: usize) -> Option<i64> {
    i64::try_from(index * 7919 % 10_007).ok()
}

fn facts(goal: &Goal, count: usize, members: Members) -> Facts {
    let replicas = u32::try_from(count).expect("few enough");
    let set = SetFacts {
        name: format!("web-{}", goal.revision),
        uid: "set".to_owned(),
        resource_version: "1".to_owned(),
        revision: goal.revision.clone(),
        number: 1,
        replicas,
        desired_replicas: Some(replicas),
        template_hash: Some(goal.in_place.hash.clone()),
        quota: TemplateQuota {
            containers: goal
                .in_place
                .resources
                .map(|quota| (goal.in_place.container.clone(), quota))
                .into_iter()
                .collect(),
            ..TemplateQuota::default()
        },
        probed: false,
        deleting: false,
        failure: None,
        changed_by: None,
        members,
    };
    Facts {
        now: now(),
        watched_since: Timestamp::MIN,
        kubevirt: KubeVirt::Installed,
        sets: vec![set],
        foreign_sets: Vec::new(),
        service: ServiceFacts::Absent,
        status: Default::default(),
        resize: ResizeApi::Served,
        usage_due: None,
        enforcement: Vec::new(),
        out_of_memory: Vec::new(),
        strays: Vec::new(),
        troubles: Vec::new(),
    }
}

/// A scale-in of pods by half; every pod is resized as well.
fn pods(count: usize) -> (Goal, Facts) {
    let goal = goal("container", count / 2);
    let pod = |index| Pod {
        name: format!("web-{index:05}"),
        uid: format!("uid-{index}"),
        created: now(),
        ready_since: Some(now()),
        usage: usage(index),
        marked: false,
        quota: PodQuota::default(),
        asked: None,
        refused: None,
    };
    let live = u32::try_from(count).expect("few enough");
    let pods = (0..count).map(pod).collect();
    let set = PodSet { live, ready: live, available: live, current: true, pods, ..PodSet::default() };
    let facts = facts(&goal, count, Members::Pods(set));
    (goal, facts)
}

/// A scale-in of virtual machines by half, once the pause is seen.
fn machines(count: usize) -> (Goal, Facts) {
    let goal = goal("virtualMachine", count / 2);
    let instance = |index| Instance {
        name: format!("web{index:05}"),
        uid: format!("uid-{index}"),
        created: now(),
        stage: Stage::Ready(now()),
        pause: Pause::Running,
        usage: usage(index),
        launchers: Vec::new(),
    };
    let instances = (0..count).map(instance).collect();
    let counted = u32::try_from(count).expect("few enough");
    let set = InstanceSet { paused: true, pause_seen: true, counted, instances, ..InstanceSet::default() };
    let facts = facts(&goal, count, Members::Instances(Box::new(set)));
    (goal, facts)
}

/// The CPU time of this thread for a plan and its check, in the best of some tries.
fn work((goal, facts): (Goal, Facts)) -> (Plan, Duration) {
    let spent = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("a part of a second"))
    };
    let tries = (0..5).map(|_| {
        let before = spent();
        let plan = plan(&goal, &facts, None);
        check(&goal, &facts, &plan).expect("it keeps its promises");
        (plan, spent() - before)
    });
    tries.min_by_key(|(_, work)| *work).expect("a try")
}

fn ratio(few: Duration, many: Duration) -> f64 {
    many.as_secs_f64() / few.as_secs_f64()
}

#[test]
fn victims_of_20_000_pods_are_chosen_in_about_linear_time() {
    let ((_, few), (plan, many)) = (work(pods(5_000)), work(pods(20_000)));
    let marks = plan.steps.iter().filter(|step| matches!(step.action, Action::MarkPod { marked: true, .. })).count();
    assert_eq!(marks, 10_000);
    assert!(ratio(few, many) < BOUND, "{few:?} for 5,000, {many:?} for 20,000");
}

#[test]
fn victims_of_10_000_virtual_machines_are_chosen_in_about_linear_time() {
    let ((_, few), (plan, many)) = (work(machines(2_500)), work(machines(10_000)));
    let deleted = plan.steps.iter().filter(|step| matches!(step.action, Action::DeleteInstance { .. })).count();
    assert_eq!(deleted, 5_000);
    assert!(ratio(few, many) < BOUND, "{few:?} for 2,500, {many:?} for 10,000");
}
