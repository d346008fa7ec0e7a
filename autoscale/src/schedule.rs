//! Schedules: times at which `minReplicas` and `maxReplicas` are others.
//!
//! A schedule moves the bounds and is no metric, so that a tolerance cannot swallow it and demand above the minimum still counts.
//!
//! - It is active from a firing of `start` until the next firing of `end`. When both fire at the same moment, the start counts.
//! - While it is active, its `minReplicas` and `maxReplicas` stand in place of those of the workload; what it leaves out stays.
//! - Of several active schedules the highest `minReplicas` and the lowest `maxReplicas` count.
//! - A minimum above the maximum is lowered to it: a maximum is a promise about cost, and keeps it.
//! - Moved bounds apply at once: neither a window nor a rate policy delays them.
//!
//! `start` and `end` are cron expressions of five fields: minute, hour, day of month, month, day of week. Lists (`1,3`), ranges
//! (`MON-FRI`), steps (`*/5`) and names of days and months are known; as in Vixie cron, a day matches when either of the two day
//! fields does, if both are given. They are read in the schedule's time zone, a name of the IANA database, which is built in.
//!
//! Where clocks change: a time that is skipped fires when the clock has been put forward; a time that comes twice fires the
//! first time only, unless its minute or hour field is a `*` (then both hours are like any other).

use std::sync::{Arc, LazyLock};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    Timestamp, Zoned,
    tz::{TimeZone, TimeZoneDatabase},
};

/// The IANA database that is built in. Its zones are shared, so a schedule costs no more than its texts.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// One of `scaling.schedules`, ready to use.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    name: Arc<str>,
    zone: TimeZone,
    start: Cron,
    end: Cron,
    min: Option<i32>,
    max: Option<i32>,
}

/// Why a schedule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// The time zone is not in the database.
    #[error(
        "schedule {name}: timeZone: {zone:?} is no name of the IANA time zone database; write for example Europe/Paris"
    )]
    Zone {
        /// The schedule.
        name: String,
        /// What was written.
        zone: String,
    },
    /// A cron expression cannot be read.
    #[error(
        "schedule {name}: {field}: {text:?} is no cron expression of five fields; write for example \"0 8 * * MON-FRI\" ({why})"
    )]
    Cron {
        /// The schedule.
        name: String,
        /// `start` or `end`.
        field: &'static str,
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A cron expression is readable, but there is no such day.
    #[error("schedule {name}: {field}: {text:?} never comes")]
    Never {
        /// The schedule.
        name: String,
        /// `start` or `end`.
        field: &'static str,
        /// What was written.
        text: String,
    },
    /// It changes nothing.
    #[error("schedule {name}: neither minReplicas nor maxReplicas is given")]
    NoBounds {
        /// The schedule.
        name: String,
    },
    /// Its bounds exclude each other.
    #[error("schedule {name}: minReplicas {min} is above maxReplicas {max}")]
    Crossed {
        /// The schedule.
        name: String,
        /// The minimum.
        min: i32,
        /// The maximum.
        max: i32,
    },
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// When a field of it cannot be used.
    pub fn new(
        name: &str,
        zone: &str,
        start: &str,
        end: &str,
        min: Option<i32>,
        max: Option<i32>,
    ) -> Result<Self, InvalidSchedule> {
        match (min, max) {
            (None, None) => return Err(InvalidSchedule::NoBounds { name: name.to_owned() }),
            (Some(min), Some(max)) if min > max => {
                return Err(InvalidSchedule::Crossed { name: name.to_owned(), min, max });
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
        let zone =
            ZONES.get(zone).map_err(|_| InvalidSchedule::Zone { name: name.to_owned(), zone: zone.to_owned() })?;
        let (start, end) = (cron(name, "start", start)?, cron(name, "end", end)?);
        Ok(Self { name: name.into(), zone, start, end, min, max })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it asks for at least one replica while it is active.
    #[must_use]
    pub fn wakes(&self) -> bool {
        self.min.is_some_and(|min| min > 0)
    }

    /// Whether one of its bounds is below zero.
    #[must_use]
    pub(super) fn has_negative_bounds(&self) -> bool {
        self.min.into_iter().chain(self.max).any(|bound| bound < 0)
    }

    /// Whether it is active, and when that may change.
    fn state(&self, now: Timestamp) -> (bool, Option<Timestamp>) {
        let now = now.to_zoned(self.zone.clone());
        let last = |cron: &Cron| cron.find_previous_occurrence(&now, true).ok();
        let next = |cron: &Cron| cron.find_next_occurrence(&now, false).ok().map(|at: Zoned| at.timestamp());
        let (start, end) = (last(&self.start), last(&self.end));
        let active = start.is_some() && start >= end;
        (active, next(if active { &self.end } else { &self.start }))
    }
}

fn cron(name: &str, field: &'static str, text: &str) -> Result<Cron, InvalidSchedule> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(text).map_err(|error| InvalidSchedule::Cron {
        name: name.to_owned(),
        field,
        text: text.to_owned(),
        why: error.to_string(),
    })?;
    // Within eight years there is a 29 February, on any day of the week within forty.
    let origin = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    if cron.find_next_occurrence(&origin, false).is_err() {
        return Err(InvalidSchedule::Never { name: name.to_owned(), field, text: text.to_owned() });
    }
    Ok(cron)
}

/// The bounds that hold at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The fewest replicas.
    pub min: i32,
    /// The most; never below `min`.
    pub max: i32,
    /// The schedule that sets the minimum, if one does.
    pub min_by: Option<Arc<str>>,
    /// The schedule that sets the maximum, if one does.
    pub max_by: Option<Arc<str>>,
    /// Until when they hold at least; `None`: for ever.
    pub until: Option<Timestamp>,
}

impl Bounds {
    /// Bounds that no schedule moves.
    #[must_use]
    pub fn fixed(min: i32, max: i32) -> Self {
        Self { min: min.min(max), max, min_by: None, max_by: None, until: None }
    }

    /// The bounds at a time: those of the workload, as its schedules move them. They need not be computed again before `until`.
    #[must_use]
    pub fn at(min: i32, max: i32, schedules: &[Schedule], now: Timestamp) -> Self {
        let mut bounds = Self { min, max, min_by: None, max_by: None, until: None };
        for schedule in schedules {
            let (active, until) = schedule.state(now);
            bounds.until = bounds.until.into_iter().chain(until).min();
            if !active {
                continue;
            }
            if let Some(min) = schedule.min.filter(|min| bounds.min_by.is_none() || *min > bounds.min) {
                (bounds.min, bounds.min_by) = (min, Some(Arc::clone(&schedule.name)));
            }
            if let Some(max) = schedule.max.filter(|max| bounds.max_by.is_none() || *max < bounds.max) {
                (bounds.max, bounds.max_by) = (max, Some(Arc::clone(&schedule.name)));
            }
        }
        if bounds.min > bounds.max {
            (bounds.min, bounds.min_by) = (bounds.max, bounds.max_by.clone());
        }
        bounds
    }
}
