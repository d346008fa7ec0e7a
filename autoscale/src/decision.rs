//! A decision as data: what it came to, from what, and every step on the way. Nothing here computes.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    behavior::{Direction, LimitedBy},
    condition::{self, Change, ScaledToZero, Write},
    policy::{Kind, Metric, Mode, Resource, ResourceTarget, ValueTarget},
    proposal::{MetricError, Proposal},
    schedule::Bounds,
};

/// What was decided for one workload at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// Whether it is carried out.
    pub mode: Mode,
    /// The count there is.
    pub from: i32,
    /// The count there should be.
    pub to: i32,
    /// The bounds it was made within.
    pub bounds: Bounds,
    /// What each metric says, in the order of the policy. Empty when the metrics were not asked.
    pub metrics: Vec<MetricReport>,
    /// Every step that made the number, in order.
    pub steps: Vec<Step>,
    /// The conditions that it changes, before anything is written. [`Decision::changes`] has them all.
    pub(super) conditions: Vec<Change>,
    /// What the condition ScaledToZero becomes once the count is written.
    pub(super) scaled_to_zero: ScaledToZero,
    /// What the metrics alone ask for: neither stabilized nor limited. The history keeps it.
    pub recommendation: Option<i32>,
    /// The count that the history is to note as well, since it starts anew after the metrics were lost.
    pub resumed_from: Option<i32>,
    /// Whether any metric has answered.
    pub lost: LostMetrics,
    /// What the samples of ratios came to. The history keeps it.
    pub(super) used: Vec<Used>,
}

/// A sample of a metric whose proposal is a ratio times the count, and what it came to when it was first looked at.
///
/// A value of something outside does not fall when replicas are added, only when it is measured again. The HPA looks at
/// each sample about once, as it decides as often as it measures; a decision is made here whenever any metric has news,
/// and a ratio that is applied twice would multiply the count twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) metric: String,
    pub(super) target: Target,
    /// When the sample was taken.
    pub(super) taken: Timestamp,
    pub(super) proposal: Proposal,
}

impl Decision {
    /// The count to write, if there is one to write.
    #[must_use]
    pub fn write(&self) -> Option<i32> {
        match self.mode {
            Mode::Auto => (self.to != self.from).then_some(self.to),
            Mode::Recommend | Mode::Hold | Mode::Off => None,
        }
    }

    /// How the conditions change, given what became of the write.
    #[must_use]
    pub fn changes(&self, write: &Write) -> Vec<Change> {
        let mut changes = self.conditions.clone();
        condition::after_write(&mut changes, write, self.to, self.scaled_to_zero);
        changes
    }

    /// Whether a metric failed. A decision may be made all the same, from the others.
    #[must_use]
    pub fn has_failed_metrics(&self) -> bool {
        self.metrics.iter().any(|metric| metric.outcome.is_err())
    }
}

/// What one metric says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricReport {
    /// Its type.
    pub kind: Kind,
    /// What it is called: a resource, a metric's name.
    pub name: String,
    /// What it is held against; `None` for a metric that cannot be computed as written.
    pub target: Option<Target>,
    /// What the numbers count.
    pub measure: Measure,
    /// What it asks for, or why it asks for nothing.
    pub outcome: Result<Proposal, MetricError>,
}

/// What a metric is held against. In thousandths, percentages aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Percent of what the pods ask for.
    Utilization(i32),
    /// Percent of the time.
    Share(i32),
    /// The mean over the pods, or a replica's share of a value.
    Average(i64),
    /// A value.
    Value(i64),
}

/// What numbers of a metric count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Cores.
    Cores,
    /// Bytes.
    Bytes,
    /// Whatever the metric's source says.
    Units,
}

impl MetricReport {
    pub(super) fn new(metric: &Metric, outcome: Result<Proposal, MetricError>) -> Self {
        Self { kind: metric.kind(), name: metric.label(), target: metric.target(), measure: metric.measure(), outcome }
    }
}

impl Metric {
    /// What it is called in reports.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Resource { resource, .. } => resource.to_string(),
            Self::ContainerResource { resource, container, .. } => format!("{resource} of container {container}"),
            Self::Pods { name, .. } | Self::External { name, .. } | Self::Prometheus { name, .. } => name.clone(),
            Self::Object { name, object, .. } => format!("{name} of {object}"),
            Self::Pressure { resource, stall, .. } => format!("{resource} pressure ({stall})"),
            Self::Throttling { .. } => "cpu throttling".to_owned(),
            Self::Invalid { kind, .. } => kind.name().to_owned(),
        }
    }

    /// What it is held against; `None` when it cannot be computed as written.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        Some(match self {
            Self::Resource { target, .. } | Self::ContainerResource { target, .. } => match target {
                ResourceTarget::Utilization(percent) => Target::Utilization(*percent),
                ResourceTarget::AverageValue(value) => Target::Average(*value),
            },
            Self::Pods { target, .. } => Target::Average(*target),
            Self::Object { target, .. } | Self::External { target, .. } | Self::Prometheus { target, .. } => {
                match target {
                    ValueTarget::Value(value) => Target::Value(*value),
                    ValueTarget::AverageValue(value) => Target::Average(*value),
                }
            }
            Self::Pressure { target, .. } | Self::Throttling { target } => Target::Share(*target),
            Self::Invalid { .. } => return None,
        })
    }

    fn measure(&self) -> Measure {
        match self {
            Self::Resource { resource, .. } | Self::ContainerResource { resource, .. } => match resource {
                Resource::Cpu => Measure::Cores,
                Resource::Memory => Measure::Bytes,
                Resource::Other(_) => Measure::Units,
            },
            Self::Pods { .. }
            | Self::Object { .. }
            | Self::External { .. }
            | Self::Prometheus { .. }
            | Self::Pressure { .. }
            | Self::Throttling { .. }
            | Self::Invalid { .. } => Measure::Units,
        }
    }
}

/// One step on the way to the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is decided.
    Idle(Idle),
    /// The count lies outside the bounds and is moved to the nearest; the metrics are not asked.
    OutOfBounds {
        /// Which bound it is outside of.
        bound: Bound,
        /// The bound, and the new count.
        to: i32,
    },
    /// The metrics answer again after the fallback applied; the count is noted as after a start.
    Resumed {
        /// Since when no metric had answered.
        lost_since: Timestamp,
        /// The count that is noted.
        replicas: i32,
    },
    /// The highest proposal.
    Recommended {
        /// The count.
        replicas: i32,
        /// Which metric's it is, as an index; `None` when all ask for none.
        metric: Option<usize>,
    },
    /// There are no metrics: the minimum is recommended.
    NoMetrics {
        /// The minimum.
        replicas: i32,
    },
    /// Only schedules could wake the workload, and none asks for replicas: none are recommended.
    Asleep,
    /// No metric tells of demand: no replicas are recommended.
    NoDemand,
    /// A metric tells of demand, so there has to be a replica.
    Demand {
        /// Which metric, as an index.
        metric: usize,
    },
    /// The count stays, since a metric failed.
    Held(Hold),
    /// No metric has answered for long: the fallback count is recommended.
    Fallback {
        /// The count.
        replicas: i32,
        /// Since when no metric has answered.
        lost_since: Timestamp,
    },
    /// Recommendations of the window hold the count back.
    Stabilized {
        /// Which window.
        direction: Direction,
        /// How long it is, in seconds.
        window: u32,
        /// What was recommended now.
        from: i32,
        /// What the window allows.
        to: i32,
    },
    /// The count may not change so fast.
    RateLimited {
        /// Up or down.
        direction: Direction,
        /// What says so.
        by: LimitedBy,
        /// What was wanted.
        from: i32,
        /// What is allowed.
        to: i32,
    },
    /// A bound ends the change.
    Bounded {
        /// Which bound.
        bound: Bound,
        /// What was wanted.
        from: i32,
        /// The bound.
        to: i32,
    },
}

/// Why nothing is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The mode is Off.
    Off,
    /// The count is zero, and not because of the autoscaler.
    SwitchedOff,
    /// No replicas are allowed, and there are none.
    Closed,
}

/// A bound of the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The fewest replicas.
    Min,
    /// The most.
    Max,
    /// One replica, where no metric could wake the workload from zero.
    One,
}

/// Why the count stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// No metric has a value.
    NoMetric {
        /// Since when.
        lost_since: Timestamp,
        /// When the fallback count will apply, if there is one.
        fallback: Option<Timestamp>,
    },
    /// Some have no value, and the others ask for fewer replicas.
    SomeMetrics {
        /// What they ask for.
        wanted: i32,
    },
    /// It is not known whether a schedule is active.
    Schedule,
}

/// Whether the metrics answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostMetrics {
    /// They were not asked.
    NotAsked,
    /// At least one did.
    None,
    /// None has since then.
    Since(Timestamp),
}

impl Bounds {
    /// The schedule behind a bound, if there is one.
    #[must_use]
    pub fn schedule(&self, bound: Bound) -> Option<&Arc<str>> {
        match bound {
            Bound::Min => self.min_by.as_ref(),
            Bound::Max => self.max_by.as_ref(),
            Bound::One => None,
        }
    }
}
