//! The workload under load: replicas that take a while to start, share the demand once they are ready, and can use no
//! more than their limit. It is pure: the same input gives the same result.
//!
//! Time goes in steps. At the beginning of each a decision is made, by the operator's own code, from what was measured
//! in the step before; what it comes to is done at once. Within a step the sums are exact, also where the demand
//! changes or a replica gets ready.

use catamaran_autoscale::{
    Bounds, Decision, History, Observed, Pod, Policy, decide,
    pods::{ConditionStatus, Phase, Readiness},
    policy::Mode,
    samples::{NoSamples, Samples},
};
use jiff::Timestamp;

use super::{
    feed::Feed,
    gauges::{Gauges, Moment, Ready},
    trace::Trace,
    workload::{Control, Replica, Workload},
};

/// How often the operator asks a source, in milliseconds. A target of type Value multiplies the count, which is done
/// once for each answer.
const ASKED_EVERY: i64 = 15_000;

/// What is the same for all workloads. In milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From one decision to the next; above 0.
    pub step: i64,
    /// From the creation of a replica until it is ready.
    pub startup: i64,
}

/// What came of one workload.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Step by step.
    pub steps: Vec<Step>,
    /// The decisions that want another count than the one before.
    pub changes: Vec<Change>,
    /// Sums over all steps.
    pub totals: Totals,
}

/// One step: the counts at its beginning, after the decision, and sums over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins, in milliseconds after the start of the trace.
    pub at: i64,
    /// The replicas there are.
    pub replicas: i32,
    /// Those that are ready.
    pub ready: i32,
    /// The count that was decided; other than `replicas` in mode Recommend.
    pub wanted: i32,
    /// What the metrics alone ask for.
    pub recommended: Option<i32>,
    /// The bounds, if the count is decided.
    pub bounds: Option<(i32, i32)>,
    /// What made the number, in one word.
    pub reason: &'static str,
    /// Sums over it.
    pub totals: Totals,
}

/// A decision that wants another count than the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In milliseconds after the start of the trace.
    pub at: i64,
    /// The count before.
    pub from: i32,
    /// The count that is wanted.
    pub to: i32,
    /// What made it, in one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
    /// What each metric said.
    pub metrics: Vec<String>,
}

/// Sums over time. CPU in millicores times milliseconds, replicas in replicas times milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How long, in milliseconds.
    pub time: i128,
    /// The demand.
    pub offered: i128,
    /// What the ready replicas could do of it.
    pub served: i128,
    /// What they could not.
    pub unserved: i128,
    /// What the ready replicas can do; `None` without a limit.
    pub capacity: Option<i128>,
    /// How long there was unserved demand, in milliseconds.
    pub short: i128,
    /// Replicas, ready or not.
    pub replicas: i128,
    /// Ready replicas.
    pub ready: i128,
}

impl Totals {
    fn add(&mut self, more: &Self) {
        let capacity = match (self.capacity, more.capacity) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            _ if self.time == 0 => more.capacity,
            (None, _) | (_, None) => None,
        };
        *self = Self {
            time: self.time.saturating_add(more.time),
            offered: self.offered.saturating_add(more.offered),
            served: self.served.saturating_add(more.served),
            unserved: self.unserved.saturating_add(more.unserved),
            capacity,
            short: self.short.saturating_add(more.short),
            replicas: self.replicas.saturating_add(more.replicas),
            ready: self.ready.saturating_add(more.ready),
        };
    }
}

/// Plays a workload through a trace. `feeds` are those of its metrics, in their order.
pub fn simulate(workload: &Workload, feeds: &[Feed], trace: &Trace, timing: Timing) -> Outcome {
    let mut plant = Plant::new(workload, trace, timing);
    let mut gauges = Gauges::new(feeds, &workload.replica);
    let mut autoscaler = match &workload.control {
        Control::Fixed => None,
        Control::Decided(policy) => Some(Autoscaler::new(policy, workload.replicas, trace.start)),
    };
    let mut outcome = Outcome::default();
    let (mut at, mut row, mut wanted) = (0, 0, workload.replicas);
    while at < trace.length() {
        while trace.row_end(row) <= at {
            row += 1;
        }
        let now = trace.at(at);
        plant.promote(at);
        let mut step = Step {
            at,
            replicas: 0,
            ready: 0,
            wanted,
            recommended: None,
            bounds: None,
            reason: "Fixed",
            totals: Totals::default(),
        };
        if let Some(autoscaler) = &mut autoscaler {
            gauges.measure(&plant.ready(), trace, Moment { row, now, step: timing.step });
            let bounds = autoscaler.bounds(now);
            let decision = autoscaler.decide(&plant, &bounds, gauges.samples(), at);
            if decision.to != wanted {
                outcome.changes.push(Change::new(at, wanted, &decision));
                wanted = decision.to;
            }
            if let Some(count) = decision.write() {
                plant.resize(count, at);
                plant.promote(at);
            }
            (step.recommended, step.reason) = (decision.recommendation, decision.reason());
            (step.wanted, step.bounds) = (wanted, Some((bounds.min, bounds.max)));
        }
        (step.replicas, step.ready) = (plant.count(), count(plant.ready));
        let end = at.saturating_add(timing.step).min(trace.length());
        step.totals = plant.serve(trace, row, at, end);
        outcome.totals.add(&step.totals);
        outcome.steps.push(step);
        at = end;
    }
    outcome
}

impl Change {
    fn new(at: i64, from: i32, decision: &Decision) -> Self {
        Self {
            at,
            from,
            to: decision.to,
            reason: decision.reason(),
            message: format!("{}: {}", decision.headline(), decision.cause()),
            metrics: decision.metrics.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What the operator remembers and does.
struct Autoscaler<'a> {
    policy: &'a Policy,
    history: History,
    bounds: Option<Bounds>,
    /// When the sources answered last, in milliseconds.
    answered: i64,
}

impl<'a> Autoscaler<'a> {
    fn new(policy: &'a Policy, replicas: i32, start: Timestamp) -> Self {
        Self { policy, history: History::new(replicas, start), bounds: None, answered: 0 }
    }

    /// The bounds, computed again only when they may have changed.
    fn bounds(&mut self, now: Timestamp) -> Bounds {
        let known = self.bounds.take().filter(|bounds| bounds.until.is_none_or(|until| now < until));
        let bounds = known.unwrap_or_else(|| Bounds::at(self.policy.min, self.policy.max, &self.policy.schedules, now));
        self.bounds = Some(bounds.clone());
        bounds
    }

    fn decide(
        &mut self,
        plant: &Plant<'_>,
        bounds: &Bounds,
        samples: &[Result<Samples, NoSamples>],
        at: i64,
    ) -> Decision {
        if at - self.answered >= ASKED_EVERY {
            self.answered = at;
        }
        let now = plant.trace.at(at);
        let taken = vec![Some(plant.trace.at(self.answered)); samples.len()];
        let pods: Vec<&Pod> = plant.pods.iter().collect();
        let observed = Observed {
            replicas: plant.count(),
            status_replicas: plant.count(),
            bounds,
            pods: &pods,
            samples,
            taken: &taken,
            scaled_to_zero: plant.pods.is_empty() && self.policy.mode == Mode::Auto,
        };
        let decision = decide(self.policy, &observed, &self.history, now);
        self.history.decided(self.policy, &decision);
        self.history.written(self.policy, &decision);
        decision
    }
}

/// The replicas.
struct Plant<'a> {
    replica: &'a Replica,
    trace: &'a Trace,
    startup: i64,
    /// In the order of their creation, so also in that of getting ready.
    pods: Vec<Pod>,
    /// When each is ready, in milliseconds.
    ready_at: Vec<i64>,
    /// How many of them, from the first, are ready.
    ready: usize,
    /// How many were created.
    created: u64,
    /// What a ready replica used on average in the last step, in millicores; `None` while none was ready.
    usage: Option<i64>,
}

impl<'a> Plant<'a> {
    /// With replicas that have been ready for long, under the first demand.
    fn new(workload: &'a Workload, trace: &'a Trace, timing: Timing) -> Self {
        let mut plant = Self {
            replica: &workload.replica,
            trace,
            startup: timing.startup,
            pods: Vec::new(),
            ready_at: Vec::new(),
            ready: 0,
            created: 0,
            usage: None,
        };
        const LONG_AGO: i64 = -3_600_000;
        plant.resize(workload.replicas, LONG_AGO.saturating_sub(timing.startup));
        plant.promote(0);
        plant.serve(trace, 0, 0, 1);
        plant
    }

    fn count(&self) -> i32 {
        count(self.pods.len())
    }

    fn ready(&self) -> Ready<'_> {
        let pods = self.pods.get(..self.ready).unwrap_or_default();
        Ready { pods, created: self.created, usage: self.usage }
    }

    /// Those whose start is over become ready.
    fn promote(&mut self, at: i64) {
        let starting = self.pods.iter_mut().zip(&self.ready_at).skip(self.ready);
        for (pod, ready_at) in starting.take_while(|(_, ready_at)| **ready_at <= at) {
            pod.phase = Phase::Running;
            pod.ready = Some(Readiness { status: ConditionStatus::True, since: self.trace.at(*ready_at) });
            self.ready += 1;
        }
    }

    /// Replicas come and go at once. All are as busy as each other, so by every rule for victims the newest go first.
    fn resize(&mut self, count: i32, at: i64) {
        let count = usize::try_from(count).unwrap_or(0);
        self.pods.truncate(count);
        self.ready_at.truncate(count);
        self.ready = self.ready.min(count);
        let created = self.trace.at(at);
        while self.pods.len() < count {
            self.created += 1;
            self.pods.push(Pod {
                name: format!("replica-{}", self.created),
                phase: Phase::Pending,
                deleted: false,
                started: Some(created),
                ready: Some(Readiness { status: ConditionStatus::False, since: created }),
                containers: self.replica.containers.clone(),
                init_containers: self.replica.init_containers.clone(),
                requests: self.replica.whole,
                overhead: Default::default(),
            });
            self.ready_at.push(at.saturating_add(self.startup));
        }
    }

    /// Serves the demand from one time to another; `row` is the one that holds at first. Each ready replica has an
    /// equal share of the demand, up to its limit.
    fn serve(&mut self, trace: &Trace, row: usize, from: i64, to: i64) -> Totals {
        let mut totals = Totals { capacity: self.replica.limit.map(|_| 0), ..Totals::default() };
        let (mut at, mut row, mut ready) = (from, row, self.ready);
        while at < to {
            while trace.row_end(row) <= at {
                row += 1;
            }
            ready += self.ready_at.iter().skip(ready).take_while(|ready_at| **ready_at <= at).count();
            let next_ready = self.ready_at.get(ready).copied().unwrap_or(to);
            let until = to.min(trace.row_end(row)).min(next_ready);
            let (time, demand) = (i128::from(until - at), i128::from(trace.demand(row)));
            let capacity = self.replica.limit.map(|limit| i128::from(limit).saturating_mul(wide(ready)));
            let served = match capacity {
                _ if ready == 0 => 0,
                None => demand,
                Some(capacity) => demand.min(capacity),
            };
            let over = |rate: i128| rate.saturating_mul(time);
            totals.add(&Totals {
                time,
                offered: over(demand),
                served: over(served),
                unserved: over(demand - served),
                capacity: capacity.map(over),
                short: if served < demand { time } else { 0 },
                replicas: over(wide(self.pods.len())),
                ready: over(wide(ready)),
            });
            at = until;
        }
        let usage = totals.served.checked_div(totals.ready);
        self.usage = usage.map(|usage| i64::try_from(usage).unwrap_or(i64::MAX));
        totals
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn wide(length: usize) -> i128 {
    i128::try_from(length).unwrap_or(i128::MAX)
}
