//! Types of metrics that autoscaling/v2 does not have.

use catamaran_autoscale::{
    Metric,
    policy::{PressureResource, Stall, ValueTarget},
    proposal::Current,
    samples::Samples,
};

use crate::kit::{Workload, condition, lost, policy, start, values};

/// Percent, in the thousandths that samples have.
fn percent(percent: i64) -> Option<i64> {
    Some(percent * 1000)
}

#[test]
fn shares_of_time_are_averaged_over_the_pods_at_work() {
    let pressure = Metric::Pressure { resource: PressureResource::Cpu, stall: Stall::Some, target: 20 };
    for metric in [pressure, Metric::Throttling { target: 20 }] {
        for (shares, average, wanted) in [
            ([percent(20), percent(20), percent(20), percent(20)], 20_000, 4),
            ([percent(22), percent(22), percent(22), percent(22)], 22_000, 4),
            ([percent(40), percent(40), percent(40), percent(40)], 40_000, 8),
            ([percent(100), percent(0), percent(0), percent(0)], 25_000, 5),
            ([percent(5), percent(5), percent(5), percent(5)], 5000, 1),
            ([percent(0), percent(0), percent(0), percent(0)], 0, 0),
            // As of a Pods metric: a pod without a sample is at the target on the way down, and at nothing on the way
            // up.
            ([percent(5), percent(5), percent(5), None], 5000, 2),
            ([percent(40), percent(40), percent(40), None], 40_000, 6),
            ([percent(25), None, None, None], 25_000, 4),
            ([Some(12_345), Some(12_345), Some(12_345), Some(12_345)], 12_345, 3),
        ] {
            let workload = Workload::new(policy(vec![metric.clone()]), 4);
            let decision = workload.decide(vec![Ok(values(&shares, start()))], start());
            let proposal = decision.metrics[0].outcome.as_ref().expect("a value");
            assert_eq!(
                (proposal.replicas, proposal.current),
                (wanted, Current::Share(average)),
                "{metric:?} {shares:?}"
            );
        }
    }
}

#[test]
fn they_are_named_in_reports_and_conditions() {
    for (metric, name, reason) in [
        (
            Metric::Pressure { resource: PressureResource::Io, stall: Stall::Full, target: 10 },
            "io pressure (full)",
            "FailedGetPressureMetric",
        ),
        (Metric::Throttling { target: 10 }, "cpu throttling", "FailedGetThrottlingMetric"),
        (
            Metric::Prometheus { name: "rate".into(), target: ValueTarget::Value(1000), activation: None },
            "rate",
            "FailedGetPrometheusMetric",
        ),
    ] {
        let decision = Workload::new(policy(vec![metric]), 2).decide(vec![lost()], start());
        assert_eq!(decision.metrics[0].name, name);
        assert_eq!(condition(&decision, "ScalingActive"), Some((false, reason)));
        assert_eq!(decision.to, 2);
    }
}

#[test]
fn prometheus_is_decided_like_an_object() {
    for (target, milli, wanted) in [
        (ValueTarget::Value(10_000), 20_000, 6),
        (ValueTarget::Value(10_000), 11_000, 3),
        (ValueTarget::AverageValue(10_000), 55_000, 6),
        (ValueTarget::AverageValue(10_000), 33_000, 3),
    ] {
        let prometheus = Metric::Prometheus { name: "m".into(), target, activation: None };
        let object = Metric::Object { name: "m".into(), object: "Service m".into(), target, activation: None };
        let of = |metric| {
            let decision = Workload::new(policy(vec![metric]), 3).decide(vec![Ok(Samples::Value(milli))], start());
            decision.metrics[0].outcome.clone().expect("a value")
        };
        assert_eq!(of(prometheus.clone()), of(object));
        assert_eq!(of(prometheus).replicas, wanted);
    }
}

#[test]
fn samples_of_another_type_are_no_answer() {
    let pressure = Metric::Pressure { resource: PressureResource::Cpu, stall: Stall::Some, target: 20 };
    let workload = Workload::new(policy(vec![pressure]), 2);
    let decision = workload.decide(vec![Ok(Samples::Value(5))], start());
    assert!(decision.has_failed_metrics());
    assert_eq!(decision.to, 2);
}

#[test]
fn without_metrics_the_minimum_counts() {
    let mut workload = Workload::new(policy(vec![]), 5);
    workload.policy.min = 3;
    assert_eq!(workload.decide(vec![], start()).to, 3);
    workload.policy.min = 0;
    assert_eq!(workload.decide(vec![], start()).to, 0);
    // The window holds for it as well: a schedule that ends at night and starts again at once removes nothing.
    assert_eq!(workload.remembering(&[(5, 100)]).decide(vec![], start()).to, 5);
}
