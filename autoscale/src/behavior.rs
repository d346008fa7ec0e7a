//! How fast the count may change: rate policies, and the rules from before there were any.
//!
//! Source: `calculateScaleUpLimitWithScalingRules`, `calculateScaleDownLimitWithBehaviors` and `calculateScaleUpLimit`
//! in `horizontal.go`; the defaults are those of `SetDefaults_HorizontalPodAutoscalerBehavior`.

use jiff::Timestamp;

use super::{
    arithmetic::{ceil_i32, fit_i32, to_i32},
    history::{Events, History},
};

/// `spec.behavior`, with nothing left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// For more replicas.
    pub up: Rules,
    /// For fewer.
    pub down: Rules,
}

impl Behavior {
    /// What the API server makes of an empty `behavior`: up by 4 or 100 % in 15 s without a window; down by 100 % in 15
    /// s, with the window of the settings.
    #[must_use]
    pub fn with_defaults(downscale_stabilization: u32) -> Self {
        let rate = |kind, value| Rate { kind, value, period: 15 };
        Self {
            up: Rules { window: 0, select: Select::Max, rates: vec![rate(Unit::Pods, 4), rate(Unit::Percent, 100)] },
            down: Rules { window: downscale_stabilization, select: Select::Max, rates: vec![rate(Unit::Percent, 100)] },
        }
    }
}

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `stabilizationWindowSeconds`: over how many seconds recommendations are looked at.
    pub window: u32,
    /// Which of the policies counts.
    pub select: Select,
    /// `policies`. Without one the count does not change in this direction.
    pub rates: Vec<Rate>,
}

impl Rules {
    /// The longest period of a policy, in seconds: what happened before does not matter.
    #[must_use]
    pub fn longest_period(&self) -> u32 {
        self.rates.iter().map(|rate| rate.period).max().unwrap_or(0)
    }
}

/// `selectPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// The policy that allows the most change.
    #[default]
    Max,
    /// The one that allows the least.
    Min,
    /// No change in this direction.
    Disabled,
}

/// A policy: how much the count may change in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What `value` counts.
    pub kind: Unit,
    /// How many.
    pub value: i32,
    /// In how many seconds.
    pub period: u32,
}

/// The unit of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Replicas.
    Pods,
    /// Percent of the replicas there were when the period began.
    Percent,
}

/// The direction of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More replicas.
    Up,
    /// Fewer.
    Down,
}

/// How far a rate lets the count go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The count.
    pub replicas: i32,
    /// What sets it.
    pub by: LimitedBy,
}

/// What limits the rate of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// This policy.
    Rate(Rate),
    /// `selectPolicy: Disabled`, or a list of policies that is empty.
    Disabled,
    /// Double the count or 4, where there is no `behavior`.
    Double,
}

/// How far up or down the rules let the count go from `current`. It may lie on the other side of `current` when much
/// has happened in the period; the caller sees to that.
pub(super) fn limit(rules: &Rules, direction: Direction, current: i32, history: &History, now: Timestamp) -> Limit {
    let allowed = |rate: &Rate| {
        let happened = |events: &Events| events.within(rate.period, now);
        let start = i64::from(current) - i64::from(happened(&history.ups)) + i64::from(happened(&history.downs));
        let start = fit_i32(i128::from(start));
        let replicas = match (rate.kind, direction) {
            (Unit::Pods, Direction::Up) => start.saturating_add(rate.value),
            (Unit::Pods, Direction::Down) => start.saturating_sub(rate.value),
            // Rounded up, for otherwise a few percent of a few replicas would be none for ever.
            (Unit::Percent, Direction::Up) => ceil_i32(f64::from(start) * (1.0 + f64::from(rate.value) / 100.0)),
            (Unit::Percent, Direction::Down) => to_i32(f64::from(start) * (1.0 - f64::from(rate.value) / 100.0)),
        };
        Limit { replicas, by: LimitedBy::Rate(*rate) }
    };
    let limits = rules.rates.iter().map(allowed);
    let chosen = match (rules.select, direction) {
        (Select::Disabled, Direction::Up | Direction::Down) => None,
        // The most change is the highest count on the way up, and the lowest on the way down.
        (Select::Max, Direction::Up) | (Select::Min, Direction::Down) => limits.max_by_key(|limit| limit.replicas),
        (Select::Min, Direction::Up) | (Select::Max, Direction::Down) => limits.min_by_key(|limit| limit.replicas),
    };
    chosen.unwrap_or_else(|| without_policies(rules.select, direction, current))
}

/// The HPA starts from the integer that any policy would beat. With an empty list of policies that integer is the
/// limit.
fn without_policies(select: Select, direction: Direction, current: i32) -> Limit {
    let replicas = match (select, direction) {
        (Select::Disabled, Direction::Up | Direction::Down) => current,
        (Select::Max, Direction::Up) | (Select::Min, Direction::Down) => i32::MIN,
        (Select::Min, Direction::Up) | (Select::Max, Direction::Down) => i32::MAX,
    };
    Limit { replicas, by: LimitedBy::Disabled }
}

/// How far up the count may go where there is no `behavior`.
#[must_use]
pub(super) fn double(current: i32) -> Limit {
    Limit { replicas: to_i32((2.0 * f64::from(current)).max(4.0)), by: LimitedBy::Double }
}
