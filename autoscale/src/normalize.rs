//! From the count that is asked for to the count that is allowed: windows, rates, bounds, in this order.
//!
//! Source: `normalizeDesiredReplicas`, `normalizeDesiredReplicasWithBehaviors`, `convertDesiredReplicasWithRules` and
//! `convertDesiredReplicasWithBehaviorRate` in `horizontal.go`.

use super::{
    arithmetic::seconds_before,
    behavior::{Behavior, Direction},
    condition::ConditionType,
    decide::Run,
    decision::{Bound, Step},
    history::Cutoff,
    limits::{self, Limit},
};

impl Run<'_> {
    /// Applies windows, rates and bounds.
    pub(super) fn normalize(&mut self, wanted: i32) -> i32 {
        let (stabilized, limited) = match &self.policy.behavior {
            Some(behavior) => {
                let stabilized = self.stabilize_both_ways(behavior, wanted);
                (stabilized, self.limit(behavior, stabilized))
            }
            None => {
                let stabilized = self.stabilize_downward(wanted);
                (stabilized, self.limit_to_double(stabilized))
            }
        };
        let Some(Limited { to, reason, message, step }) = limited else {
            let message = "the desired count is within the acceptable range";
            self.set(ConditionType::ScalingLimited, false, "DesiredWithinRange", message);
            return self.raised_from_zero(stabilized);
        };
        self.set(ConditionType::ScalingLimited, true, reason, message);
        self.decision.steps.push(step);
        self.raised_from_zero(to)
    }

    /// The rules before there was `behavior`: only removal is held back.
    fn stabilize_downward(&mut self, wanted: i32) -> i32 {
        let window = self.policy.settings.downscale_stabilization;
        let highest = self.history.highest(Cutoff::From(seconds_before(self.now, window)));
        let stabilized = highest.into_iter().chain(self.decision.resumed_from).fold(wanted, i32::max);
        self.stabilized(Direction::Down, window, wanted, stabilized);
        stabilized
    }

    /// The count moves no further than all recommendations of the window agree on.
    fn stabilize_both_ways(&mut self, behavior: &Behavior, wanted: i32) -> i32 {
        let (from, resumed) = (self.decision.from, self.decision.resumed_from);
        let cutoff = |window| Cutoff::After(seconds_before(self.now, window));
        let lowest = self.history.lowest(cutoff(behavior.up.window));
        let highest = self.history.highest(cutoff(behavior.down.window));
        let lowest = lowest.into_iter().chain(resumed).fold(wanted, i32::min);
        let highest = highest.into_iter().chain(resumed).fold(wanted, i32::max);
        let stabilized = from.max(lowest).min(highest);
        let (direction, window) =
            if wanted >= from { (Direction::Up, behavior.up.window) } else { (Direction::Down, behavior.down.window) };
        self.stabilized(direction, window, wanted, stabilized);
        stabilized
    }

    fn stabilized(&mut self, direction: Direction, window: u32, from: i32, to: i32) {
        let (reason, message) = match direction {
            _ if from == to => ("ReadyForNewScale", "no recent recommendation holds the count back"),
            Direction::Up => (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            ),
            Direction::Down => (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            ),
        };
        self.set(ConditionType::AbleToScale, true, reason, message);
        if from != to {
            self.decision.steps.push(Step::Stabilized { direction, window, from, to });
        }
    }

    /// The rates of `behavior`, and the bound in the same direction.
    fn limit(&self, behavior: &Behavior, wanted: i32) -> Option<Limited> {
        let (from, max) = (self.decision.from, self.observed.bounds.max);
        let limit = |rules, direction| limits::limit(rules, direction, from, self.history, self.now);
        if wanted > from {
            // What has come in the period may exceed the limit already; then nothing more comes, but nothing goes
            // either.
            let limit = limit(&behavior.up, Direction::Up);
            self.limited_up(wanted, Limit { replicas: limit.replicas.max(from), ..limit }, max)
        } else if wanted < from {
            let limit = limit(&behavior.down, Direction::Down);
            let limit = Limit { replicas: limit.replicas.min(from), ..limit };
            if limit.replicas > self.min {
                let step = |to| Step::RateLimited { direction: Direction::Down, by: limit.by, from: wanted, to };
                let message = "the desired replica count is decreasing faster than the maximum scale rate";
                (wanted < limit.replicas).then(|| Limited::to(limit.replicas, "ScaleDownLimit", message, step))
            } else {
                self.limited_by_min(wanted)
            }
        } else {
            None
        }
    }

    /// The rules before there was `behavior`: up to double the count at a time.
    fn limit_to_double(&self, wanted: i32) -> Option<Limited> {
        let limit = limits::double(self.decision.from);
        self.limited_by_min(wanted).or_else(|| self.limited_up(wanted, limit, self.observed.bounds.max))
    }

    fn limited_up(&self, wanted: i32, limit: Limit, max: i32) -> Option<Limited> {
        let to = limit.replicas.min(max);
        (wanted > to).then(|| {
            if max > limit.replicas {
                let message = "the desired replica count is increasing faster than the maximum scale rate";
                Limited::to(to, "ScaleUpLimit", message, |to| Step::RateLimited {
                    direction: Direction::Up,
                    by: limit.by,
                    from: wanted,
                    to,
                })
            } else {
                let message = "the desired replica count is more than the maximum replica count";
                Limited::to(to, "TooManyReplicas", message, |to| Step::Bounded { bound: Bound::Max, from: wanted, to })
            }
        })
    }

    fn limited_by_min(&self, wanted: i32) -> Option<Limited> {
        let message = "the desired replica count is less than the minimum replica count";
        let step = |to| Step::Bounded { bound: self.lower_bound(), from: wanted, to };
        (wanted < self.min).then(|| Limited::to(self.min, "TooFewReplicas", message, step))
    }

    /// A workload that the HPA scaled to zero and whose minimum was raised since: at least the minimum.
    fn raised_from_zero(&mut self, to: i32) -> i32 {
        if self.decision.from == 0 && to < self.min {
            self.decision.steps.push(Step::Bounded { bound: self.lower_bound(), from: to, to: self.min });
            return self.min;
        }
        to
    }
}

/// A count that is not what was wanted, and why.
struct Limited {
    to: i32,
    reason: &'static str,
    message: &'static str,
    step: Step,
}

impl Limited {
    fn to(to: i32, reason: &'static str, message: &'static str, step: impl FnOnce(i32) -> Step) -> Self {
        Self { to, reason, message, step: step(to) }
    }
}
