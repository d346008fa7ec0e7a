//! The rules of the HPA, as tables. The whole of them is checked against the HPA itself, by `cli/tests` and the
//! differential test in `e2e`; these say which rule is broken.

use catamaran_autoscale::{
    Behavior, Metric,
    behavior::{Rate, Select, Unit},
    pods::{ConditionStatus, Container, InitContainer, Phase, Readiness, Requests},
    policy::{FromZero, Resource, ResourceTarget, Tolerance, ValueTarget},
    proposal::{Current, MetricError},
    samples::Samples,
};

use crate::kit::{Workload, after, condition, cpu, lost, pods, policy, start, usage, values};

/// What one metric asks for, for so many replicas and pods.
fn proposed(workload: &Workload, samples: Samples) -> Result<(i32, Current), MetricError> {
    let decision = workload.decide(vec![Ok(samples)], start());
    let report = decision.metrics.into_iter().next().expect("a report");
    report.outcome.map(|proposal| (proposal.replicas, proposal.current))
}

#[test]
fn utilization_is_cut_off_and_the_count_is_rounded_up() {
    for (used, percent, wanted) in [
        ([500, 500, 500], 50, 3),
        // 10 % up and down are tolerated, both ends included.
        ([550, 550, 550], 55, 3),
        ([450, 450, 450], 45, 3),
        ([560, 560, 560], 56, 4),
        ([440, 440, 440], 44, 3),
        ([330, 330, 330], 33, 2),
        // 559.9 thousandths of the request are 55 %.
        ([559, 560, 559], 55, 3),
        ([1000, 1000, 1000], 100, 6),
        ([0, 0, 0], 0, 0),
    ] {
        let workload = Workload::new(policy(vec![cpu(50)]), 3);
        let average = used.iter().sum::<i64>() / 3;
        let samples = usage(&used.map(Some), start());
        assert_eq!(proposed(&workload, samples), Ok((wanted, Current::Utilization { percent, average })), "{used:?}");
    }
}

#[test]
fn each_direction_has_its_tolerance() {
    for (up, down, used, wanted) in
        [(0.1, 0.1, 540, 3), (0.05, 0.1, 540, 4), (0.1, 0.0, 490, 3), (0.1, 0.0, 320, 2), (0.1, 0.5, 260, 3)]
    {
        let workload = Workload::new(policy(vec![cpu(50)]), 3);
        let workload = Workload {
            policy: {
                let mut p = workload.policy.clone();
                p.tolerance = Tolerance { up, down };
                p
            },
            ..workload
        };
        let samples = usage(&[Some(used); 3], start());
        assert_eq!(proposed(&workload, samples).expect("a value").0, wanted, "+{up} -{down} at {used}");
    }
}

#[test]
fn pods_without_a_sample_speak_against_the_change() {
    // Ten pods; those that have a sample use this much of a core, at a target of 50 %.
    for (with_sample, used, wanted) in [
        (10, 800, 16),
        // Five at nothing: 40 %, which would be fewer. The change of direction is not made.
        (5, 800, 10),
        (5, 1500, 15),
        // One at all of its request: 0.24 of it on average, rounded up to five.
        (9, 150, 5),
        (10, 150, 3),
        // Half of them at all of it: above the target, not below.
        (5, 100, 10),
    ] {
        let workload = Workload::new(policy(vec![cpu(50)]), 10);
        let samples: Vec<_> = (0..10).map(|index| (index < with_sample).then_some(used)).collect();
        let (replicas, current) = proposed(&workload, usage(&samples, start())).expect("a value");
        assert_eq!(replicas, wanted, "{with_sample} of 10 with {used}");
        assert_eq!(current, Current::Utilization { percent: i32::try_from(used / 10).expect("small"), average: used });
    }
}

#[test]
fn a_target_above_the_request_is_assumed_of_missing_pods() {
    let workload = Workload::new(policy(vec![cpu(300)]), 3);
    // Two at 100 %, one taken to be at 300 %: 166 %, which is 0.55 of the target: two replicas. At 100 % it would be
    // one.
    let samples = usage(&[Some(1000), Some(1000), None], start());
    assert_eq!(proposed(&workload, samples).expect("a value").0, 2);
}

#[test]
fn means_take_missing_pods_at_the_target_on_the_way_down() {
    let metric = Metric::Pods { name: "requests".to_owned(), target: 100_000 };
    for (samples, wanted) in [
        ([Some(50_000), Some(50_000), Some(50_000), Some(50_000)], 2),
        ([Some(50_000), Some(50_000), Some(50_000), None], 3),
        ([Some(150_000), Some(150_000), Some(150_000), None], 5),
        ([Some(120_000), None, None, None], 4),
    ] {
        let workload = Workload::new(policy(vec![metric.clone()]), 4);
        assert_eq!(proposed(&workload, values(&samples, start())).expect("a value").0, wanted, "{samples:?}");
    }
}

#[test]
fn pods_are_sorted_as_the_hpa_does() {
    let ready = |status, since| Some(Readiness { status, since: after(since) });
    let (yes, no) = (ConditionStatus::True, ConditionStatus::False);
    // The third pod of three; the others are at the target of 50 %. It uses all of its core, so what it is taken for
    // shows: counted 66 % ask for 4, left out and put back in at nothing (unready) 33 % change nothing.
    for (what, phase, deleted, started, readiness, counted) in [
        ("at work", Phase::Running, false, Some(-7200), ready(yes, -7000), true),
        ("ended", Phase::Succeeded, false, Some(-7200), ready(yes, -7000), true),
        ("failed", Phase::Failed, false, Some(-7200), ready(yes, -7000), false),
        ("going", Phase::Running, true, Some(-7200), ready(yes, -7000), false),
        ("pending", Phase::Pending, false, None, None, false),
        ("never said to be ready", Phase::Running, false, Some(-7200), None, false),
        ("without start time", Phase::Running, false, None, ready(yes, -7000), false),
        // Within five minutes of its start.
        ("just started", Phase::Running, false, Some(-60), ready(no, -60), false),
        ("just ready, sample reaches back", Phase::Running, false, Some(-60), ready(yes, -10), false),
        ("ready for a window", Phase::Running, false, Some(-60), ready(yes, -15), true),
        ("start period over to the second", Phase::Running, false, Some(-300), ready(yes, -10), true),
        // Later: it was ready once, or never.
        ("lost its readiness", Phase::Running, false, Some(-7200), ready(no, -100), true),
        ("never ready", Phase::Running, false, Some(-7200), ready(no, -7190), false),
        ("unready right after the delay", Phase::Running, false, Some(-7200), ready(no, -7170), true),
    ] {
        let mut workload = Workload::new(policy(vec![cpu(50)]), 3);
        let pod = &mut workload.pods[2];
        (pod.phase, pod.deleted, pod.started, pod.ready) = (phase, deleted, started.map(after), readiness);
        let (replicas, current) =
            proposed(&workload, usage(&[Some(500), Some(500), Some(1000)], start())).expect("a value");
        let percent = if counted { 66 } else { 50 };
        let average = if counted { 666 } else { 500 };
        assert_eq!(current, Current::Utilization { percent, average }, "{what}");
        assert_eq!(replicas, if counted { 4 } else { 3 }, "{what}");
    }
}

#[test]
fn for_other_resources_the_start_does_not_matter() {
    let metric = Metric::Resource { resource: Resource::Memory, target: ResourceTarget::AverageValue(500) };
    let mut workload = Workload::new(policy(vec![metric]), 2);
    workload.pods[1].ready = Some(Readiness { status: ConditionStatus::False, since: after(-1) });
    workload.pods[1].started = Some(after(-1));
    let (_, current) = proposed(&workload, usage(&[Some(500), Some(1500)], start())).expect("a value");
    assert_eq!(current, Current::Average(1000));
}

#[test]
fn unready_pods_hold_an_increase_back() {
    // Three ready at 100 % of a target of 50 %, and so many that are not: 6, spread over all of them.
    for (unready, wanted) in [(0, 6), (1, 6), (3, 6), (6, 9)] {
        let mut workload = Workload::new(policy(vec![cpu(50)]), 3 + unready);
        for pod in workload.pods.iter_mut().skip(3) {
            pod.ready = Some(Readiness { status: ConditionStatus::False, since: after(-7195) });
        }
        let samples = usage(&vec![Some(1000); workload.pods.len()], start());
        assert_eq!(proposed(&workload, samples).expect("a value").0, wanted, "{unready} unready");
    }
}

#[test]
fn requests_are_of_the_pod_or_of_all_its_lasting_containers() {
    let requests = |cpu| Requests { cpu, memory: None };
    let container = |name: &str, cpu| Container { name: name.to_owned(), requests: requests(cpu) };
    let init = |restart_always, cpu| InitContainer { restart_always, container: container("init", cpu) };
    let whole = || cpu(50);
    let of = |name: &str| Metric::ContainerResource {
        resource: Resource::Cpu,
        container: name.to_owned(),
        target: ResourceTarget::Utilization(50),
    };
    for (what, metric, containers, inits, pod, percent) in [
        ("one", whole(), vec![container("app", Some(500))], vec![], None, Some(100)),
        ("two", whole(), vec![container("app", Some(500)), container("log", Some(500))], vec![], None, Some(50)),
        ("one lacks it", whole(), vec![container("app", Some(500)), container("log", None)], vec![], None, None),
        ("a sidecar counts", whole(), vec![container("app", Some(500))], vec![init(true, Some(500))], None, Some(50)),
        ("a sidecar lacks it", whole(), vec![container("app", Some(500))], vec![init(true, None)], None, None),
        ("init does not", whole(), vec![container("app", Some(500))], vec![init(false, Some(5000))], None, Some(100)),
        ("the pod's", whole(), vec![container("app", None)], vec![], Some(250), Some(200)),
        ("of a container", of("app"), vec![container("app", Some(1000))], vec![], Some(250), Some(50)),
        ("no such container", of("web"), vec![container("app", Some(1000))], vec![], None, None),
        ("nothing in all", whole(), vec![container("app", Some(0))], vec![], None, None),
    ] {
        let mut workload = Workload::new(policy(vec![metric]), 1);
        workload.pods[0].containers = containers;
        workload.pods[0].init_containers = inits;
        workload.pods[0].requests = requests(pod);
        let current = proposed(&workload, usage(&[Some(500)], start())).ok().map(|(_, current)| current);
        assert_eq!(current, percent.map(|percent| Current::Utilization { percent, average: 500 }), "{what}");
    }
}

#[test]
fn a_resource_that_the_pod_does_not_name_is_that_of_its_containers_at_their_most() {
    let memory = |memory| Requests { cpu: None, memory };
    let container = |name: &str, bytes| Container { name: name.to_owned(), requests: memory(bytes) };
    let init = |restart_always, bytes| InitContainer { restart_always, container: container("init", bytes) };
    let metric = Metric::Resource { resource: Resource::Memory, target: ResourceTarget::Utilization(50) };
    for (containers, inits, overhead, percent) in [
        (vec![container("app", Some(500)), container("log", None)], vec![], None, Some(100)),
        (vec![container("app", Some(500))], vec![init(false, Some(1000))], None, Some(50)),
        (vec![container("app", Some(500))], vec![init(true, Some(500)), init(false, Some(500))], None, Some(50)),
        (vec![container("app", Some(500))], vec![init(true, Some(500)), init(false, Some(1500))], None, Some(25)),
        (vec![container("app", Some(500))], vec![], Some(500), Some(50)),
        (vec![container("app", None)], vec![], None, None),
    ] {
        let mut workload = Workload::new(policy(vec![metric.clone()]), 1);
        let pod = &mut workload.pods[0];
        (pod.containers, pod.init_containers, pod.overhead) = (containers, inits, memory(overhead));
        pod.requests = Requests { cpu: Some(1000), memory: None };
        let current = proposed(&workload, usage(&[Some(500_000)], start())).ok().map(|(_, current)| current);
        assert_eq!(current, percent.map(|percent| Current::Utilization { percent, average: 500_000 }));
    }
}

#[test]
fn containers_make_up_a_pod() {
    use catamaran_autoscale::samples::ResourceSample;
    let whole = Metric::Resource { resource: Resource::Cpu, target: ResourceTarget::AverageValue(500) };
    let of_app = Metric::ContainerResource {
        resource: Resource::Cpu,
        container: "app".to_owned(),
        target: ResourceTarget::AverageValue(500),
    };
    for (metric, containers, average) in [
        (&whole, vec![("app", Some(400)), ("log", Some(200))], Some(600)),
        (&whole, vec![("app", Some(400)), ("log", None)], None),
        (&whole, vec![], None),
        (&of_app, vec![("app", Some(400)), ("log", None)], Some(400)),
        (&of_app, vec![("app", None)], None),
        (&of_app, vec![("log", Some(5))], None),
    ] {
        let workload = Workload::new(policy(vec![metric.clone()]), 1);
        let containers = containers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let window = jiff::SignedDuration::from_secs(15);
        let sample = ResourceSample { containers, taken: start(), window };
        let samples = Samples::Resource([(crate::kit::name(0), sample)].into());
        let current = proposed(&workload, samples).map(|(_, current)| current);
        assert_eq!(current, average.map(Current::Average).ok_or(MetricError::NoneUsable));
    }
}

#[test]
fn a_value_is_shared_by_the_pods_that_are_running_and_ready() {
    let object = |target| Metric::Object {
        name: "requests".to_owned(),
        object: "Ingress web".to_owned(),
        target,
        activation: None,
    };
    let external = |target| Metric::External { name: "queue".to_owned(), target, activation: None };
    for (what, metric, samples, wanted) in [
        ("value", object(ValueTarget::Value(10_000)), Samples::Value(20_000), 4),
        ("value, tolerated", object(ValueTarget::Value(10_000)), Samples::Value(11_000), 3),
        ("average, whatever is ready", object(ValueTarget::AverageValue(10_000)), Samples::Value(55_000), 6),
        ("average, tolerated", object(ValueTarget::AverageValue(10_000)), Samples::Value(33_000), 3),
        ("series are summed", external(ValueTarget::Value(10_000)), Samples::Series(vec![10_000, 10_000]), 4),
        ("too much to count", object(ValueTarget::Value(1)), Samples::Value(i64::MAX), i32::MAX),
        ("a sum beyond 64 bits", external(ValueTarget::Value(i64::MAX)), Samples::Series(vec![i64::MAX, 5]), 3),
        ("a share of it", external(ValueTarget::AverageValue(1)), Samples::Series(vec![i64::MAX, i64::MAX]), i32::MAX),
        ("nothing", object(ValueTarget::Value(10_000)), Samples::Value(0), 0),
    ] {
        let mut workload = Workload::new(policy(vec![metric]), 3);
        // One is not ready: it does not share a value, but counts as a replica.
        workload.pods[2].ready = Some(Readiness { status: ConditionStatus::False, since: after(-100) });
        assert_eq!(proposed(&workload, samples).expect("a value").0, wanted, "{what}");
    }
}

#[test]
fn a_series_without_values_is_no_answer() {
    let workload = Workload::new(policy(vec![crate::kit::queue(10, None)]), 3);
    assert!(proposed(&workload, Samples::Series(vec![])).is_err());
    assert!(proposed(&workload, values(&[Some(1)], start())).is_err(), "samples of another type");
}

#[test]
fn the_highest_proposal_counts_and_failures_only_hold() {
    let metrics = || vec![cpu(50), crate::kit::queue(10, None)];
    let busy = || Ok(usage(&[Some(1000); 3], start()));
    let idle = || Ok(usage(&[Some(100); 3], start()));
    let long = || Ok(Samples::Series(vec![90_000]));
    for (what, samples, to, active) in [
        ("both, as fast as it may", vec![busy(), long()], 7, "ValidMetricFound"),
        ("both fewer", vec![idle(), Ok(Samples::Series(vec![10_000]))], 1, "ValidMetricFound"),
        ("one fails, the other asks for more", vec![busy(), lost()], 6, "ValidMetricFound"),
        ("one fails, the other asks for fewer", vec![idle(), lost()], 3, "FailedGetExternalMetric"),
        ("both fail", vec![lost(), lost()], 3, "FailedGetResourceMetric"),
        ("nobody answered", vec![], 3, "FailedGetResourceMetric"),
    ] {
        let workload = Workload::new(policy(metrics()), 3);
        let failed = samples.iter().filter(|samples| samples.is_err()).count() > 0 || samples.is_empty();
        let decision = workload.decide(samples, start());
        assert_eq!(decision.to, to, "{what}");
        assert_eq!(condition(&decision, "ScalingActive").expect("set").1, active, "{what}");
        assert_eq!(decision.has_failed_metrics(), failed, "{what}");
    }
}

#[test]
fn outside_the_bounds_the_metrics_are_not_asked() {
    for (replicas, to) in [(12, 10), (1, 2)] {
        let mut workload = Workload::new(policy(vec![cpu(50)]), replicas);
        workload.policy.min = 2;
        let decision = workload.decide(vec![lost()], start());
        assert_eq!((decision.to, decision.metrics.len()), (to, 0));
        assert_eq!(condition(&decision, "AbleToScale"), Some((true, "SucceededRescale")));
        assert_eq!(condition(&decision, "ScalingActive"), None);
    }
}

#[test]
fn windows_hold_the_count_within_what_was_recommended() {
    // Four replicas, recommended now / before (count, age); windows up and down.
    for (what, now, before, up, down, to, reason) in [
        ("nothing remembered", 8, vec![], 0, 300, 8, "SucceededRescale"),
        ("down, and more was wanted", 2, vec![(4, 299)], 0, 300, 4, "ScaleDownStabilized"),
        ("down, and that is over", 2, vec![(4, 300)], 0, 300, 2, "SucceededRescale"),
        ("the highest of the window", 1, vec![(2, 10), (3, 100), (4, 400)], 0, 300, 3, "SucceededRescale"),
        ("up, and fewer were wanted", 8, vec![(5, 30)], 60, 300, 5, "SucceededRescale"),
        ("up, and that is over", 8, vec![(5, 60)], 60, 300, 8, "SucceededRescale"),
        ("up needs all to agree", 8, vec![(2, 30)], 60, 300, 4, "ScaleUpStabilized"),
        ("no window at all", 2, vec![(9, 1)], 0, 0, 2, "SucceededRescale"),
        ("higher than now, in the past", 4, vec![(7, 10)], 0, 300, 4, "ReadyForNewScale"),
    ] {
        let workload = Workload::new(policy(vec![cpu(50)]), 4).remembering(&before);
        let mut behavior = Behavior::with_defaults(down);
        behavior.up.window = up;
        let workload = Workload {
            policy: {
                let mut p = workload.policy.clone();
                p.behavior = Some(behavior);
                p
            },
            ..workload
        };
        let decision = workload.decide(workload.all_use(i64::from(now) * 125, start()), start());
        assert_eq!(decision.recommendation, Some(now), "{what}");
        assert_eq!(decision.to, to, "{what}");
        assert_eq!(condition(&decision, "AbleToScale").expect("set").1, reason, "{what}");
    }
}

#[test]
fn without_behavior_the_old_rules_hold() {
    for (what, replicas, wanted, before, to, limited) in [
        ("up to double", 4, 10, vec![], 8, "ScaleUpLimit"),
        ("or four", 1, 8, vec![], 4, "ScaleUpLimit"),
        ("but not beyond the maximum", 6, 11, vec![], 10, "TooManyReplicas"),
        ("down to the minimum", 4, 0, vec![], 1, "TooFewReplicas"),
        ("the window includes its end", 4, 1, vec![(3, 300)], 3, "DesiredWithinRange"),
        ("and holds the highest up, too", 4, 5, vec![(7, 10)], 7, "DesiredWithinRange"),
    ] {
        let mut workload = Workload::new(policy(vec![cpu(50)]), replicas).remembering(&before);
        workload.policy.behavior = None;
        let milli = i64::from(wanted) * 500 / i64::from(replicas);
        let decision = workload.decide(workload.all_use(milli, start()), start());
        assert_eq!(decision.to, to, "{what}");
        assert_eq!(condition(&decision, "ScalingLimited").expect("set").1, limited, "{what}");
    }
}

#[test]
fn rates_limit_what_changes_in_a_period() {
    let rate = |kind, value, period| Rate { kind, value, period };
    let (two, half) = (rate(Unit::Pods, 2, 60), rate(Unit::Percent, 50, 60));
    // Ten replicas; events of the last periods (added, removed, age).
    for (what, select, rates, events, wanted, to) in [
        ("pods up", Select::Max, vec![two], vec![], 30, 12),
        ("percent up", Select::Max, vec![half], vec![], 30, 15),
        ("the most", Select::Max, vec![two, half], vec![], 30, 15),
        ("the least", Select::Min, vec![two, half], vec![], 30, 12),
        ("none", Select::Disabled, vec![two], vec![], 30, 10),
        ("one came already", Select::Max, vec![two], vec![(1, 0, 30)], 30, 11),
        ("more than allowed came", Select::Max, vec![two], vec![(5, 0, 30)], 30, 10),
        ("that is over", Select::Max, vec![two], vec![(5, 0, 60)], 30, 12),
        ("some went", Select::Max, vec![two], vec![(0, 3, 30)], 30, 15),
        ("percent of the start, rounded up", Select::Max, vec![half], vec![(1, 0, 30)], 30, 14),
        ("pods down", Select::Max, vec![two], vec![], 1, 8),
        ("percent down, rounded down", Select::Max, vec![rate(Unit::Percent, 15, 60)], vec![], 1, 8),
        ("the most down", Select::Max, vec![two, half], vec![], 1, 5),
        ("the least down", Select::Min, vec![two, half], vec![], 1, 8),
        ("none down", Select::Disabled, vec![two], vec![], 1, 10),
        ("one went already", Select::Max, vec![two], vec![(0, 1, 30)], 1, 9),
        ("all at once", Select::Max, vec![rate(Unit::Percent, 100, 15)], vec![], 1, 1),
        ("more than all", Select::Max, vec![rate(Unit::Percent, 900, 15)], vec![], 1, 1),
        ("no policies", Select::Max, vec![], vec![], 30, 10),
    ] {
        let mut workload = Workload::new(policy(vec![cpu(50)]), 10);
        workload.policy.max = 40;
        let mut behavior = Behavior::with_defaults(0);
        (behavior.up.select, behavior.up.rates) = (select, rates.clone());
        (behavior.down.select, behavior.down.rates) = (select, rates);
        workload.policy.behavior = Some(behavior);
        let ups = events.iter().filter(|event| event.0 > 0).map(|event| (event.0, after(-event.2)));
        let downs = events.iter().filter(|event| event.1 > 0).map(|event| (event.1, after(-event.2)));
        workload.history = catamaran_autoscale::History::from_lists([], ups, downs);
        let decision = workload.decide(workload.all_use(i64::from(wanted) * 50, start()), start());
        assert_eq!(decision.to, to, "{what}");
    }
}

#[test]
fn zero_is_left_alone_unless_the_autoscaler_went_there() {
    let queue = || Ok(Samples::Series(vec![25_000]));
    for (what, from_zero, scaled_to_zero, metric, min, to, active) in [
        ("gate off", FromZero::Never, true, crate::kit::queue(10, None), 0, 0, (false, "ScalingDisabled")),
        ("by hand", FromZero::IfScaledThere, false, crate::kit::queue(10, None), 0, 0, (false, "ScalingDisabled")),
        ("by itself", FromZero::IfScaledThere, true, crate::kit::queue(10, None), 0, 3, (true, "ValidMetricFound")),
        ("cpu alone", FromZero::IfScaledThere, true, cpu(50), 0, 0, (false, "ScalingDisabled")),
        (
            "the minimum rose",
            FromZero::IfScaledThere,
            true,
            crate::kit::queue(100, None),
            2,
            2,
            (true, "ValidMetricFound"),
        ),
        (
            "here it always goes on",
            FromZero::Always,
            false,
            crate::kit::queue(10, None),
            0,
            3,
            (true, "ValidMetricFound"),
        ),
    ] {
        let mut workload = Workload::new(policy(vec![metric]), 0);
        workload.policy.min = min;
        workload.policy.settings.from_zero = from_zero;
        workload.scaled_to_zero = scaled_to_zero;
        let decision = workload.decide(vec![queue()], start());
        assert_eq!(decision.to, to, "{what}");
        assert_eq!(condition(&decision, "ScalingActive"), Some(active), "{what}");
        let zero = condition(&decision, "ScaledToZero");
        assert_eq!(zero, (to > 0).then_some((false, "NotScaledToZero")), "{what}");
    }
}

#[test]
fn going_to_zero_is_noted() {
    for (from_zero, noted) in [
        (FromZero::Never, None),
        (FromZero::IfScaledThere, Some((true, "ScaledToZero"))),
        (FromZero::Always, Some((true, "ScaledToZero"))),
    ] {
        let mut workload = Workload::new(policy(vec![crate::kit::queue(10, None)]), 2);
        workload.policy.min = 0;
        workload.policy.settings.from_zero = from_zero;
        let decision = workload.decide(vec![Ok(Samples::Series(vec![0]))], start());
        assert_eq!(decision.to, 0);
        assert_eq!(condition(&decision, "ScaledToZero"), noted);
    }
}

#[test]
fn a_failed_write_leaves_the_count_and_says_so() {
    use catamaran_autoscale::condition::{Change, Write};
    let workload = Workload::new(policy(vec![cpu(50)]), 3);
    let decision = workload.decide(workload.all_use(1000, start()), start());
    let changes = decision.changes(&Write::Failed("conflict".to_owned()));
    let told: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Set(condition) => (condition.kind.name(), condition.status, condition.reason),
            Change::Remove(kind) => (kind.name(), false, "removed"),
        })
        .collect();
    assert_eq!(
        told,
        [
            ("AbleToScale", false, "FailedUpdateScale"),
            ("ScalingActive", true, "ValidMetricFound"),
            ("ScalingLimited", false, "DesiredWithinRange")
        ]
    );
    assert_eq!(pods(3).len(), 3);
}
