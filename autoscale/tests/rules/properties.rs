//! What must hold for any policy, any pods, any samples and any past.

use catamaran_autoscale::{
    Behavior, Decision, History, Metric, Pod, Policy,
    behavior::{Rate, Rules, Select, Unit},
    fallback::{Fallback, FallbackBehavior},
    history::Recommendation,
    pods::{ConditionStatus, Phase, Readiness, Requests},
    policy::{FromZero, Mode, PressureResource, Resource, ResourceTarget, Stall, Tolerance, ValueTarget},
    samples::{NoSamples, Samples},
};
use jiff::Timestamp;
use proptest::prelude::*;

use crate::kit::{Workload, after, lost, pod, policy, start, usage, values};

type Answer = Result<Samples, NoSamples>;

fn rules() -> impl Strategy<Value = Rules> {
    let rate = (prop_oneof![Just(Unit::Pods), Just(Unit::Percent)], 1..200i32, 1..600u32)
        .prop_map(|(kind, value, period)| Rate { kind, value, period });
    let select = prop_oneof![4 => Just(Select::Max), 2 => Just(Select::Min), 1 => Just(Select::Disabled)];
    (prop::sample::select(vec![0u32, 15, 60, 300, 3600]), select, prop::collection::vec(rate, 0..4))
        .prop_map(|(window, select, rates)| Rules { window, select, rates })
}

fn value_target() -> impl Strategy<Value = ValueTarget> {
    let milli = 1..100_000i64;
    prop_oneof![milli.clone().prop_map(ValueTarget::Value), milli.prop_map(ValueTarget::AverageValue)]
}

fn metric() -> impl Strategy<Value = Metric> {
    let resource = prop_oneof![
        3 => Just(Resource::Cpu),
        1 => Just(Resource::Memory),
        1 => Just(Resource::Other("gpu".to_owned())),
    ];
    let of_container = |target| Metric::ContainerResource { resource: Resource::Cpu, container: "app".into(), target };
    let of_object =
        |(target, activation)| Metric::Object { name: "o".into(), object: "Service o".into(), target, activation };
    let target = prop_oneof![
        (1..300i32).prop_map(ResourceTarget::Utilization),
        (1..2000i64).prop_map(ResourceTarget::AverageValue)
    ];
    let activation = prop::option::of(0..50_000i64);
    let stall = prop_oneof![Just(Stall::Some), Just(Stall::Full)];
    prop_oneof![
        4 => (resource, target.clone()).prop_map(|(resource, target)| Metric::Resource { resource, target }),
        1 => target.prop_map(of_container),
        2 => (1..5000i64).prop_map(|target| Metric::Pods { name: "p".into(), target }),
        2 => (value_target(), activation.clone()).prop_map(of_object),
        2 => (value_target(), activation.clone())
            .prop_map(|(target, activation)| Metric::External { name: "e".into(), target, activation }),
        1 => (value_target(), activation)
            .prop_map(|(target, activation)| Metric::Prometheus { name: "q".into(), target, activation }),
        1 => (stall, 1..100i32)
            .prop_map(|(stall, target)| Metric::Pressure { resource: PressureResource::Memory, stall, target }),
        1 => (1..100i32).prop_map(|target| Metric::Throttling { target }),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let bounds = (0..8i32, 0..40i32).prop_map(|(min, more)| (min, (min + more).max(1)));
    let fallback = (
        0..400u32,
        0..60i32,
        prop::sample::select(vec![
            FallbackBehavior::Static,
            FallbackBehavior::CurrentReplicas,
            FallbackBehavior::CurrentReplicasIfHigher,
            FallbackBehavior::CurrentReplicasIfLower,
        ]),
    )
        .prop_map(|(after, replicas, behavior)| Fallback { after, replicas, behavior });
    let behavior = prop::option::of((rules(), rules()).prop_map(|(up, down)| Behavior { up, down }));
    let tolerance = (0..50u32, 0..50u32)
        .prop_map(|(up, down)| Tolerance { up: f64::from(up) / 100.0, down: f64::from(down) / 100.0 });
    (bounds, prop::collection::vec(metric(), 0..4), behavior, prop::option::of(fallback), tolerance).prop_map(
        |((min, max), metrics, behavior, fallback, tolerance)| Policy {
            // Zero only where it is allowed.
            min: if metrics.iter().any(|metric| metric.kind().sees_demand_at_zero()) {
                min
            } else {
                min.max(1).min(max)
            },
            max,
            behavior,
            fallback,
            tolerance,
            ..policy(metrics)
        },
    )
}

fn a_pod() -> impl Strategy<Value = Pod> {
    let phase = prop_oneof![
        12 => Just(Phase::Running),
        2 => Just(Phase::Pending),
        1 => Just(Phase::Succeeded),
        1 => Just(Phase::Failed),
        1 => Just(Phase::Unknown)
    ];
    let status = prop_oneof![
        6 => Just(ConditionStatus::True),
        2 => Just(ConditionStatus::False),
        1 => Just(ConditionStatus::Unknown),
    ];
    let ready = prop::option::weighted(
        0.9,
        (status, -800..=0i64).prop_map(|(status, since)| Readiness { status, since: after(since) }),
    );
    let started = prop::option::weighted(0.9, (-1000..=0i64).prop_map(after));
    let request = prop::option::weighted(0.95, 0..2000i64);
    (phase, prop::bool::weighted(0.1), started, ready, request).prop_map(|(phase, deleted, started, ready, cpu)| {
        let mut pod = pod("");
        (pod.phase, pod.deleted, pod.started, pod.ready) = (phase, deleted, started, ready);
        pod.containers[0].requests = Requests { cpu, memory: Some(1000) };
        pod
    })
}

fn history() -> impl Strategy<Value = History> {
    let recommendation = (0..60i32, -4000..=0i64).prop_map(|(replicas, at)| Recommendation { replicas, at: after(at) });
    let event = || (1..20i32, -700..=0i64).prop_map(|(change, at)| (change, after(at)));
    let events = || prop::collection::vec(event(), 0..4);
    (prop::collection::vec(recommendation, 0..8), events(), events())
        .prop_map(|(recommendations, ups, downs)| History::from_lists(recommendations, ups, downs))
}

/// Samples for one metric; the pods' by index.
fn answer(metric: &Metric, pods: &[Option<i64>], single: i64, is_lost: bool) -> Answer {
    if is_lost {
        return lost();
    }
    Ok(match metric {
        Metric::Resource { .. } | Metric::ContainerResource { .. } => usage(pods, start()),
        Metric::Pods { .. } | Metric::Pressure { .. } | Metric::Throttling { .. } => values(pods, start()),
        Metric::Object { .. } | Metric::Prometheus { .. } => Samples::Value(single),
        Metric::External { .. } => Samples::Series(vec![single / 2, single - single / 2]),
        Metric::Invalid { .. } => return lost(),
    })
}

/// Usage by pod, a single value, and whether the source is lost; for each of the metrics.
type Measured = (Vec<Option<i64>>, i64, bool);

fn measured(value: impl Strategy<Value = i64> + Clone + 'static) -> impl Strategy<Value = Vec<Measured>> {
    let of_pods = prop::collection::vec(prop::option::weighted(0.85, value.clone()), 30);
    prop::collection::vec((of_pods, value, prop::bool::weighted(0.15)), 4)
}

#[derive(Clone, Debug)]
struct Situation {
    policy: Policy,
    pods: Vec<Pod>,
    replicas: i32,
    history: History,
    measured: Vec<Measured>,
}

impl Situation {
    fn workload(&self) -> Workload {
        let pods =
            self.pods.iter().enumerate().map(|(index, pod)| Pod { name: crate::kit::name(index), ..pod.clone() });
        Workload {
            policy: self.policy.clone(),
            replicas: self.replicas,
            pods: pods.collect(),
            history: self.history.clone(),
            scaled_to_zero: false,
            taken: Vec::new(),
        }
    }

    fn samples(&self) -> Vec<Answer> {
        let measured = self.policy.metrics.iter().zip(&self.measured);
        measured.map(|(metric, (pods, single, lost))| answer(metric, pods, *single, *lost)).collect()
    }

    fn decide(&self) -> Decision {
        self.workload().decide(self.samples(), start())
    }
}

fn situations(value: impl Strategy<Value = i64> + Clone + 'static) -> impl Strategy<Value = Situation> {
    (policies(), prop::collection::vec(a_pod(), 0..12), -2..=3i32, history(), measured(value)).prop_map(
        |(policy, pods, off, history, measured)| {
            let replicas = (i32::try_from(pods.len()).expect("few") + off).max(0);
            Situation { policy, pods, replicas, history, measured }
        },
    )
}

/// Pods that are all at work, except those that have not started yet: as many as there are replicas.
fn steady(pods: &[bool], policy: Policy, measured: Vec<Measured>, history: History) -> Situation {
    let pods: Vec<Pod> = pods
        .iter()
        .map(|started| {
            let mut pod = pod("");
            if !started {
                (pod.phase, pod.ready, pod.started) = (Phase::Pending, None, None);
            }
            pod
        })
        .collect();
    Situation { replicas: i32::try_from(pods.len()).expect("few"), policy, pods, history, measured }
}

/// The same with a count that the bounds allow.
fn in_bounds(mut situation: Situation) -> Situation {
    situation.replicas = situation.replicas.clamp(situation.policy.min, situation.policy.max);
    situation
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bounds_are_always_kept(situation in situations(0..4000i64)) {
        let decision = situation.decide();
        let bounds = situation.policy.min..=situation.policy.max;
        prop_assert!(bounds.contains(&decision.to), "{} is not in {:?}\n{}", decision.to, bounds, decision);
        prop_assert!(decision.write().is_none_or(|to| to != situation.replicas));
    }

    #[test]
    fn no_input_is_too_large(situation in situations(any::<i64>()), replicas in any::<i32>(), mode in 0..3usize) {
        let mut situation = situation;
        situation.replicas = replicas.checked_abs().unwrap_or(0);
        situation.policy.settings.from_zero = [FromZero::Never, FromZero::IfScaledThere, FromZero::Always][mode];
        let decision = situation.decide();
        prop_assert!(!decision.to_string().is_empty());
        let mut history = situation.history.clone();
        history.decided(&situation.policy, &decision);
        history.written(&situation.policy, &decision);
    }

    /// Whatever has news meanwhile: a value does not fall when replicas are added, before it is measured again.
    #[test]
    fn a_ratio_is_applied_once_for_each_sample(
        target in 1..5_000i64,
        first in 0..20_000i64,
        second in 0..20_000i64,
        replicas in 1..30i32,
        seconds in prop::collection::vec(1..10i64, 1..6),
        busy in prop::option::of(0..2_000i64),
    ) {
        let target = ValueTarget::Value(target);
        let mut metrics = vec![Metric::Prometheus { name: "q".into(), target, activation: None }];
        let cpu = Metric::Resource { resource: Resource::Cpu, target: ResourceTarget::AverageValue(100) };
        metrics.extend(busy.map(|_| cpu));
        let policy = Policy { max: 60, behavior: None, ..policy(metrics) };
        let mut workload = Workload::new(policy, replicas);
        let (mut now, mut most) = (start(), replicas);
        for value in [first, second] {
            let taken = now;
            workload.taken = vec![Some(taken)];
            let samples = |workload: &Workload, now| {
                let usage = busy.map(|milli| Ok(usage(&vec![Some(milli); workload.pods.len()], now)));
                std::iter::once(Ok(Samples::Value(value))).chain(usage).collect::<Vec<_>>()
            };
            let asked = workload.pass(samples(&workload, now), now).metrics[0].outcome.clone();
            most = most.max(asked.as_ref().map_or(0, |proposal| proposal.replicas));
            for later in &seconds {
                now = now.checked_add(jiff::SignedDuration::from_secs(*later)).expect("a time");
                let decision = workload.pass(samples(&workload, now), now);
                prop_assert_eq!(&decision.metrics[0].outcome, &asked, "{}", decision);
                // Rates may let it get there in several steps, and a window may want it still; never further.
                let grown = decision.write().filter(|to| *to > decision.from);
                prop_assert!(busy.is_some() || grown.is_none_or(|to| to <= most), "{}", decision);
            }
            now = now.checked_add(jiff::SignedDuration::from_secs(1)).expect("a time");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_decision(situation in situations(0..4000i64)) {
        let (first, second) = (situation.decide(), situation.decide());
        prop_assert_eq!(first.to_string(), second.to_string());
        prop_assert_eq!(first, second);
    }

    #[test]
    fn a_metric_that_is_lost_never_removes_a_replica(situation in situations(0..4000i64), which in 0..3usize) {
        let mut situation = in_bounds(situation);
        situation.policy.fallback = None;
        prop_assume!(!situation.policy.metrics.is_empty());
        let which = which % situation.policy.metrics.len();
        situation.measured[which].2 = true;
        let decision = situation.decide();
        prop_assert!(decision.to >= situation.replicas, "{decision}");
        // And if all of them are, nothing changes at all.
        situation.measured.iter_mut().for_each(|measured| measured.2 = true);
        prop_assert_eq!(situation.decide().to, situation.replicas);
    }

    /// A pod whose sample is lost is taken to be as busy as it may be. As long as it is no busier in truth, no replica
    /// goes that would have stayed if the sample were there.
    #[test]
    fn samples_that_are_lost_never_remove_a_replica(
        metric in metric(),
        used in prop::collection::vec((0..1000i64, any::<bool>()), 1..12),
        tolerance in 0..30u32,
    ) {
        let at_most = match metric {
            Metric::Resource { ref target, .. } | Metric::ContainerResource { ref target, .. } => match target {
                // The request of each pod.
                ResourceTarget::Utilization(_) => 1000,
                ResourceTarget::AverageValue(target) => *target,
            },
            Metric::Pods { target, .. } => target,
            Metric::Pressure { target, .. } | Metric::Throttling { target } => i64::from(target) * 1000,
            Metric::Object { .. } | Metric::External { .. } => return Ok(()),
            Metric::Prometheus { .. } | Metric::Invalid { .. } => return Ok(()),
        };
        let mut policy = policy(vec![metric]);
        (policy.max, policy.behavior) = (1000, Some(Behavior::with_defaults(0)));
        policy.tolerance = Tolerance::both(f64::from(tolerance) / 100.0);
        // The others may be as busy as they like.
        let uses = |(used, kept): &(i64, bool)| if *kept { used * 3 } else { (*used).min(at_most) };
        let truth: Vec<i64> = used.iter().map(uses).collect();
        let full: Vec<Option<i64>> = truth.iter().map(|used| Some(*used)).collect();
        let partial = truth.iter().zip(&used).map(|(used, (_, kept))| kept.then_some(*used));
        let partial: Vec<Option<i64>> = partial.collect();
        let of = |samples: Vec<Option<i64>>| {
            steady(&vec![true; used.len()], policy.clone(), vec![(samples, 0, false)], History::default())
        };
        let (with_all, with_some) = (of(full).decide(), of(partial).decide());
        prop_assert!(with_some.to >= with_all.to.min(with_all.from), "{with_all}\n{with_some}");
    }

    /// All else equal. Where pods are on their way out, or there are not as many as replicas, this does not hold for
    /// the HPA: inside its tolerance it answers with the replicas, outside with a multiple of the pods that count.
    #[test]
    fn more_demand_never_gives_fewer_replicas(
        policy in policies(),
        started in prop::collection::vec(prop::bool::weighted(0.8), 1..12),
        measured in measured(0..3000i64),
        more in prop::collection::vec((prop::collection::vec(0..500i64, 30), 0..20_000i64), 4),
        past in history(),
    ) {
        // A value is shared by the ready pods alone, with the same consequence.
        let shares = policy.metrics.iter().any(|metric| matches!(
            metric,
            Metric::Object { target: ValueTarget::Value(_), .. }
                | Metric::External { target: ValueTarget::Value(_), .. }
                | Metric::Prometheus { target: ValueTarget::Value(_), .. }
        ));
        let started: Vec<bool> = started.into_iter().map(|started| started || shares).collect();
        let raised: Vec<Measured> = measured
            .iter()
            .zip(&more)
            .map(|((pods, single, lost), (by_pod, by))| {
                let pods = pods.iter().zip(by_pod).map(|(used, more)| used.map(|used| used + more)).collect();
                (pods, single + by, *lost)
            })
            .collect();
        let less = steady(&started, policy.clone(), measured, past.clone()).decide();
        let more = steady(&started, policy, raised, past).decide();
        prop_assert!(more.to >= less.to, "less demand:\n{less}\nmore demand:\n{more}");
    }

    #[test]
    fn recommending_is_deciding_without_writing(situation in situations(0..4000i64)) {
        let auto = situation.decide();
        let mut recommending = situation;
        recommending.policy.mode = Mode::Recommend;
        let recommended = recommending.decide();
        prop_assert_eq!((recommended.to, &recommended.steps), (auto.to, &auto.steps));
        prop_assert_eq!(recommended.write(), None);
    }

    #[test]
    fn after_a_decision_is_written_the_same_moment_goes_no_further_the_other_way(situation in situations(0..4000i64)) {
        let (situation, now): (_, Timestamp) = (in_bounds(situation), start());
        let mut workload = situation.workload();
        let first = workload.decide(situation.samples(), now);
        workload.history.decided(&situation.policy, &first);
        workload.history.written(&situation.policy, &first);
        workload.replicas = first.to;
        // The pods and what they use have not changed yet; asked again, the count does not turn back.
        let second = workload.decide(situation.samples(), now);
        let (step, next) = (first.to - first.from, second.to - second.from);
        prop_assert!(step.signum() * next.signum() >= 0 || first.metrics != second.metrics, "{first}\n{second}");
    }
}
