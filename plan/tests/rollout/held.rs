//! The count where nothing decides it: a pause of scaling is never an outage.

use catamaran_crds::{ElasticWorkloadStatus, HeldReplicas, ScalingStatus};
use catamaran_plan::{Action, Facts, Plan, facts::Members, plan};

use jiff::SignedDuration;

use crate::in_place::{desired, running};

/// What there is when scaling has brought a workload to seven replicas.
fn seven() -> Facts {
    let goal = desired("container: {image: a}");
    let mut facts = running(&goal);
    facts.sets[0].replicas = 7;
    facts.sets[0].desired_replicas = Some(7);
    if let Members::Pods(pods) = &mut facts.sets[0].members {
        (pods.live, pods.ready, pods.available) = (7, 7, 7);
    }
    facts.status = ElasticWorkloadStatus { observed_generation: Some(1), desired_replicas: 7, ..facts.status };
    facts
}

fn scaling(mode: &str, more: &str) -> String {
    format!(
        "container: {{image: a}}, {more} scaling: {{mode: {mode}, maxReplicas: 9, metrics: [{{type: Resource,
            resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 60}}}}}}]}}"
    )
}

fn scaled_to(plan: &Plan) -> Option<u32> {
    plan.steps.iter().find_map(|step| match &step.action {
        Action::UpdateSet(update) => update.spec.replicas,
        _ => None,
    })
}

fn held(replicas: i32, spec: Option<i32>) -> Option<HeldReplicas> {
    Some(HeldReplicas { replicas, spec })
}

#[test]
fn without_a_count_in_the_spec_the_count_stays() {
    for spec in ["container: {image: a}".to_owned(), scaling("Off", ""), scaling("Recommend", "")] {
        let planned = plan(&desired(&spec), &seven(), None);
        assert_eq!((scaled_to(&planned), planned.status.desired_replicas), (None, 7), "{spec}\n{planned}");
        assert_eq!(planned.status.held, held(7, None), "{spec}");
        assert!(planned.announcements.iter().any(|event| event.reason == "CountHeld"), "{spec}");
        // Once said, no more.
        let next = Facts { status: planned.status.clone(), ..seven() };
        let next = plan(&desired(&spec), &next, None);
        assert_eq!((next.status.held, next.announcements.is_empty()), (planned.status.held, true), "{spec}");
    }
}

#[test]
fn with_a_count_in_the_spec_that_counts() {
    for spec in [
        "container: {image: a}, replicas: 3".to_owned(),
        scaling("Off", "replicas: 3,"),
        scaling("Recommend", "replicas: 3,"),
    ] {
        let facts = Facts { status: ElasticWorkloadStatus { held: held(7, None), ..seven().status }, ..seven() };
        let planned = plan(&desired(&spec), &facts, None);
        assert_eq!((scaled_to(&planned), &planned.status.held), (Some(3), &None), "{spec}\n{planned}");
    }
}

#[test]
fn in_mode_hold_the_count_stays_until_another_one_is_set() {
    let mut facts = seven();
    for (spec, count, what) in [
        ("replicas: 2,", None, "whatever the spec says"),
        ("replicas: 2,", None, "still"),
        ("replicas: 5,", Some(5), "kubectl scale"),
        ("", None, "taken out"),
        ("replicas: 0,", Some(0), "nobody is to run"),
    ] {
        let planned = plan(&desired(&scaling("Hold", spec)), &facts, None);
        assert_eq!(scaled_to(&planned), count, "{what}\n{planned}");
        if let Some(count) = count {
            (facts.sets[0].replicas, facts.sets[0].desired_replicas) = (count, Some(count));
            if let Members::Pods(pods) = &mut facts.sets[0].members {
                (pods.live, pods.ready, pods.available) = (count, count, count);
            }
        }
        facts.status = planned.status;
    }
    assert_eq!(facts.status.held, held(0, Some(0)));
}

#[test]
fn a_held_count_outlasts_a_stop_and_a_lost_write() {
    let spec = "container: {image: a}";
    let mut facts = seven();
    facts.status = plan(&desired(spec), &facts, None).status;
    let stopped = plan(&desired("container: {image: a}, state: Stopped"), &facts, None);
    assert_eq!((scaled_to(&stopped), &stopped.status.held), (Some(0), &held(7, None)));
    (facts.sets[0].replicas, facts.sets[0].desired_replicas) = (0, Some(0));
    if let Members::Pods(pods) = &mut facts.sets[0].members {
        (pods.live, pods.ready, pods.available) = (0, 0, 0);
        pods.pods.clear();
    }
    facts.status = stopped.status;
    assert_eq!(scaled_to(&plan(&desired(spec), &facts, None)), Some(7));
    // The count of mode Hold was noted, and the write of the set failed: it is tried again.
    let facts = Facts { status: ElasticWorkloadStatus { held: held(4, Some(4)), ..seven().status }, ..seven() };
    assert_eq!(scaled_to(&plan(&desired(&scaling("Hold", "replicas: 4,")), &facts, None)), Some(4));
}

#[test]
fn a_new_workload_begins_with_one_and_scaling_with_what_there_is() {
    let goal = desired("container: {image: a}");
    let new = Facts { sets: Vec::new(), ..running(&goal) };
    let planned = plan(&goal, &new, None);
    assert_eq!((planned.status.desired_replicas, &planned.status.held), (1, &None));
    // Auto, and nothing decided yet.
    let planned = plan(&desired(&scaling("Auto", "replicas: 2,")), &seven(), None);
    assert_eq!((scaled_to(&planned), planned.status.desired_replicas), (None, 7), "{planned}");
}

/// With all replicas that a plan asked for.
fn carried_out(mut facts: Facts, planned: &Plan) -> Facts {
    if let Some(count) = scaled_to(planned) {
        (facts.sets[0].replicas, facts.sets[0].desired_replicas) = (count, Some(count));
        if let Members::Pods(pods) = &mut facts.sets[0].members {
            (pods.live, pods.ready, pods.available) = (count, count, count);
        }
    }
    facts.status = planned.status.clone();
    facts
}

/// From what scaling or mode Hold had made of it; a count that is set later is taken at once.
#[test]
fn the_way_to_the_count_of_the_spec_is_that_of_the_rates() {
    let spec = |mode: &str, replicas: u32| {
        let behavior = "behavior: {scaleDown: {policies: [{type: Pods, value: 2, periodSeconds: 60}]}}, metrics";
        desired(&scaling(mode, &format!("replicas: {replicas},")).replace("metrics", behavior))
    };
    let scaled = ScalingStatus { desired_replicas: 7, ..ScalingStatus::default() };
    let of_scaling = ElasticWorkloadStatus { scaling: Some(scaled), ..seven().status };
    let of_hold = ElasticWorkloadStatus { held: held(7, Some(2)), ..seven().status };
    for (mode, status) in [("Off", of_scaling.clone()), ("Recommend", of_scaling), ("Off", of_hold)] {
        let mut facts = Facts { status, ..seven() };
        let start = facts.now;
        for (seconds, count) in [(0, 5), (60, 3), (120, 2)] {
            facts.now = start + SignedDuration::from_secs(seconds);
            let planned = plan(&spec(mode, 2), &facts, None);
            assert_eq!(scaled_to(&planned), Some(count), "{mode} after {seconds} s\n{planned}");
            assert_eq!(
                planned.announcements.iter().filter(|event| event.reason == "CountMoves").count(),
                usize::from(seconds == 0),
                "told once"
            );
            facts = carried_out(facts, &planned);
            let next = plan(&spec(mode, 2), &facts, None);
            assert_eq!((scaled_to(&next), &next.status.moving), (None, &facts.status.moving), "nothing until then");
            assert_eq!(next.requeue_at, (count != 2).then(|| facts.now + SignedDuration::from_secs(60)), "{next}");
        }
        assert_eq!(facts.status.moving, None, "at its end");
    }
    // Set with scaling off, and no scaling at all.
    let facts = Facts { status: ElasticWorkloadStatus { scaling: None, ..seven().status }, ..seven() };
    assert_eq!(scaled_to(&plan(&spec("Off", 2), &facts, None)), Some(2));
    let plain = desired("container: {image: a}, replicas: 2");
    let facts = Facts { status: ElasticWorkloadStatus { held: held(7, Some(2)), ..seven().status }, ..seven() };
    assert_eq!(scaled_to(&plan(&plain, &facts, None)), Some(2));
}
