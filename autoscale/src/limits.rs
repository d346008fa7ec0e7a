//! How far the count may go now: rate policies over what has happened, and the rule from before there were any.
//!
//! Source: `calculateScaleUpLimitWithScalingRules`, `calculateScaleDownLimitWithBehaviors` and `calculateScaleUpLimit`
//! in `horizontal.go`.

use jiff::Timestamp;

use super::{
    arithmetic::{ceil_i32, fit_i32, to_i32},
    behavior::{Direction, LimitedBy, Rate, Rules, Select, Unit},
    history::{Events, History},
};

/// How far a rate lets the count go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The count.
    pub(super) replicas: i32,
    /// What sets it.
    pub(super) by: LimitedBy,
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
