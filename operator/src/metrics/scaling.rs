//! Metrics of scaling: what decisions come to, and how long it takes from news to a written count.
//!
//! A standby decides as well, and nothing comes of it. So only the process that leads counts: a sum over all replicas
//! counts each decision once.

use std::{cmp::Ordering, fmt, time::Duration};

use catamaran_autoscale::{
    Decision,
    behavior::Direction,
    decision::{Bound, Step},
    policy::Mode,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// From ten milliseconds to a minute: from what an agent's push takes to what the HPA takes.
const BUCKETS: [f64; 13] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0];

/// Counts for all workloads.
pub(super) struct ScalingMetrics {
    decisions: Family<DecisionLabels, Counter>,
    up: Counter,
    down: Counter,
    to_decision: Histogram,
    reaction: Histogram,
    to_write: Histogram,
}

/// What a decision came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    /// The count grows.
    Up,
    /// The count shrinks.
    Down,
    /// Another count is right, and the mode is Recommend.
    Recommended,
    /// The count is right, or may not change now.
    Unchanged,
    /// The count stays since metrics are missing.
    Held,
    /// Nothing is decided: the mode is Off, or the workload is switched off.
    Idle,
}

/// What kept a count from what the metrics ask for, or made it in their place: the last step of the decision that did
/// so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Limit {
    None,
    MinReplicas,
    MaxReplicas,
    /// A bound that a schedule set.
    Schedule,
    ScaleUpWindow,
    ScaleDownWindow,
    ScaleUpRate,
    ScaleDownRate,
    MissingMetrics,
    Fallback,
}

// Words are those of `status.scaling.lastDecision.limitedBy`, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    outcome: Outcome,
    limit: Limit,
}

impl ScalingMetrics {
    /// Registers all of them, below `scaling` in the names.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (decisions, changes) = (Family::default(), Family::<[(&'static str, &'static str); 1], Counter>::default());
        let direction = |direction| changes.get_or_create_owned(&[("direction", direction)]);
        let metrics = Self {
            decisions,
            up: direction("up"),
            down: direction("down"),
            to_decision: Histogram::new(BUCKETS),
            reaction: Histogram::new(BUCKETS),
            to_write: Histogram::new(BUCKETS),
        };
        // There from the start: the first one of a series that begins with it would be lost to rate().
        for outcome in Outcome::ALL {
            drop(metrics.decisions.get_or_create(&DecisionLabels { outcome, limit: Limit::None }));
        }
        let registry = registry.sub_registry_with_prefix("scaling");
        registry.register(
            "decisions",
            "Decisions of scaling, by what they came to and what limited them",
            metrics.decisions.clone(),
        );
        registry.register("changes", "Changes of a count that were written, by direction", changes.clone());
        registry.register_with_unit(
            "sample_to_decision",
            "Time from the arrival of usage, or of an answer of a source, to the decision on it",
            Unit::Seconds,
            metrics.to_decision.clone(),
        );
        registry.register_with_unit(
            "reaction",
            "Time from the decision that changes a count until it is written",
            Unit::Seconds,
            metrics.reaction.clone(),
        );
        registry.register_with_unit(
            "sample_to_write",
            "Time from the arrival of usage, or of an answer of a source, until the count that it changed is written",
            Unit::Seconds,
            metrics.to_write.clone(),
        );
        metrics
    }

    pub(super) fn decided(&self, decision: &Decision) {
        let labels =
            DecisionLabels { outcome: Outcome::from_decision(decision), limit: Limit::from_decision(decision) };
        self.decisions.get_or_create(&labels).inc();
    }

    pub(super) fn scaled(&self, decision: &Decision) {
        match decision.to.cmp(&decision.from) {
            Ordering::Greater => _ = self.up.inc(),
            Ordering::Less => _ = self.down.inc(),
            Ordering::Equal => {}
        }
    }

    pub(super) fn sampled(&self, to_decision: Duration) {
        self.to_decision.observe(to_decision.as_secs_f64());
    }

    pub(super) fn reacted(&self, from_decision: Duration, from_sample: Option<Duration>) {
        self.reaction.observe(from_decision.as_secs_f64());
        if let Some(from_sample) = from_sample {
            self.to_write.observe(from_sample.as_secs_f64());
        }
    }
}

impl Outcome {
    const ALL: [Self; 6] = [Self::Up, Self::Down, Self::Recommended, Self::Unchanged, Self::Held, Self::Idle];

    fn from_decision(decision: &Decision) -> Self {
        let has = |wanted: fn(&Step) -> bool| decision.steps.iter().any(wanted);
        match (decision.to.cmp(&decision.from), decision.mode) {
            (Ordering::Greater, Mode::Auto) => Self::Up,
            (Ordering::Less, Mode::Auto) => Self::Down,
            (Ordering::Greater | Ordering::Less, Mode::Recommend | Mode::Hold | Mode::Off) => Self::Recommended,
            (Ordering::Equal, Mode::Auto | Mode::Recommend | Mode::Hold | Mode::Off) => match () {
                () if has(|step| matches!(step, Step::Idle(_))) => Self::Idle,
                () if has(|step| matches!(step, Step::Held(_))) => Self::Held,
                () => Self::Unchanged,
            },
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Recommended => "recommended",
            Self::Unchanged => "unchanged",
            Self::Held => "held",
            Self::Idle => "idle",
        }
    }
}

impl Limit {
    fn from_decision(decision: &Decision) -> Self {
        decision.steps.iter().rev().find_map(|step| Self::of_step(step, decision)).unwrap_or(Self::None)
    }

    fn of_step(step: &Step, decision: &Decision) -> Option<Self> {
        Some(match step {
            Step::Stabilized { direction: Direction::Up, .. } => Self::ScaleUpWindow,
            Step::Stabilized { direction: Direction::Down, .. } => Self::ScaleDownWindow,
            Step::RateLimited { direction: Direction::Up, .. } => Self::ScaleUpRate,
            Step::RateLimited { direction: Direction::Down, .. } => Self::ScaleDownRate,
            Step::Bounded { bound, .. } | Step::OutOfBounds { bound, .. } => match bound {
                bound if decision.bounds.schedule(*bound).is_some() => Self::Schedule,
                Bound::Min | Bound::One => Self::MinReplicas,
                Bound::Max => Self::MaxReplicas,
            },
            Step::Held(_) => Self::MissingMetrics,
            Step::Fallback { .. } => Self::Fallback,
            Step::Idle(_)
            | Step::Resumed { .. }
            | Step::Recommended { .. }
            | Step::NoMetrics { .. }
            | Step::Asleep
            | Step::NoDemand
            | Step::Demand { .. } => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MinReplicas => "minReplicas",
            Self::MaxReplicas => "maxReplicas",
            Self::Schedule => "schedule",
            Self::ScaleUpWindow => "scaleUpWindow",
            Self::ScaleDownWindow => "scaleDownWindow",
            Self::ScaleUpRate => "scaleUpRate",
            Self::ScaleDownRate => "scaleDownRate",
            Self::MissingMetrics => "missingMetrics",
            Self::Fallback => "fallback",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

impl EncodeLabelValue for Limit {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use catamaran_autoscale::{
        Behavior, Bounds, History, Metric, Observed, Policy, decide,
        policy::{Settings, Tolerance, ValueTarget},
        samples::{NoSamples, Samples},
    };
    use jiff::Timestamp;

    use super::*;

    /// A decision on the length of a queue, of which each replica takes one, between 2 and 10 replicas.
    fn decision(mode: Mode, from: i32, length: Option<i64>, change: impl FnOnce(&mut Policy, &mut Bounds)) -> Decision {
        let remembered = History::new(from, Timestamp::UNIX_EPOCH);
        decision_after(&remembered, mode, from, length, change)
    }

    fn decision_after(
        history: &History,
        mode: Mode,
        from: i32,
        length: Option<i64>,
        change: impl FnOnce(&mut Policy, &mut Bounds),
    ) -> Decision {
        let target = ValueTarget::AverageValue(1000);
        let mut policy = Policy {
            mode,
            min: 2,
            max: 10,
            metrics: vec![Metric::External { name: "queue".to_owned(), target, activation: None }],
            tolerance: Tolerance::default(),
            behavior: Some(Behavior::with_defaults(300)),
            schedules: Vec::new(),
            fallback: None,
            settings: Settings::default(),
        };
        let mut bounds = Bounds::at(2, 10, &[], Timestamp::UNIX_EPOCH);
        change(&mut policy, &mut bounds);
        let samples = match length {
            Some(length) => Ok(Samples::Series(vec![length * 1000])),
            None => Err(NoSamples("down".to_owned())),
        };
        let observed = Observed {
            replicas: from,
            status_replicas: from,
            bounds: &bounds,
            pods: &[],
            samples: &[samples],
            taken: &[],
            scaled_to_zero: false,
        };
        decide(&policy, &observed, history, Timestamp::UNIX_EPOCH)
    }

    fn as_is(_: &mut Policy, _: &mut Bounds) {}

    #[test]
    fn a_decision_is_counted_by_its_outcome_and_its_last_limit() {
        let scheduled = |_: &mut Policy, bounds: &mut Bounds| bounds.max_by = Some("night".into());
        // The window allows 8 of 9, and the rate 6 of them.
        let window = |policy: &mut Policy, _: &mut Bounds| {
            policy.behavior.iter_mut().for_each(|behavior| behavior.up.window = 60);
        };
        let remembered = History::new(8, Timestamp::UNIX_EPOCH);
        let twice = decision_after(&remembered, Mode::Auto, 2, Some(9), window);
        assert_eq!(twice.steps.iter().filter_map(Step::limit).collect::<Vec<_>>(), ["scaleUpWindow", "scaleUpRate"]);
        let cases = [
            (twice, Outcome::Up, Limit::ScaleUpRate),
            (decision(Mode::Auto, 5, Some(7), as_is), Outcome::Up, Limit::None),
            (decision(Mode::Auto, 5, Some(5), as_is), Outcome::Unchanged, Limit::None),
            (decision(Mode::Auto, 5, Some(2), as_is), Outcome::Unchanged, Limit::ScaleDownWindow),
            (decision(Mode::Auto, 8, Some(50), as_is), Outcome::Up, Limit::MaxReplicas),
            (decision(Mode::Auto, 10, Some(50), as_is), Outcome::Unchanged, Limit::MaxReplicas),
            (decision(Mode::Auto, 10, Some(50), scheduled), Outcome::Unchanged, Limit::Schedule),
            (decision(Mode::Auto, 1, Some(50), as_is), Outcome::Up, Limit::MinReplicas),
            (decision(Mode::Auto, 20, Some(5), as_is), Outcome::Down, Limit::MaxReplicas),
            (decision(Mode::Auto, 2, Some(9), as_is), Outcome::Up, Limit::ScaleUpRate),
            (decision(Mode::Auto, 5, None, as_is), Outcome::Held, Limit::MissingMetrics),
            (decision(Mode::Recommend, 5, Some(7), as_is), Outcome::Recommended, Limit::None),
            (decision(Mode::Off, 5, Some(7), as_is), Outcome::Idle, Limit::None),
            (decision(Mode::Auto, 0, Some(1), as_is), Outcome::Up, Limit::MinReplicas),
        ];
        for (decision, outcome, limit) in cases {
            assert_eq!(
                (Outcome::from_decision(&decision), Limit::from_decision(&decision)),
                (outcome, limit),
                "{decision:#?}"
            );
        }
    }

    /// The words are those of the status, but for bounds of schedules and for the fallback, of which the status tells
    /// elsewhere.
    #[test]
    fn limits_have_the_words_of_the_status() {
        for decision in [
            decision(Mode::Auto, 5, Some(2), as_is),
            decision(Mode::Auto, 10, Some(50), as_is),
            decision(Mode::Auto, 2, Some(9), as_is),
            decision(Mode::Auto, 5, None, as_is),
        ] {
            let told = decision.steps.iter().filter_map(Step::limit).next_back();
            assert_eq!(told, Some(Limit::from_decision(&decision).as_str()), "{decision:#?}");
        }
    }

    #[test]
    fn what_is_counted_is_printed() {
        let mut registry = Registry::default();
        let metrics = ScalingMetrics::register(&mut registry);
        let up = decision(Mode::Auto, 8, Some(50), as_is);
        metrics.decided(&up);
        metrics.scaled(&up);
        metrics.sampled(Duration::from_millis(300));
        metrics.reacted(Duration::from_millis(20), Some(Duration::from_millis(320)));
        metrics.reacted(Duration::from_millis(20), None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        for line in [
            "scaling_decisions_total{outcome=\"up\",limit=\"maxReplicas\"} 1",
            "scaling_decisions_total{outcome=\"held\",limit=\"none\"} 0",
            "scaling_changes_total{direction=\"up\"} 1",
            "scaling_changes_total{direction=\"down\"} 0",
            "scaling_sample_to_decision_seconds_bucket{le=\"0.25\"} 0",
            "scaling_sample_to_decision_seconds_bucket{le=\"0.5\"} 1",
            "scaling_sample_to_write_seconds_count 1",
            "scaling_reaction_seconds_count 2",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in {text}");
        }
    }
}
