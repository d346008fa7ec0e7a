//! How much work arrives at a workload: an open loop, which does not slow down because the workload is slow.

use std::time::Duration;

/// For how long a demand that moves all the time is taken as constant: one period of the kernel's CPU bandwidth
/// control.
const PIECE: Duration = Duration::from_millis(100);

/// CPU that the work of a workload needs, in cores, over the time since the demand was set.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// Always the same.
    Constant(f64),
    /// One value, then another.
    Step {
        /// Until `at`.
        before: f64,
        /// From then on.
        after: f64,
        /// When.
        at: Duration,
    },
    /// In a straight line from one value to another, which then stays.
    Ramp {
        /// At the start.
        from: f64,
        /// At the end.
        to: f64,
        /// How long it takes.
        over: Duration,
    },
    /// A wave.
    Sine {
        /// In the middle.
        mean: f64,
        /// From the middle to the top.
        amplitude: f64,
        /// From top to top.
        period: Duration,
    },
    /// Points in order of time; each value holds until the next point.
    Trace(Vec<(Duration, f64)>),
}

impl Demand {
    /// The cores that are wanted at a time.
    #[must_use]
    pub fn cores(&self, at: Duration) -> f64 {
        let cores = match self {
            Self::Constant(cores) => *cores,
            Self::Step { before, after, at: step } => *if at < *step { before } else { after },
            Self::Ramp { to, over, .. } if at >= *over => *to,
            Self::Ramp { from, to, over } => from + (to - from) * at.as_secs_f64() / over.as_secs_f64(),
            Self::Sine { mean, amplitude, period } => {
                mean + amplitude * (std::f64::consts::TAU * at.as_secs_f64() / period.as_secs_f64()).sin()
            }
            Self::Trace(points) => {
                let past = points.iter().rev().find(|(time, _)| *time <= at);
                past.or(points.first()).map_or(0.0, |(_, cores)| *cores)
            }
        };
        // Neither less than nothing nor what is no number.
        cores.max(0.0)
    }

    /// Until when the demand at a time may be taken as constant; `None` is for ever.
    #[must_use]
    pub fn constant_until(&self, at: Duration) -> Option<Duration> {
        match self {
            Self::Constant(_) => None,
            Self::Step { at: step, .. } => (at < *step).then_some(*step),
            Self::Ramp { over, .. } => (at < *over).then(|| (at + PIECE).min(*over)),
            Self::Sine { .. } => Some(at + PIECE),
            Self::Trace(points) => points.iter().map(|(time, _)| *time).find(|time| *time > at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn demand_over_time() {
        let step = Demand::Step { before: 1.0, after: 4.0, at: 2 * SECOND };
        let ramp = Demand::Ramp { from: 0.0, to: 10.0, over: 10 * SECOND };
        let sine = Demand::Sine { mean: 2.0, amplitude: 3.0, period: 4 * SECOND };
        let trace = Demand::Trace(vec![(SECOND, 1.0), (3 * SECOND, 5.0)]);
        let cores = |demand: &Demand| [0, 1, 2, 3, 100].map(|second| demand.cores(second * SECOND));
        assert_eq!(cores(&Demand::Constant(2.0)), [2.0; 5]);
        assert_eq!(cores(&step), [1.0, 1.0, 4.0, 4.0, 4.0]);
        assert_eq!(cores(&ramp), [0.0, 1.0, 2.0, 3.0, 10.0]);
        assert_eq!(cores(&trace), [1.0, 1.0, 1.0, 5.0, 5.0]);
        let rounded = cores(&sine).map(|cores| (cores * 1000.0).round() / 1000.0);
        assert_eq!(rounded, [2.0, 5.0, 2.0, 0.0, 2.0], "and never less than nothing");
        assert_eq!(Demand::Trace(vec![]).cores(SECOND), 0.0);
        assert_eq!(Demand::Constant(f64::NAN).cores(SECOND), 0.0);
    }

    #[test]
    fn a_demand_is_constant_until_it_changes() {
        let step = Demand::Step { before: 1.0, after: 4.0, at: 2 * SECOND };
        assert_eq!(Demand::Constant(1.0).constant_until(SECOND), None);
        assert_eq!(step.constant_until(SECOND), Some(2 * SECOND));
        assert_eq!(step.constant_until(2 * SECOND), None);
        let trace = Demand::Trace(vec![(SECOND, 1.0), (3 * SECOND, 5.0)]);
        assert_eq!(trace.constant_until(Duration::ZERO), Some(SECOND));
        assert_eq!(trace.constant_until(SECOND), Some(3 * SECOND));
        assert_eq!(trace.constant_until(3 * SECOND), None);
    }
}
