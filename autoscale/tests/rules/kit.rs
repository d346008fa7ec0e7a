//! What the tests build decisions from. Everything has a plain default; a test names what it is about.

use std::collections::BTreeMap;

use catamaran_autoscale::{
    Behavior, Bounds, Decision, History, Metric, Observed, Pod, Policy, decide,
    history::Recommendation,
    pods::{ConditionStatus, Container, Phase, Readiness, Requests},
    policy::{Mode, Resource, ResourceTarget, Settings, Tolerance, ValueTarget},
    samples::{NoSamples, PodSample, ResourceSample, Samples},
};
use jiff::{SignedDuration, Timestamp};

/// The first moment of every test.
pub fn start() -> Timestamp {
    "2026-03-02T12:00:00Z".parse().expect("a time")
}

/// So many seconds after the first moment.
pub fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

/// A policy with these metrics, from 1 to 10 replicas, with an empty `behavior`.
pub fn policy(metrics: Vec<Metric>) -> Policy {
    Policy {
        mode: Mode::Auto,
        min: 1,
        max: 10,
        metrics,
        tolerance: Tolerance::default(),
        behavior: Some(Behavior::with_defaults(300)),
        schedules: Vec::new(),
        fallback: None,
        settings: Settings::default(),
    }
}

/// Cpu against a percentage of the request.
pub fn cpu(percent: i32) -> Metric {
    Metric::Resource { resource: Resource::Cpu, target: ResourceTarget::Utilization(percent) }
}

/// The length of a queue, against a share of each replica, in units.
pub fn queue(share: i64, activation: Option<i64>) -> Metric {
    let target = ValueTarget::AverageValue(share * 1000);
    Metric::External { name: "queue".to_owned(), target, activation: activation.map(|units| units * 1000) }
}

/// A pod that has been ready for long, with a request of one core and 1000 bytes.
pub fn pod(name: &str) -> Pod {
    Pod {
        name: name.to_owned(),
        phase: Phase::Running,
        deleted: false,
        started: Some(after(-7200)),
        ready: Some(Readiness { status: ConditionStatus::True, since: after(-7190) }),
        containers: vec![Container {
            name: "app".to_owned(),
            requests: Requests { cpu: Some(1000), memory: Some(1000) },
        }],
        init_containers: Vec::new(),
        requests: Requests::default(),
        overhead: Requests::default(),
    }
}

/// So many of them: a, b, c ...
pub fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|index| pod(&name(index))).collect()
}

/// The name of the pod of this index.
pub fn name(index: usize) -> String {
    format!("pod-{index:04}")
}

/// Usage of a resource by the pods in order, in thousandths, taken now; a pod with `None` has no sample.
pub fn usage(values: &[Option<i64>], now: Timestamp) -> Samples {
    let sample = |value: i64| ResourceSample {
        containers: BTreeMap::from([("app".to_owned(), Some(value))]),
        taken: now,
        window: SignedDuration::from_secs(15),
    };
    let samples = values.iter().enumerate().filter_map(|(index, value)| Some((name(index), sample((*value)?))));
    Samples::Resource(samples.collect())
}

/// A value of each pod in order, in thousandths, taken now.
pub fn values(values: &[Option<i64>], now: Timestamp) -> Samples {
    let sample = |value| PodSample { value, taken: now, window: SignedDuration::from_secs(15) };
    let samples = values.iter().enumerate().filter_map(|(index, value)| Some((name(index), sample((*value)?))));
    Samples::Pods(samples.collect())
}

/// A metric's source that does not answer.
pub fn lost() -> Result<Samples, NoSamples> {
    Err(NoSamples("connection refused".to_owned()))
}

/// One workload in the making of a decision.
pub struct Workload {
    pub policy: Policy,
    pub replicas: i32,
    pub pods: Vec<Pod>,
    pub history: History,
    pub scaled_to_zero: bool,
    /// When the samples were taken, where that is known.
    pub taken: Vec<Option<Timestamp>>,
}

impl Workload {
    /// One whose count and pods agree, and of which nothing is remembered.
    pub fn new(policy: Policy, replicas: i32) -> Self {
        let pods = pods(usize::try_from(replicas).expect("few"));
        Self { policy, replicas, pods, history: History::default(), scaled_to_zero: false, taken: Vec::new() }
    }

    /// The same with recommendations of so many seconds ago.
    pub fn remembering(mut self, recommendations: &[(i32, i64)]) -> Self {
        let recommendations =
            recommendations.iter().map(|(replicas, age)| Recommendation { replicas: *replicas, at: after(-age) });
        self.history = History::from_lists(recommendations, [], []);
        self
    }

    /// Decides, and remembers nothing.
    pub fn decide(&self, samples: Vec<Result<Samples, NoSamples>>, now: Timestamp) -> Decision {
        let pods: Vec<&Pod> = self.pods.iter().collect();
        let bounds = Bounds::at(self.policy.min, self.policy.max, &self.policy.schedules, now);
        let observed = Observed {
            replicas: self.replicas,
            status_replicas: i32::try_from(self.pods.len()).expect("few"),
            bounds: &bounds,
            pods: &pods,
            samples: &samples,
            taken: &self.taken,
            scaled_to_zero: self.scaled_to_zero,
        };
        decide(&self.policy, &observed, &self.history, now)
    }

    /// Decides, writes, and remembers; the pods follow at once.
    pub fn pass(&mut self, samples: Vec<Result<Samples, NoSamples>>, now: Timestamp) -> Decision {
        let decision = self.decide(samples, now);
        self.history.decided(&self.policy, &decision);
        if let Some(to) = decision.write() {
            self.history.written(&self.policy, &decision);
            self.replicas = to;
            self.pods = pods(usize::try_from(to).expect("few"));
        }
        decision
    }

    /// The same usage of cpu by every pod, in thousandths of a core.
    pub fn all_use(&self, milli: i64, now: Timestamp) -> Vec<Result<Samples, NoSamples>> {
        vec![Ok(usage(&vec![Some(milli); self.pods.len()], now))]
    }
}

/// The status and reason of a condition that a decision sets.
pub fn condition(decision: &Decision, name: &str) -> Option<(bool, &'static str)> {
    use catamaran_autoscale::condition::{Change, Write};
    let write = if decision.write().is_some() { Write::Done } else { Write::None };
    decision.changes(&write).iter().find_map(|change| match change {
        Change::Set(condition) if condition.kind.name() == name => Some((condition.status, condition.reason)),
        Change::Set(_) | Change::Remove(_) => None,
    })
}
