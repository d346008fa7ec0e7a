//! What happens when no metric answers.

use catamaran_autoscale::{
    decision::{Hold, Step},
    fallback::{Fallback, FallbackBehavior},
    samples::Samples,
};

use crate::kit::{Workload, after, condition, cpu, lost, policy, queue};

fn workload(replicas: i32, fallback: Option<Fallback>) -> Workload {
    let mut workload = Workload::new(policy(vec![cpu(50)]), replicas);
    workload.policy.fallback = fallback;
    workload
}

fn fallback(replicas: i32, behavior: FallbackBehavior) -> Option<Fallback> {
    Some(Fallback { after: 60, replicas, behavior })
}

#[test]
fn until_then_the_count_is_held_then_the_fallback_applies() {
    use FallbackBehavior::{CurrentReplicas, CurrentReplicasIfHigher, CurrentReplicasIfLower, Static};
    for (behavior, fewer, more) in
        [(Static, 3, 6), (CurrentReplicas, 4, 4), (CurrentReplicasIfHigher, 4, 6), (CurrentReplicasIfLower, 3, 4)]
    {
        for (count, wanted) in [(3, fewer), (6, more)] {
            let mut workload = workload(4, fallback(count, behavior));
            for seconds in [0, 30, 59] {
                let decision = workload.pass(vec![lost()], after(seconds));
                assert_eq!(decision.to, 4, "{behavior:?} after {seconds} s");
                assert_eq!(condition(&decision, "ScalingActive"), Some((false, "FailedGetResourceMetric")));
                let held = Hold::NoMetric { lost_since: after(0), fallback: Some(after(60)) };
                assert_eq!(decision.steps, [Step::Held(held)]);
            }
            let decision = workload.pass(vec![lost()], after(60));
            assert_eq!(decision.to, wanted, "{behavior:?} {count}");
            assert_eq!(condition(&decision, "ScalingActive"), Some((false, "FallbackApplied")));
            assert_eq!(decision.recommendation, None);
            assert!(decision.has_failed_metrics());
        }
    }
}

#[test]
fn without_one_the_count_is_held_for_ever() {
    let mut workload = workload(4, None);
    for seconds in [0, 60, 86_400, 31_536_000] {
        assert_eq!(workload.pass(vec![lost()], after(seconds)).to, 4);
    }
    assert_eq!(workload.history.lost_since(), Some(after(0)));
}

#[test]
fn windows_rates_and_bounds_hold_for_it_as_well() {
    use FallbackBehavior::Static;
    let mut down = workload(8, fallback(2, Static)).remembering(&[(8, 0)]);
    for (seconds, to) in [(10, 8), (70, 8), (299, 8), (300, 2)] {
        assert_eq!(down.pass(vec![lost()], after(seconds)).to, to, "after {seconds} s");
    }
    let mut up = workload(2, fallback(30, Static));
    for (seconds, to) in [(0, 2), (60, 6), (61, 6), (75, 10), (200, 10)] {
        assert_eq!(up.pass(vec![lost()], after(seconds)).to, to, "after {seconds} s");
    }
}

#[test]
fn one_metric_that_answers_is_enough_for_it_not_to_apply() {
    let mut workload = workload(4, fallback(9, FallbackBehavior::Static));
    workload.policy.metrics.push(queue(10, None));
    for seconds in [0, 100, 200] {
        let decision = workload.pass(vec![lost(), Ok(Samples::Series(vec![40_000]))], after(seconds));
        assert_eq!(decision.to, 4);
        assert_eq!(workload.history.lost_since(), None);
    }
}

#[test]
fn a_gap_in_the_loss_starts_the_clock_again() {
    let mut workload = workload(4, fallback(9, FallbackBehavior::Static));
    for (seconds, answers, to) in [(0, false, 4), (50, true, 4), (55, false, 4), (114, false, 4), (115, false, 8)] {
        let samples = if answers { workload.all_use(500, after(seconds)) } else { vec![lost()] };
        assert_eq!(workload.pass(samples, after(seconds)).to, to, "after {seconds} s");
    }
}

#[test]
fn when_the_metrics_are_back_nothing_goes_before_a_whole_window_was_seen() {
    let mut workload = workload(2, fallback(6, FallbackBehavior::CurrentReplicasIfHigher));
    for seconds in 0..=600 {
        workload.pass(vec![lost()], after(seconds));
    }
    assert_eq!(workload.replicas, 6);
    let decision = workload.pass(workload.all_use(100, after(601)), after(601));
    assert_eq!((decision.to, decision.resumed_from), (6, Some(6)));
    assert!(matches!(decision.steps.first(), Some(Step::Resumed { replicas: 6, .. })));
    assert_eq!(condition(&decision, "ScalingActive"), Some((true, "ValidMetricFound")));
    for (seconds, to) in [(700, 6), (900, 6), (901, 2)] {
        let decision = workload.pass(workload.all_use(100, after(seconds)), after(seconds));
        assert_eq!((decision.to, decision.resumed_from), (to, None), "after {seconds} s");
    }
    // More is asked for: at once.
    assert_eq!(workload.pass(workload.all_use(900, after(950)), after(950)).to, 4);
}

#[test]
fn outside_the_bounds_the_loss_neither_begins_nor_ends() {
    let mut workload = workload(4, fallback(9, FallbackBehavior::Static));
    workload.pass(vec![lost()], after(0));
    workload.policy.max = 3;
    assert_eq!(workload.pass(vec![lost()], after(10)).to, 3);
    assert_eq!(workload.history.lost_since(), Some(after(0)));
}

#[test]
fn a_clock_set_back_does_not_put_it_off() {
    let mut workload = workload(4, fallback(9, FallbackBehavior::Static));
    workload.pass(vec![lost()], after(3600));
    workload.pass(vec![lost()], after(0));
    assert_eq!(workload.pass(vec![lost()], after(60)).to, 8);
}
