//! A workload under load, played through: pods take a while to start, share the demand once they are ready, and can use
//! no more than their limit. At a constant demand the count has to come to rest.

use catamaran_autoscale::{
    Behavior, Bounds, History, Observed, Pod, Policy, decide,
    pods::{ConditionStatus, Phase, Readiness},
    samples::Samples,
};
use proptest::prelude::*;

use crate::kit::{after, cpu, name, pod, policy, usage};

/// What a pod can use at most, in thousandths of a core; it asks for half of that.
const LIMIT: i64 = 2000;
/// When the count has come to rest at the latest, in seconds: the pods have started, and the downscale window is over
/// twice.
const SETTLED: i64 = 1800;
/// How long it is watched.
const END: i64 = 5400;

struct Plant {
    policy: Policy,
    history: History,
    /// When each pod was created.
    pods: Vec<i64>,
    /// From its creation until a pod is scheduled, and until it is ready, in seconds.
    startup: (i64, i64),
    noise: Noise,
}

/// A generator of noise: the same for the same seed.
struct Noise(u64);

impl Noise {
    /// Between -1 and 1.
    fn next(&mut self) -> f64 {
        // A linear congruential generator (Knuth's MMIX) is random enough for this.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    }
}

impl Plant {
    fn new(policy: Policy, replicas: usize, startup: (i64, i64), seed: u64) -> Self {
        let count = i32::try_from(replicas).expect("few");
        Self {
            policy,
            history: History::new(count, after(0)),
            pods: vec![-7200; replicas],
            startup,
            noise: Noise(seed),
        }
    }

    fn pod(&self, index: usize, created: i64, now: i64) -> Pod {
        let (scheduled, ready) = (created + self.startup.0, created + self.startup.0 + self.startup.1);
        let mut pod = pod(&name(index));
        pod.phase = if now < scheduled { Phase::Pending } else { Phase::Running };
        pod.started = (now >= scheduled).then(|| after(scheduled));
        pod.ready = Some(if now < ready {
            Readiness { status: ConditionStatus::False, since: after(created) }
        } else {
            Readiness { status: ConditionStatus::True, since: after(ready) }
        });
        pod
    }

    /// The demand spread over the ready pods, each with its share of noise.
    fn usage(&mut self, demand: i64, noise: f64, now: i64) -> Samples {
        let startup = self.startup.0 + self.startup.1;
        let ready = |created: i64| now >= created + startup;
        let serving = self.pods.iter().filter(|created| ready(**created)).count();
        let share = demand as f64 / i64::try_from(serving.max(1)).expect("few") as f64;
        let used: Vec<Option<i64>> = self
            .pods
            .clone()
            .into_iter()
            .map(|created| {
                let used = (share * (1.0 + noise * self.noise.next())) as i64;
                if ready(created) { Some(used.min(LIMIT)) } else { (now >= created + self.startup.0).then_some(50) }
            })
            .collect();
        usage(&used, after(now))
    }

    /// One decision; what it comes to is done at once.
    fn pass(&mut self, demand: i64, noise: f64, now: i64) -> i32 {
        let samples = [Ok(self.usage(demand, noise, now))];
        let pods: Vec<Pod> =
            self.pods.iter().enumerate().map(|(index, created)| self.pod(index, *created, now)).collect();
        let pods: Vec<&Pod> = pods.iter().collect();
        let replicas = i32::try_from(pods.len()).expect("few");
        let bounds = Bounds::fixed(self.policy.min, self.policy.max);
        let observed = Observed {
            replicas,
            status_replicas: replicas,
            bounds: &bounds,
            pods: &pods,
            samples: &samples,
            taken: &[],
            scaled_to_zero: false,
        };
        let decision = decide(&self.policy, &observed, &self.history, after(now));
        self.history.decided(&self.policy, &decision);
        self.history.written(&self.policy, &decision);
        self.pods.resize(usize::try_from(decision.to).expect("not negative"), now);
        decision.to
    }
}

/// How often the count turns from more to fewer or back.
fn turns(counts: &[i32]) -> usize {
    let steps: Vec<i32> =
        counts.windows(2).map(|pair| (pair[1] - pair[0]).signum()).filter(|step| *step != 0).collect();
    steps.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn at_constant_demand_the_count_comes_to_rest(
        replicas in 1..15usize,
        // In thousandths of a core; a pod at its target of 60 % serves 600.
        demand in 100..8000i64,
        noise in 0.0..0.05f64,
        startup in (0..20i64, 0..120i64),
        interval in prop::sample::select(vec![1i64, 5, 15]),
        behavior in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut policy = policy(vec![cpu(60)]);
        policy.max = 40;
        policy.behavior = behavior.then(|| Behavior::with_defaults(300));
        let mut plant = Plant::new(policy, replicas, startup, seed);
        let counts: Vec<i32> = (0..END / interval).map(|pass| plant.pass(demand, noise, pass * interval)).collect();
        let settled = &counts[usize::try_from(SETTLED / interval).expect("positive")..];
        prop_assert_eq!(turns(settled), 0, "{:?}", settled);
        // At the very edge of the tolerance it may take long until the noise says that it is over; that is one move.
        let moves = settled.windows(2).filter(|pair| pair[0] != pair[1]).count();
        prop_assert!(moves <= 1, "{:?}", settled);
        let last = settled[settled.len() - 1];
        // It is what the demand needs: within the tolerance of the target, or as near as whole pods can be.
        let wanted = demand as f64 / 600.0;
        let slack = 0.1 + noise;
        prop_assert!(f64::from(last) >= (wanted * (1.0 - slack)).floor().max(1.0), "{} for {}", last, wanted);
        prop_assert!(f64::from(last) <= (wanted * (1.0 + slack)).ceil() + 1.0, "{} for {}", last, wanted);
        // Up, perhaps too far, and back: no more than that on the way.
        prop_assert!(turns(&counts) <= 1, "{:?}", counts);
    }
}
