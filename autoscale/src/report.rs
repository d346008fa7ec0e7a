//! A decision in words: shown by `explain`, in Events and in the golden tests by the same code.

use std::fmt;

use super::{
    behavior::{Direction, LimitedBy, Unit},
    condition::Change,
    decision::{Bound, Decision, Hold, Idle, Measure, MetricReport, Step, Target},
    policy::Mode,
    proposal::Current,
    schedule::Bounds,
};

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        writeln!(f, "bounds: {}", self.bounds)?;
        for metric in &self.metrics {
            writeln!(f, "* {metric}")?;
        }
        for step in &self.steps {
            writeln!(f, "- {}", self.sentence(step))?;
        }
        for change in &self.conditions {
            match change {
                Change::Set(condition) => {
                    let status = if condition.status { "True" } else { "False" };
                    writeln!(f, "= {} {status} {}: {}", condition.kind.name(), condition.reason, condition.message)?;
                }
                Change::Remove(kind) => writeln!(f, "= {} goes", kind.name())?,
            }
        }
        Ok(())
    }
}

impl Decision {
    /// The result in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        let (from, to) = (self.from, self.to);
        match self.mode {
            _ if from == to => format!("stay at {}", replicas(to)),
            Mode::Recommend | Mode::Hold => {
                format!("{} instead of {from} would be right; nothing is written", replicas(to))
            }
            Mode::Auto | Mode::Off => format!("go from {from} to {}", replicas(to)),
        }
    }

    /// What made the number, in one line: the last step that did.
    #[must_use]
    pub fn cause(&self) -> String {
        self.steps.last().map(|step| self.sentence(step)).unwrap_or_default()
    }

    /// A step in words; metrics and schedules by their names.
    fn sentence(&self, step: &Step) -> String {
        let name = |index: usize| self.metrics.get(index).map_or("a metric", |metric| metric.name.as_str());
        match step {
            Step::Idle(idle) => match idle {
                Idle::Off => "scaling is off".to_owned(),
                Idle::SwitchedOff => {
                    "it has no replicas, and not because of the autoscaler: it is left alone".to_owned()
                }
                Idle::Closed => format!("no replicas are allowed: {}", self.bound(Bound::Max)),
            },
            Step::OutOfBounds { bound, to } => {
                let side = if *to < self.from { "above" } else { "below" };
                format!("{} is {side} {}: {to} at once, the metrics are not asked", self.from, self.bound(*bound))
            }
            Step::Resumed { lost_since, replicas } => {
                format!(
                    "metrics are back, lost since {lost_since}: {replicas} counts as recommended now, as after a start"
                )
            }
            Step::Recommended { replicas: count, metric } => match metric {
                Some(metric) if self.metrics.len() > 1 => {
                    format!("recommended: {} ({})", replicas(*count), name(*metric))
                }
                Some(_) | None => format!("recommended: {}", replicas(*count)),
            },
            Step::NoMetrics { replicas: count } => format!("there are no metrics: {}, the minimum", replicas(*count)),
            Step::Asleep => "no schedule asks for replicas, and no metric could: no replicas".to_owned(),
            Step::NoDemand => "no metric is above its activation: no replicas".to_owned(),
            Step::Demand { metric } => format!("{} is above its activation: at least 1 replica", name(*metric)),
            Step::Held(Hold::NoMetric { lost_since, fallback }) => match fallback {
                Some(due) => format!("held: no metric has a value since {lost_since}; the fallback applies from {due}"),
                None => format!("held: no metric has a value since {lost_since}"),
            },
            Step::Held(Hold::SomeMetrics { wanted }) => {
                format!("held: {wanted} would do for the metrics that have a value, but not all have one")
            }
            Step::Held(Hold::Schedule) => match &self.bounds.unknown {
                Some(error) => format!("held: {error}"),
                None => "held: it is not known whether a schedule is active".to_owned(),
            },
            Step::Fallback { replicas: count, lost_since } => {
                format!("no metric has a value since {lost_since}: {}, the fallback", replicas(*count))
            }
            Step::Stabilized { direction, window, from, to } => {
                let more = match direction {
                    Direction::Up => "fewer",
                    Direction::Down => "more",
                };
                format!("{to} instead of {from}: {more} were recommended in the last {window} s")
            }
            Step::RateLimited { direction, by, from, to } => {
                format!("{to} instead of {from}: {}", limit(*direction, *by))
            }
            Step::Bounded { bound, from, to } => format!("{to} instead of {from}: {}", self.bound(*bound)),
        }
    }

    fn bound(&self, bound: Bound) -> String {
        let word = match bound {
            Bound::Min => "the minimum",
            Bound::Max => "the maximum",
            Bound::One => return "one, since no metric could wake it from zero".to_owned(),
        };
        match self.bounds.schedule(bound) {
            Some(schedule) => format!("{word} of schedule {schedule}"),
            None => word.to_owned(),
        }
    }
}

fn replicas(count: i32) -> String {
    if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") }
}

fn limit(direction: Direction, by: LimitedBy) -> String {
    let (change, word) = match direction {
        Direction::Up => ("more", "up"),
        Direction::Down => ("fewer", "down"),
    };
    match by {
        LimitedBy::Rate(rate) => {
            let unit = match rate.kind {
                Unit::Pods => "",
                Unit::Percent => " %",
            };
            format!("at most {}{unit} {change} in {} s", rate.value, rate.period)
        }
        LimitedBy::Disabled => format!("scaling {word} is switched off"),
        LimitedBy::Double => "at most double, or 4, at a time".to_owned(),
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, replicas(self.max))?;
        match (&self.min_by, &self.max_by) {
            (None, None) => {}
            (Some(min), Some(max)) if min == max => write!(f, ", by schedule {min}")?,
            (Some(min), Some(max)) => write!(f, ", by schedules {min} and {max}")?,
            (Some(min), None) => write!(f, ", the minimum by schedule {min}")?,
            (None, Some(max)) => write!(f, ", the maximum by schedule {max}")?,
        }
        self.until.map_or(Ok(()), |until| write!(f, ", until {until}"))
    }
}

impl fmt::Display for MetricReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        let proposal = match &self.outcome {
            Ok(proposal) => proposal,
            Err(error) => return write!(f, "no value: {error}"),
        };
        let number = |milli: i64| Number { milli, measure: self.measure };
        match proposal.current {
            Current::Utilization { percent, average } => write!(f, "{percent} % of the request ({})", number(average))?,
            Current::Share(milli) => write!(f, "{} %", Number { milli, measure: Measure::Units })?,
            Current::Average(average) => write!(f, "{} a pod", number(average))?,
            Current::Value(value) => write!(f, "{}", number(value))?,
            Current::PerReplica { average: _, total } => write!(f, "{} in all", number(total))?,
        }
        match self.target {
            None => {}
            Some(Target::Utilization(percent) | Target::Share(percent)) => write!(f, ", target {percent} %")?,
            Some(Target::Average(target)) => match proposal.current {
                Current::PerReplica { .. } => write!(f, ", target {} a replica", number(target))?,
                Current::Utilization { .. } | Current::Share(_) | Current::Average(_) | Current::Value(_) => {
                    write!(f, ", target {}", number(target))?;
                }
            },
            Some(Target::Value(target)) => write!(f, ", target {}", number(target))?,
        }
        write!(f, ": {}", replicas(proposal.replicas))
    }
}

/// A number in thousandths, as one would say it.
pub(super) struct Number {
    pub(super) milli: i64,
    pub(super) measure: Measure,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MEBIBYTE: i64 = 1000 << 20;
        let Self { milli, measure } = *self;
        match measure {
            Measure::Cores => match (milli % 1000, milli / 1000) {
                (0, 1) => write!(f, "1 core"),
                (0, cores) => write!(f, "{cores} cores"),
                _ => write!(f, "{milli}m"),
            },
            Measure::Bytes if milli >= MEBIBYTE => {
                // Tenths are enough for a human.
                let tenths = milli / (MEBIBYTE / 10);
                if tenths % 10 == 0 {
                    write!(f, "{}Mi", tenths / 10)
                } else {
                    write!(f, "{}.{}Mi", tenths / 10, tenths % 10)
                }
            }
            Measure::Bytes | Measure::Units => {
                let (sign, size) = (if milli < 0 { "-" } else { "" }, milli.unsigned_abs());
                match size % 1000 {
                    0 => write!(f, "{sign}{}", size / 1000),
                    fraction => {
                        let digits = format!("{fraction:03}");
                        write!(f, "{sign}{}.{}", size / 1000, digits.trim_end_matches('0'))
                    }
                }
            }
        }
    }
}
