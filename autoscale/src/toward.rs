//! The way to a count that somebody set, where scaling had made another one: by the rates of `behavior` alone. There is
//! nothing to stabilize in a number that is given.

use jiff::Timestamp;

use super::{
    behavior::{Behavior, Direction, Select},
    history::History,
    limits::limit,
};

/// One step of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toward {
    /// The count now.
    pub replicas: i32,
    /// When the rates let it go on; `None` at the end of the way.
    pub again: Option<Timestamp>,
}

/// Goes from a count towards another one, as far as the rates allow now, and notes the step in the history. Where a
/// direction is disabled nothing would ever get there, so the count is taken at once.
#[must_use]
pub fn toward(behavior: &Behavior, history: &mut History, from: i32, to: i32, now: Timestamp) -> Toward {
    let (direction, rules) = if to > from { (Direction::Up, &behavior.up) } else { (Direction::Down, &behavior.down) };
    if rules.select == Select::Disabled || rules.rates.is_empty() {
        return Toward { replicas: to, again: None };
    }
    let limit = limit(rules, direction, from, history, now).replicas;
    let replicas = match direction {
        Direction::Up => to.min(limit.max(from)),
        Direction::Down => to.max(limit.min(from)),
    };
    history.changed(behavior, from, replicas, now);
    let again = (replicas != to).then(|| history.next_expiry(rules, now)).flatten();
    Toward { replicas, again }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::behavior::{Rate, Rules, Unit};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn rules(rates: &[(Unit, i32, u32)]) -> Rules {
        let rates = rates.iter().map(|&(kind, value, period)| Rate { kind, value, period }).collect();
        Rules { window: 300, select: Select::Max, rates }
    }

    /// The counts and when they were taken.
    fn way(behavior: &Behavior, from: i32, to: i32) -> Vec<(i64, i32)> {
        let (mut history, mut now, mut count, mut steps) = (History::default(), at(0), from, Vec::new());
        loop {
            let step = toward(behavior, &mut history, count, to, now);
            assert_ne!(step.replicas, count, "it moves when it said it would");
            count = step.replicas;
            steps.push((now.as_second(), count));
            let Some(again) = step.again else { return steps };
            // A second before nothing is allowed yet.
            let early = again - SignedDuration::from_secs(1);
            assert_eq!(toward(behavior, &mut history.clone(), count, to, early).replicas, count);
            now = again;
        }
    }

    #[test]
    fn the_rates_are_kept_and_the_window_is_not_asked() {
        let behavior = Behavior {
            up: rules(&[(Unit::Pods, 4, 15), (Unit::Percent, 100, 15)]),
            down: rules(&[(Unit::Pods, 2, 60)]),
        };
        assert_eq!(way(&behavior, 7, 2), [(0, 5), (60, 3), (120, 2)]);
        assert_eq!(way(&behavior, 1, 30), [(0, 5), (15, 10), (30, 20), (45, 30)]);
    }

    #[test]
    fn a_direction_that_is_disabled_takes_the_count_at_once() {
        let disabled = Rules { select: Select::Disabled, ..rules(&[(Unit::Pods, 1, 60)]) };
        let behavior = Behavior { up: disabled.clone(), down: disabled };
        assert_eq!(way(&behavior, 9, 1), [(0, 1)]);
    }
}
