//! Decisions with extreme values against arithmetic that knows no largest number: the count is the exact one, within
//! the bounds.

use catamaran_autoscale::{
    Metric,
    behavior::{Behavior, Rate, Rules, Select, Unit},
    policy::{Resource, ResourceTarget, ValueTarget},
    samples::{MOST_CORES, Samples},
};
use num_bigint::BigInt;
use proptest::prelude::*;

use crate::kit::{Workload, condition, cpu, policy, start, usage, values};

/// A fraction with a denominator above 0.
#[derive(Clone, Debug)]
struct Exact(BigInt, BigInt);

impl Exact {
    /// `self` times `(10^12 + by) / 10^12`, rounded up. The HPA computes with floats, which err by less than one part
    /// in 10^12.
    fn ceil_about(&self, by: i64) -> BigInt {
        let accuracy = BigInt::from(10).pow(12);
        let (over, under) = (&self.0 * (&accuracy + by), &self.1 * &accuracy);
        if over <= BigInt::ZERO { BigInt::ZERO } else { (over + &under - 1) / under }
    }

    /// Which side of `tenths`/10 it is on; `None` where floats may differ.
    fn is_above(&self, tenths: i64) -> Option<bool> {
        let (this, other) = (&self.0 * 10, &self.1 * tenths);
        let apart = (&this - &other) * BigInt::from(10).pow(12);
        let near: BigInt = if other < BigInt::ZERO { -&other } else { other.clone() };
        if apart > near {
            Some(true)
        } else if apart < -near {
            Some(false)
        } else {
            None
        }
    }
}

/// What is measured, and what the metric asks for in whole numbers: the ratio to the target, and what it is multiplied
/// with.
#[derive(Debug)]
struct Case {
    metric: Metric,
    samples: Samples,
    ratio: Exact,
    times: Exact,
}

fn whole(value: i64) -> Exact {
    Exact(value.into(), 1.into())
}

fn extreme() -> impl Strategy<Value = i64> {
    let edges = prop::sample::select(vec![
        0,
        1,
        2,
        999,
        1000,
        22_000_000_000_000,
        1 << 31,
        (1 << 31) * 1000,
        1 << 53,
        1 << 62,
        i64::MAX / 100,
        i64::MAX / 2,
        i64::MAX - 1,
        i64::MAX,
        -1,
        i64::MIN,
        i64::MIN / 2,
    ]);
    prop_oneof![2 => edges, 1 => any::<i64>(), 2 => 0_i64..1_000_000, 1 => (0_u32..63).prop_map(|bits| 1 << bits)]
}

fn target() -> impl Strategy<Value = i64> {
    extreme().prop_map(|target| target.saturating_abs().max(1))
}

/// The mean as the HPA has it, whole; above 0 when the sum is.
fn mean(sum: BigInt, parts: i64) -> BigInt {
    match &sum / parts {
        zero if zero == BigInt::ZERO && sum > BigInt::ZERO => 1.into(),
        mean => mean,
    }
}

fn case() -> impl Strategy<Value = (usize, Case)> {
    (0..6, prop::collection::vec(extreme(), 1..6), target()).prop_map(|(kind, all, target)| {
        let pods = all.len();
        let count = i64::try_from(pods).expect("few");
        let sum: BigInt = all.iter().map(|value| BigInt::from(*value)).sum();
        let total = sum.clone().clamp(i64::MIN.into(), i64::MAX.into());
        let (name, milli) = ("m".to_owned(), BigInt::from(target));
        let measured: Vec<_> = all.iter().map(|value| Some(*value)).collect();
        let possible: Vec<_> = all.iter().map(|value| (*value).clamp(0, MOST_CORES * 1000)).collect();
        let used: BigInt = possible.iter().map(|value| BigInt::from(*value)).sum();
        let possible: Vec<_> = possible.into_iter().map(Some).collect();
        let average = |total: BigInt| (Exact(total.clone(), &milli * count), Exact(count.into(), 1.into()), total);
        let case = match kind {
            0 => Case {
                metric: Metric::Pods { name, target },
                samples: values(&measured, start()),
                ratio: Exact(mean(sum, count), milli),
                times: whole(count),
            },
            1 => {
                let (ratio, times, _) = average(total);
                let target = ValueTarget::AverageValue(target);
                Case {
                    metric: Metric::External { name, target, activation: None },
                    samples: Samples::Series(all),
                    ratio,
                    times,
                }
            }
            2 => {
                let target = ValueTarget::Value(target);
                let metric = Metric::External { name, target, activation: None };
                Case { metric, samples: Samples::Series(all), ratio: Exact(total, milli), times: whole(count) }
            }
            3 => {
                let first = all.first().copied().unwrap_or_default();
                let (ratio, times, _) = average(first.into());
                let target = ValueTarget::AverageValue(target);
                let metric = Metric::Prometheus { name, target, activation: None };
                Case { metric, samples: Samples::Value(first), ratio, times }
            }
            4 => {
                // The pods of the kit ask for one core each.
                let percent = i32::try_from(target).unwrap_or(i32::MAX);
                let share = mean(used * 100, count * 1000);
                let ratio = Exact(share, percent.into());
                Case { metric: cpu(percent), samples: usage(&possible, start()), ratio, times: whole(count) }
            }
            _ => {
                let metric = Metric::Resource { resource: Resource::Cpu, target: ResourceTarget::AverageValue(target) };
                let ratio = Exact(mean(used, count), milli);
                Case { metric, samples: usage(&possible, start()), ratio, times: whole(count) }
            }
        };
        (pods, case)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_count_is_the_exact_one_within_the_bounds((pods, case) in case(), min in 1..5_i32, room in 0..100_000_i32) {
        let Case { metric, samples, ratio, times } = case;
        let count = i32::try_from(pods).expect("few");
        let mut workload = Workload::new(policy(vec![metric]), count);
        (workload.policy.min, workload.policy.max) = (min.min(count), count + room);
        let at_once = |value| Rules {
            window: 0,
            select: Select::Max,
            rates: vec![Rate { kind: Unit::Pods, value, period: 15 }],
        };
        workload.policy.behavior = Some(Behavior { up: at_once(i32::MAX), down: at_once(i32::MAX) });
        let decision = workload.decide(vec![Ok(samples)], start());
        let (Some(above), Some(not_below)) = (ratio.is_above(11), ratio.is_above(9)) else { return Ok(()) };
        let exact = Exact(&ratio.0 * &times.0, &ratio.1 * &times.1);
        let bounds = |wanted: BigInt| wanted.clamp(workload.policy.min.into(), workload.policy.max.into());
        let (low, high) = if above || !not_below {
            (bounds(exact.ceil_about(-1)), bounds(exact.ceil_about(1)))
        } else {
            (count.into(), count.into())
        };
        let to = BigInt::from(decision.to);
        prop_assert!(low <= to && to <= high, "{} is not from {} to {}:\n{}", to, low, high, decision);
    }
}

#[test]
fn more_than_any_machine_has_is_refused_by_name() {
    let workload = Workload::new(policy(vec![cpu(50)]), 3);
    let decision =
        workload.decide(vec![Ok(usage(&[Some(100), Some(MOST_CORES * 1000 + 1), Some(100)], start()))], start());
    assert_eq!((decision.to, condition(&decision, "ScalingActive")), (3, Some((false, "FailedGetResourceMetric"))));
    assert!(decision.to_string().contains("is said to use more cpu than any machine has"), "{decision}");
}
