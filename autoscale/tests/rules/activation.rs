//! To zero and back: thresholds of their own, beside the target.

use catamaran_autoscale::{
    Behavior, Decision, Metric,
    behavior::{Rate, Rules, Select, Unit},
    decision::Step,
    policy::ValueTarget,
    samples::{NoSamples, Samples},
};

use crate::kit::{Workload, after, condition, cpu, lost, policy, queue, start, usage};

type Answer = Result<Samples, NoSamples>;

fn length(units: i64) -> Answer {
    Ok(Samples::Series(vec![units * 1000]))
}

fn workload(metrics: Vec<Metric>, replicas: i32) -> Workload {
    let mut workload = Workload::new(policy(metrics), replicas);
    workload.policy.min = 0;
    workload
}

#[test]
fn above_the_threshold_there_is_demand_at_it_there_is_none() {
    // A share of 10 for each replica; demand from above 5.
    for (replicas, units, to) in
        [(0, 0, 0), (0, 5, 0), (0, 6, 1), (0, 25, 3), (1, 6, 1), (1, 5, 0), (3, 5, 0), (3, 0, 0), (3, 6, 1), (3, 31, 3)]
    {
        let decision = workload(vec![queue(10, Some(5))], replicas).decide(vec![length(units)], start());
        assert_eq!(decision.to, to, "{replicas} replicas, {units} waiting");
    }
}

#[test]
fn without_a_threshold_only_a_value_of_zero_means_zero() {
    for (replicas, units, to) in [(0, 0, 0), (0, 1, 1), (3, 0, 0), (3, 1, 1)] {
        let decision = workload(vec![queue(10, None)], replicas).decide(vec![length(units)], start());
        assert_eq!(decision.to, to, "{replicas} replicas, {units} waiting");
        assert!(!decision.steps.iter().any(|step| matches!(step, Step::NoDemand | Step::Demand { .. })));
    }
}

#[test]
fn the_value_itself_counts_for_each_type() {
    let value = ValueTarget::Value(10_000);
    let share = ValueTarget::AverageValue(10_000);
    let object =
        |target| Metric::Object { name: "q".into(), object: "Service q".into(), target, activation: Some(5000) };
    let external = |target| Metric::External { name: "q".into(), target, activation: Some(5000) };
    let prometheus = |target| Metric::Prometheus { name: "q".into(), target, activation: Some(5000) };
    let (one, series) = (|milli| Samples::Value(milli), |milli| Samples::Series(vec![milli / 2, milli - milli / 2]));
    for (metric, samples) in [
        (object(value), one as fn(i64) -> Samples),
        (object(share), one),
        (prometheus(value), one),
        (prometheus(share), one),
        (external(value), series),
        (external(share), series),
    ] {
        // Four replicas: each has a share of 1.5 or less, and the value is what is compared.
        for (milli, to) in [(5001, 1), (5000, 0)] {
            let decision = workload(vec![metric.clone()], 4).decide(vec![Ok(samples(milli))], start());
            assert_eq!(decision.to.min(1), to, "{metric:?} at {milli}");
        }
    }
}

#[test]
fn any_demand_keeps_a_replica_and_none_at_all_overrules_pods() {
    let other =
        || Metric::External { name: "topic".to_owned(), target: ValueTarget::AverageValue(10_000), activation: None };
    let busy = |replicas| Ok(usage(&vec![Some(900); replicas], start()));
    for (what, metrics, samples, to) in [
        ("the first has demand", vec![queue(10, Some(5)), other()], vec![length(6), length(0)], 1),
        ("one without a threshold has 0", vec![queue(10, Some(5)), other()], vec![length(5), length(1)], 1),
        ("none has", vec![queue(10, Some(5)), other()], vec![length(5), length(0)], 0),
        ("busy pods are no demand", vec![queue(10, Some(5)), cpu(50)], vec![length(5), busy(2)], 0),
        ("with demand they count", vec![queue(10, Some(5)), cpu(50)], vec![length(6), busy(2)], 4),
        ("one lost, no demand on the other", vec![queue(10, Some(5)), other()], vec![lost(), length(0)], 2),
        ("one lost, demand on the other: no fewer", vec![queue(10, Some(5)), other()], vec![lost(), length(3)], 2),
        ("one lost, the other asks for more", vec![queue(10, Some(5)), other()], vec![lost(), length(60)], 6),
        ("pods lost, no demand", vec![queue(10, Some(5)), cpu(50)], vec![length(0), lost()], 2),
    ] {
        assert_eq!(workload(metrics, 2).decide(samples, start()).to, to, "{what}");
    }
}

#[test]
fn above_a_minimum_it_does_not_matter() {
    let mut workload = workload(vec![queue(10, Some(5))], 3);
    workload.policy.min = 2;
    assert_eq!(workload.decide(vec![length(0)], start()).to, 2);
}

#[test]
fn zero_waits_for_the_downscale_window() {
    let mut workload = workload(vec![queue(10, Some(5))], 2);
    let mut at = |seconds, units| workload.pass(vec![length(units)], after(seconds)).to;
    assert_eq!(at(0, 20), 2);
    assert_eq!(at(100, 0), 2);
    assert_eq!(at(299, 0), 2);
    assert_eq!(at(300, 0), 0);
    assert_eq!(at(301, 6), 1);
}

#[test]
fn demand_wakes_at_once_whatever_windows_and_rates_say() {
    let slow = Rules {
        window: 600,
        select: Select::Max,
        // Percent of nothing is nothing.
        rates: vec![Rate { kind: Unit::Percent, value: 100, period: 60 }],
    };
    let mut workload = workload(vec![queue(10, Some(5))], 0).remembering(&[(0, 30)]);
    workload.policy.behavior = Some(Behavior { up: slow, ..Behavior::with_defaults(300) });
    let decision = workload.decide(vec![length(30)], start());
    assert_eq!(decision.to, 1);
    assert!(matches!(decision.steps.last(), Some(Step::Demand { metric: 0 })));
    // Without a threshold the rules of the HPA keep it at zero.
    workload.policy.metrics = vec![queue(10, None)];
    assert_eq!(workload.decide(vec![length(30)], start()).to, 0);
}

#[test]
fn pods_alone_cannot_wake_it_so_one_stays() {
    let idle = |replicas: usize| vec![Ok(usage(&vec![Some(0); replicas], start()))];
    let decision = workload(vec![cpu(50)], 2).decide(idle(2), start());
    assert_eq!(decision.to, 1);
    assert!(
        decision.to_string().contains("1 instead of 0: one, since no metric could wake it from zero"),
        "{decision}"
    );
    // Found without replicas: it is brought back.
    assert_eq!(workload(vec![cpu(50)], 0).decide(vec![lost()], start()).to, 1);
    // The maximum stands above that.
    let mut closed = workload(vec![cpu(50)], 2);
    closed.policy.max = 0;
    assert_eq!(closed.decide(idle(2), start()).to, 0);
}

#[test]
fn a_workload_at_zero_without_answers_stays_there() {
    let decision: Decision = workload(vec![queue(10, Some(5))], 0).decide(vec![lost()], start());
    assert_eq!(decision.to, 0);
    assert_eq!(condition(&decision, "ScalingActive"), Some((false, "FailedGetExternalMetric")));
}
