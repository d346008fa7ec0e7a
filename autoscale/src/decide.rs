//! The decision: how many replicas a workload should have now.
//!
//! Source: `reconcileAutoscaler`, `computeReplicasForMetrics`, `normalizeDesiredReplicas` and
//! `normalizeDesiredReplicasWithBehaviors` in `horizontal.go`. The order of the steps is the HPA's; what goes beyond it
//! is put between them and does nothing where it is not asked for.

use std::borrow::Cow;

use jiff::Timestamp;

use super::{
    activation::{self, Demand},
    condition::{Change, Condition, ConditionType, ScaledToZero, set},
    context::Context,
    decision::{Bound, Decision, Hold, Idle, LostMetrics, MetricReport, Step, Target, Used},
    history::History,
    pods::Pod,
    policy::{FromZero, Metric, Mode, Policy},
    propose::propose,
    samples::{NoSamples, Samples},
    schedule::Bounds,
};

/// What a decision looks at, besides the policy and the history.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The count that is asked for at present: `spec.replicas` of the target.
    pub replicas: i32,
    /// The replicas that there are: `status.replicas` of the target.
    pub status_replicas: i32,
    /// The bounds now: [`Bounds::at`].
    pub bounds: &'a Bounds,
    /// All pods of the workload.
    pub pods: &'a [&'a Pod],
    /// What the sources answer, in the order of the policy's metrics. A metric beyond the end of the list has no
    /// answer.
    pub samples: &'a [Result<Samples, NoSamples>],
    /// When each of them was taken. One of which that is not known (or beyond the end of the list) is taken for a new
    /// one.
    pub taken: &'a [Option<Timestamp>],
    /// Whether the condition ScaledToZero is True.
    pub scaled_to_zero: bool,
}

/// Decides. The same input gives the same decision.
#[must_use]
pub fn decide(policy: &Policy, observed: &Observed<'_>, history: &History, now: Timestamp) -> Decision {
    let decision = Decision {
        at: now,
        mode: policy.mode,
        from: observed.replicas,
        to: observed.replicas,
        bounds: observed.bounds.clone(),
        metrics: Vec::new(),
        steps: Vec::with_capacity(4),
        conditions: Vec::with_capacity(4),
        scaled_to_zero: ScaledToZero::Absent,
        recommendation: None,
        resumed_from: None,
        lost: LostMetrics::NotAsked,
        used: Vec::new(),
    };
    let mut run = Run { policy, observed, history, now, min: lowest(policy, observed.bounds), decision };
    run.decide();
    run.decision
}

/// The fewest replicas: the minimum, or one where the workload would never wake from zero.
fn lowest(policy: &Policy, bounds: &Bounds) -> i32 {
    let wakes = policy.metrics.is_empty() || policy.sees_demand_at_zero() || policy.has_waking_schedule();
    match policy.settings.from_zero {
        FromZero::Always if bounds.min == 0 && !wakes => bounds.max.min(1),
        FromZero::Always | FromZero::IfScaledThere | FromZero::Never => bounds.min,
    }
}

/// A decision in the making.
pub(super) struct Run<'a> {
    pub(super) policy: &'a Policy,
    pub(super) observed: &'a Observed<'a>,
    pub(super) history: &'a History,
    pub(super) now: Timestamp,
    /// The fewest replicas.
    pub(super) min: i32,
    pub(super) decision: Decision,
}

/// A count that is asked for, before windows, rates and bounds.
struct Asked {
    replicas: i32,
    /// Whether the metrics tell of demand at all, and which one.
    demand: Demand,
}

impl Run<'_> {
    fn decide(&mut self) {
        self.set(ConditionType::AbleToScale, true, "SucceededGetScale", "the current count is known");
        if let Some(idle) = self.idle() {
            return self.rest(idle);
        }
        if let Some(error) = &self.observed.bounds.unknown {
            self.decision.steps.push(Step::Held(Hold::Schedule));
            return self.set(ConditionType::ScalingActive, false, "FailedGetSchedule", error.to_string());
        }
        let to = if let Some((bound, to)) = self.out_of_bounds() {
            self.decision.steps.push(Step::OutOfBounds { bound, to });
            to
        } else if let Some(asked) = self.ask() {
            let to = self.normalize(asked.replicas);
            self.wake(to, asked.demand)
        } else {
            self.decision.from
        };
        self.decision.to = to;
        self.decision.scaled_to_zero = self.scaled_to_zero(to);
        match self.policy.mode {
            Mode::Auto | Mode::Off => {}
            Mode::Recommend => {
                self.set(ConditionType::AbleToScale, false, "RecommendOnly", "mode Recommend: nothing is written");
            }
            Mode::Hold => self.set(ConditionType::AbleToScale, false, "Held", "mode Hold: the count stays as it is"),
        }
    }

    pub(super) fn set(
        &mut self,
        kind: ConditionType,
        status: bool,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) {
        set(&mut self.decision.conditions, Condition::new(kind, status, reason, message));
    }

    /// Whether there is nothing to decide.
    fn idle(&self) -> Option<Idle> {
        let from = self.decision.from;
        match self.policy.settings.from_zero {
            _ if self.policy.mode == Mode::Off => Some(Idle::Off),
            _ if from != 0 => None,
            FromZero::Always => (self.observed.bounds.max == 0).then_some(Idle::Closed),
            FromZero::IfScaledThere if self.observed.scaled_to_zero => {
                (self.min == 0 && !self.policy.sees_demand_at_zero()).then_some(Idle::SwitchedOff)
            }
            FromZero::IfScaledThere | FromZero::Never => Some(Idle::SwitchedOff),
        }
    }

    fn rest(&mut self, idle: Idle) {
        self.decision.steps.push(Step::Idle(idle));
        let message = match idle {
            Idle::Off => "scaling is off: mode Off",
            Idle::SwitchedOff => "scaling is disabled since the replica count of the target is zero",
            Idle::Closed => "no replicas are allowed: maxReplicas is 0",
        };
        self.set(ConditionType::ScalingActive, false, "ScalingDisabled", message);
        if idle == Idle::SwitchedOff && self.policy.settings.from_zero == FromZero::Never {
            self.decision.conditions.push(Change::Remove(ConditionType::ScaledToZero));
        }
    }

    /// The nearest bound, when the count lies outside of them. From zero the HPA asks the metrics first.
    fn out_of_bounds(&self) -> Option<(Bound, i32)> {
        let (from, max) = (self.decision.from, self.observed.bounds.max);
        if from == 0 && self.policy.settings.from_zero != FromZero::Always {
            None
        } else if from > max {
            Some((Bound::Max, max))
        } else if from < self.min {
            Some((self.lower_bound(), self.min))
        } else {
            None
        }
    }

    pub(super) fn lower_bound(&self) -> Bound {
        if self.min == self.observed.bounds.min { Bound::Min } else { Bound::One }
    }

    /// Asks the metrics. `None`: the count stays.
    fn ask(&mut self) -> Option<Asked> {
        if self.policy.metrics.is_empty() {
            self.decision.steps.push(Step::NoMetrics { replicas: self.min });
            self.set(ConditionType::ScalingActive, true, "NoMetrics", "there are no metrics: the minimum counts");
            return Some(Asked { replicas: self.min, demand: Demand::NotAsked });
        }
        if self.is_asleep() {
            self.decision.steps.push(Step::Asleep);
            self.set(ConditionType::ScalingActive, true, "NoActiveSchedule", "no schedule asks for replicas");
            self.decision.recommendation = Some(0);
            return Some(Asked { replicas: 0, demand: Demand::NotAsked });
        }
        let context = Context {
            replicas: self.observed.replicas,
            status_replicas: self.observed.status_replicas,
            pods: self.observed.pods,
            tolerance: self.policy.tolerance,
            settings: &self.policy.settings,
            now: self.now,
        };
        let metrics = self.policy.metrics.iter().enumerate();
        self.decision.metrics = metrics.map(|(index, metric)| self.report(&context, index, metric)).collect();
        let failures = self.decision.metrics.iter().filter(|report| report.outcome.is_err()).count();
        if failures == self.decision.metrics.len() {
            return self.without_metrics();
        }
        self.resume();
        let (replicas, demand) = self.recommend();
        if failures > 0 && replicas < self.decision.from {
            self.metric_failed();
            self.decision.steps.push(Step::Held(Hold::SomeMetrics { wanted: replicas }));
            return None;
        }
        self.set(ConditionType::ScalingActive, true, "ValidMetricFound", "the count was computed from the metrics");
        self.decision.recommendation = Some(replicas.max(0));
        Some(Asked { replicas: replicas.max(0), demand })
    }

    /// What a metric asks for. A ratio is applied to the count once for each sample.
    fn report(&mut self, context: &Context<'_>, index: usize, metric: &Metric) -> MetricReport {
        let no_answer = Err(NoSamples("the source was not asked".to_owned()));
        let samples = self.observed.samples.get(index).unwrap_or(&no_answer);
        let mut report = MetricReport::new(metric, propose(context, metric, samples));
        let taken = self.observed.taken.get(index).copied().flatten();
        if let (Some(target @ Target::Value(_)), Some(taken), Ok(proposal)) =
            (report.target, taken, &mut report.outcome)
        {
            if let Some(used) = self.history.used(&report.name, target, taken) {
                *proposal = used.proposal;
            }
            self.decision.used.push(Used { metric: report.name.clone(), target, taken, proposal: *proposal });
        }
        report
    }

    /// Whether only schedules could wake the workload, and none asks for replicas now. What its pods use does not
    /// matter then.
    fn is_asleep(&self) -> bool {
        self.policy.settings.from_zero == FromZero::Always
            && self.min == 0
            && self.policy.has_waking_schedule()
            && !self.policy.sees_demand_at_zero()
    }

    /// The highest proposal, and what demand makes of it.
    fn recommend(&mut self) -> (i32, Demand) {
        let (mut replicas, mut metric) = (0, None);
        for (index, report) in self.decision.metrics.iter().enumerate() {
            if let Ok(proposal) = &report.outcome
                && (replicas == 0 || proposal.replicas > replicas)
            {
                (replicas, metric) = (proposal.replicas, Some(index));
            }
        }
        self.decision.steps.push(Step::Recommended { replicas, metric });
        let demand = if self.min > 0 {
            Demand::NotAsked
        } else {
            activation::demand(&self.policy.metrics, &self.decision.metrics)
        };
        match demand {
            Demand::Some(metric) if replicas < 1 => {
                self.decision.steps.push(Step::Demand { metric });
                (1, demand)
            }
            Demand::None if replicas > 0 => {
                self.decision.steps.push(Step::NoDemand);
                (0, demand)
            }
            Demand::Some(_) | Demand::None | Demand::Unknown | Demand::NotAsked => (replicas, demand),
        }
    }

    /// Sets the condition for the first metric that failed.
    fn metric_failed(&mut self) {
        let failed = self.decision.metrics.iter().find_map(|report| Some((report, report.outcome.as_ref().err()?)));
        if let Some((report, error)) = failed {
            let (reason, name) = (report.kind.failure(), &report.name);
            let mut message = format!("{name} has no value: {error}");
            // The adapter's own words have no way out.
            if let Some(api) = report.kind.adapter_api() {
                message += &format!(
                    "; correct the metric in spec.scaling.metrics, or install or configure an adapter that serves it (API {api})"
                );
            }
            self.set(ConditionType::ScalingActive, false, reason, message);
        }
    }

    /// No metric has a value: hold, or fall back.
    fn without_metrics(&mut self) -> Option<Asked> {
        let lost_since = self.history.lost_since.unwrap_or(self.now).min(self.now);
        self.decision.lost = LostMetrics::Since(lost_since);
        self.metric_failed();
        let due = self.policy.fallback.map(|fallback| (fallback, fallback.due(lost_since)));
        match due {
            Some((fallback, due)) if due <= self.now => {
                let replicas = fallback.count(self.decision.from);
                self.decision.steps.push(Step::Fallback { replicas, lost_since });
                let message = format!("no metric has a value since {lost_since}: the fallback count applies");
                self.set(ConditionType::ScalingActive, false, "FallbackApplied", message);
                Some(Asked { replicas, demand: Demand::NotAsked })
            }
            due => {
                let fallback = due.map(|(_, due)| due);
                self.decision.steps.push(Step::Held(Hold::NoMetric { lost_since, fallback }));
                None
            }
        }
    }

    /// Notes that the metrics answer, and starts anew if they had been gone for so long that the fallback applied.
    fn resume(&mut self) {
        self.decision.lost = LostMetrics::None;
        if let (Some(lost_since), Some(fallback)) = (self.history.lost_since, self.policy.fallback)
            && fallback.due(lost_since) <= self.now
        {
            let replicas = self.decision.from;
            self.decision.resumed_from = Some(replicas);
            self.decision.steps.push(Step::Resumed { lost_since, replicas });
        }
    }

    /// Demand wakes a workload from zero at once.
    fn wake(&mut self, to: i32, demand: Demand) -> i32 {
        match demand {
            Demand::Some(metric) if to < 1 && self.observed.bounds.max > 0 => {
                self.decision.steps.push(Step::Demand { metric });
                1
            }
            Demand::Some(_) | Demand::None | Demand::Unknown | Demand::NotAsked => to,
        }
    }

    fn scaled_to_zero(&self, to: i32) -> ScaledToZero {
        let removed_the_last = match self.policy.settings.from_zero {
            FromZero::Never => return ScaledToZero::Absent,
            FromZero::IfScaledThere => {
                self.decision.from > 0 && to == 0 && self.min == 0 && self.policy.sees_demand_at_zero()
            }
            FromZero::Always => to == 0,
        };
        if removed_the_last { ScaledToZero::True } else { ScaledToZero::False }
    }
}
