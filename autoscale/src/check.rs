//! What a policy may not say. The API refuses most of it by its schema; a policy made from an object that got past it,
//! or from a file, is checked here before anything is decided with it.
//!
//! Source of the limits: `pkg/apis/autoscaling/validation` for what `autoscaling/v2` has too.

use super::{
    behavior::{Behavior, Rules},
    decision::Target,
    policy::{FromZero, Metric, Policy},
};

/// The longest stabilization window, in seconds.
const LONGEST_WINDOW: u32 = 3600;
/// The longest period of a rate policy, in seconds.
const LONGEST_PERIOD: u32 = 1800;

/// Why a policy cannot be used. Each message names the field and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// The bounds exclude each other, or are none.
    #[error(
        "minReplicas {min} and maxReplicas {max}: write 0 <= minReplicas <= maxReplicas, and maxReplicas at least 1"
    )]
    Bounds {
        /// The minimum.
        min: i32,
        /// The maximum.
        max: i32,
    },
    /// Nothing would ever wake the workload.
    #[error(
        "minReplicas 0 needs something that tells of demand without replicas: a metric of type Object, External or Prometheus, or a schedule"
    )]
    ZeroWithoutDemand,
    /// A metric cannot be computed as written.
    #[error("metric {metric}: {message}")]
    Metric {
        /// Which one.
        metric: String,
        /// What is wrong.
        message: String,
    },
    /// A target is not above zero.
    #[error("metric {metric}: the target has to be above 0")]
    Target {
        /// Which metric.
        metric: String,
    },
    /// A share of time above all of it.
    #[error("metric {metric}: averageUtilization is a share of the time: 1 to 100")]
    Share {
        /// Which metric.
        metric: String,
    },
    /// A tolerance below zero.
    #[error("behavior.{direction}.tolerance cannot be negative")]
    Tolerance {
        /// `scaleUp` or `scaleDown`.
        direction: &'static str,
    },
    /// A window that is too long.
    #[error("behavior.{direction}.stabilizationWindowSeconds: at most {LONGEST_WINDOW}")]
    Window {
        /// `scaleUp` or `scaleDown`.
        direction: &'static str,
    },
    /// No policies at all.
    #[error("behavior.{direction}.policies: leave it out, or give at least one")]
    NoPolicies {
        /// `scaleUp` or `scaleDown`.
        direction: &'static str,
    },
    /// A policy out of range.
    #[error("behavior.{direction}.policies: value has to be above 0, periodSeconds 1 to {LONGEST_PERIOD}")]
    Rate {
        /// `scaleUp` or `scaleDown`.
        direction: &'static str,
    },
    /// Two schedules of one name.
    #[error("schedules: {name} is there twice; decisions name schedules, so their names have to differ")]
    ScheduleTwice {
        /// The name.
        name: String,
    },
    /// A bound of a schedule below zero.
    #[error("schedule {name}: minReplicas and maxReplicas cannot be negative")]
    NegativeSchedule {
        /// The schedule.
        name: String,
    },
    /// A minimum of a schedule that can never be.
    #[error(
        "schedule {name}: minReplicas {min} is above maxReplicas {max}, which would always lower it; lower minReplicas, or raise maxReplicas of scaling or of the schedule"
    )]
    ScheduleAboveMax {
        /// The schedule.
        name: String,
        /// Its minimum.
        min: i32,
        /// The highest maximum that the workload ever has.
        max: i32,
    },
    /// A fallback count below zero.
    #[error("fallback.replicas cannot be negative")]
    Fallback,
}

impl Policy {
    /// Checks that the policy makes sense.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        if self.min < 0 || self.max < 1 || self.min > self.max {
            return Err(InvalidPolicy::Bounds { min: self.min, max: self.max });
        }
        let wakes_by_itself = self.settings.from_zero == FromZero::Always && !self.schedules.is_empty();
        if self.min == 0 && !self.sees_demand_at_zero() && !wakes_by_itself {
            return Err(InvalidPolicy::ZeroWithoutDemand);
        }
        self.metrics.iter().try_for_each(Metric::check)?;
        if self.tolerance.up < 0.0 || self.tolerance.down < 0.0 {
            let direction = if self.tolerance.up < 0.0 { "scaleUp" } else { "scaleDown" };
            return Err(InvalidPolicy::Tolerance { direction });
        }
        if let Some(Behavior { up, down }) = &self.behavior {
            up.check("scaleUp")?;
            down.check("scaleDown")?;
        }
        let highest = self.schedules.iter().filter_map(|schedule| schedule.bounds().1).fold(self.max, i32::max);
        for (index, schedule) in self.schedules.iter().enumerate() {
            if self.schedules.iter().take(index).any(|earlier| earlier.name() == schedule.name()) {
                return Err(InvalidPolicy::ScheduleTwice { name: schedule.name().to_owned() });
            }
            if schedule.has_negative_bounds() {
                return Err(InvalidPolicy::NegativeSchedule { name: schedule.name().to_owned() });
            }
            if let Some(min) = schedule.bounds().0.filter(|min| *min > highest) {
                return Err(InvalidPolicy::ScheduleAboveMax { name: schedule.name().to_owned(), min, max: highest });
            }
        }
        match self.fallback {
            Some(fallback) if fallback.replicas < 0 => Err(InvalidPolicy::Fallback),
            Some(_) | None => Ok(()),
        }
    }
}

impl Metric {
    fn check(&self) -> Result<(), InvalidPolicy> {
        let metric = || self.label();
        let above_zero = match self.target() {
            None => match self {
                Self::Invalid { message, .. } => {
                    return Err(InvalidPolicy::Metric { metric: metric(), message: message.clone() });
                }
                Self::Resource { .. }
                | Self::ContainerResource { .. }
                | Self::Pods { .. }
                | Self::Object { .. }
                | Self::External { .. }
                | Self::Prometheus { .. }
                | Self::Pressure { .. }
                | Self::Throttling { .. } => true,
            },
            Some(Target::Share(percent)) if percent > 100 => return Err(InvalidPolicy::Share { metric: metric() }),
            Some(Target::Utilization(percent) | Target::Share(percent)) => percent > 0,
            Some(Target::Average(value) | Target::Value(value)) => value > 0,
        };
        if above_zero { Ok(()) } else { Err(InvalidPolicy::Target { metric: metric() }) }
    }
}

impl Rules {
    fn check(&self, direction: &'static str) -> Result<(), InvalidPolicy> {
        if self.window > LONGEST_WINDOW {
            return Err(InvalidPolicy::Window { direction });
        }
        if self.rates.is_empty() {
            return Err(InvalidPolicy::NoPolicies { direction });
        }
        let fits = |rate: &super::behavior::Rate| rate.value > 0 && (1..=LONGEST_PERIOD).contains(&rate.period);
        if self.rates.iter().all(fits) { Ok(()) } else { Err(InvalidPolicy::Rate { direction }) }
    }
}
