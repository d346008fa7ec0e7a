//! A decision in single words and numbers: for status and metrics. In sentences it is in `report`.

use super::{
    behavior::Direction,
    decision::{Bound, Decision, Hold, Idle, Measure, MetricReport, Step, Target},
    proposal::Current,
    report::Number,
};

impl Decision {
    /// What made the number, as one word; one of a fixed list.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.steps.last().map_or("Unchanged", Step::reason)
    }
}

impl Step {
    /// The step as one word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Idle(Idle::Off) => "Off",
            Self::Idle(Idle::SwitchedOff | Idle::Closed) => "Disabled",
            Self::OutOfBounds { .. } => "OutOfBounds",
            Self::Resumed { .. } => "MetricsBack",
            Self::Recommended { .. } => "Metrics",
            Self::NoMetrics { .. } => "Schedule",
            Self::Asleep | Self::NoDemand => "NoDemand",
            Self::Demand { .. } => "Demand",
            Self::Held(Hold::NoMetric { .. } | Hold::SomeMetrics { .. }) => "HeldWithoutMetrics",
            Self::Held(Hold::Schedule) => "HeldWithoutSchedule",
            Self::Fallback { .. } => "Fallback",
            Self::Stabilized { .. } => "Stabilized",
            Self::RateLimited { .. } => "RateLimited",
            Self::Bounded { .. } => "Bounded",
        }
    }

    /// What it keeps the count from, if it does: a window, a rate or a bound.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Stabilized { direction: Direction::Up, .. } => Some("scaleUpWindow"),
            Self::Stabilized { direction: Direction::Down, .. } => Some("scaleDownWindow"),
            Self::RateLimited { direction: Direction::Up, .. } => Some("scaleUpRate"),
            Self::RateLimited { direction: Direction::Down, .. } => Some("scaleDownRate"),
            Self::Bounded { bound: Bound::Min | Bound::One, .. } => Some("minReplicas"),
            Self::Bounded { bound: Bound::Max, .. } => Some("maxReplicas"),
            Self::Held(Hold::NoMetric { .. } | Hold::SomeMetrics { .. }) => Some("missingMetrics"),
            Self::Held(Hold::Schedule) => Some("unknownSchedule"),
            Self::Idle(_)
            | Self::OutOfBounds { .. }
            | Self::Resumed { .. }
            | Self::Recommended { .. }
            | Self::NoMetrics { .. }
            | Self::Asleep
            | Self::NoDemand
            | Self::Demand { .. }
            | Self::Fallback { .. } => None,
        }
    }
}

impl MetricReport {
    /// Its value in the form of its target; `None` when it has none.
    #[must_use]
    pub fn current_text(&self) -> Option<String> {
        let number = |milli: i64, measure: Measure| Number { milli, measure }.to_string();
        self.outcome.as_ref().ok().map(|proposal| match proposal.current {
            Current::Utilization { percent, average: _ } => format!("{percent}%"),
            Current::Share(milli) => format!("{}%", number(milli, Measure::Units)),
            Current::Average(value) | Current::Value(value) => number(value, self.measure),
            Current::PerReplica { average, total: _ } => number(average, self.measure),
        })
    }

    /// Its target; `None` for a metric that cannot be computed as written.
    #[must_use]
    pub fn target_text(&self) -> Option<String> {
        self.target.map(|target| match target {
            Target::Utilization(percent) | Target::Share(percent) => format!("{percent}%"),
            Target::Average(milli) | Target::Value(milli) => Number { milli, measure: self.measure }.to_string(),
        })
    }
}
