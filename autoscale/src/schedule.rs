//! Schedules: times at which `minReplicas` and `maxReplicas` are others.
//!
//! A schedule moves the bounds and is no metric, so that a tolerance cannot swallow it and demand above the minimum
//! still counts.
//!
//! - It is active while the clock on the wall of its zone shows a time from one of `start` until the next one of `end`.
//!   Where both are the same time, the start counts; the two may not always be the same.
//! - While it is active, its `minReplicas` and `maxReplicas` stand in place of those of the workload; what it leaves
//!   out stays.
//! - Of several active schedules the highest `minReplicas` and the lowest `maxReplicas` count.
//! - A minimum above the maximum is lowered to it: a maximum is a promise about cost, and keeps it. One that no maximum
//!   of the policy reaches is refused.
//! - Moved bounds apply at once: neither a window nor a rate policy delays them.
//!
//! `start` and `end` are cron expressions of five fields: minute, hour, day of month, month, day of week. Lists
//! (`1,3`), ranges (`MON-FRI`), steps (`*/5`) and names of days and months are known; as in Vixie cron, a day matches
//! when either of the two day fields does, if both are given. They are read in the schedule's time zone, a name of the
//! IANA database, which is built in.
//!
//! Where clocks change, only what they show counts. A time that is skipped is passed at the moment of the change: a
//! window that lies in the skipped hour is empty, and one that ends there ends with it. An hour that comes twice is in
//! the window both times. A clock that is set back by more than an hour (Antarctic stations do it) lengthens no window
//! by more than that hour.

use std::sync::{Arc, LazyLock};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp, Zoned,
    civil::DateTime,
    tz::{TimeZone, TimeZoneDatabase},
};

use super::arithmetic::later;

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
    /// It would begin whenever it ends.
    #[error(
        "schedule {name}: start and end are the same time ({text:?}), so it would always be active; write another end, or set minReplicas and maxReplicas of scaling itself"
    )]
    Same {
        /// The schedule.
        name: String,
        /// What was written.
        text: String,
    },
    /// A time is looked for where no calendar of ours reaches.
    #[error("schedule {name}: no time could be found that {field} {text:?} names before or after {now}: {why}")]
    Search {
        /// The schedule.
        name: String,
        /// `start` or `end`.
        field: &'static str,
        /// What was written.
        text: String,
        /// The time from which on it was looked for.
        now: Timestamp,
        /// What went wrong.
        why: String,
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
        let text = start;
        let (start, end) = (cron(name, "start", start)?, cron(name, "end", end)?);
        if start == end {
            return Err(InvalidSchedule::Same { name: name.to_owned(), text: text.to_owned() });
        }
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

    /// Its own `minReplicas` and `maxReplicas`.
    #[must_use]
    pub(super) fn bounds(&self) -> (Option<i32>, Option<i32>) {
        (self.min, self.max)
    }

    /// Whether one of its bounds is below zero.
    #[must_use]
    pub(super) fn has_negative_bounds(&self) -> bool {
        self.min.into_iter().chain(self.max).any(|bound| bound < 0)
    }

    /// Whether it is active, and until when that is certain.
    fn state(&self, now: Timestamp) -> Result<(bool, Timestamp), InvalidSchedule> {
        /// More changes of the clock than lie between two times of one cron expression. With more, an early end is no
        /// wrong one.
        const MOST_LOOKS: usize = 32;
        let active = self.is_active(now)?;
        let mut until = now;
        for _ in 0..MOST_LOOKS {
            until = self.next_look(until, active)?;
            if self.is_active(until)? != active {
                break;
            }
        }
        Ok((active, until))
    }

    fn is_active(&self, now: Timestamp) -> Result<bool, InvalidSchedule> {
        let wall = self.wall(now);
        let (start, end) = (self.find(Which::Start, Past(&wall))?, self.find(Which::End, Past(&wall))?);
        Ok(start >= end && now < self.latest_end(&start)?)
    }

    /// When a window that began at this time on the wall has lasted as long as it says, and an hour more.
    fn latest_end(&self, start: &Zoned) -> Result<Timestamp, InvalidSchedule> {
        const AN_HOUR: SignedDuration = SignedDuration::from_hours(1);
        let length = self.find(Which::End, Future(start))?.duration_since(start);
        // Of a time that comes twice, the first.
        let began = self.zone.to_ambiguous_timestamp(start.datetime()).compatible();
        Ok(began.map_or(Timestamp::MAX, |began| later(began, length + AN_HOUR)))
    }

    /// The next moment at which the state may be another.
    fn next_look(&self, now: Timestamp, active: bool) -> Result<Timestamp, InvalidSchedule> {
        let wall = self.wall(now);
        // Until the clock is set, as much time passes as it shows.
        let next = self.find(if active { Which::End } else { Which::Start }, Future(&wall))?;
        let next = later(now, next.duration_since(&wall));
        let change = self.zone.following(now).next().map(|change| change.timestamp());
        let latest = if active { Some(self.latest_end(&self.find(Which::Start, Past(&wall))?)?) } else { None };
        Ok(change.into_iter().chain(latest.filter(|latest| *latest > now)).fold(next, Timestamp::min))
    }

    /// What the clock on the wall shows, as a time of a zone whose clock is never set.
    fn wall(&self, now: Timestamp) -> Zoned {
        let shown: DateTime = self.zone.to_datetime(now);
        // A time within a day of the end of the calendar is that end.
        shown.to_zoned(TimeZone::UTC).unwrap_or_else(|_| now.to_zoned(TimeZone::UTC))
    }

    fn find(&self, which: Which, from: Look<'_>) -> Result<Zoned, InvalidSchedule> {
        let (cron, field) = match which {
            Which::Start => (&self.start, "start"),
            Which::End => (&self.end, "end"),
        };
        let (found, wall) = match from {
            Past(wall) => (cron.find_previous_occurrence(wall, true), wall),
            Future(wall) => (cron.find_next_occurrence(wall, false), wall),
        };
        found.map_err(|error| InvalidSchedule::Search {
            name: self.name.as_ref().to_owned(),
            field,
            text: cron.as_str().to_owned(),
            now: wall.timestamp(),
            why: error.to_string(),
        })
    }
}

/// One of the two expressions of a schedule.
#[derive(Clone, Copy)]
enum Which {
    Start,
    End,
}

/// Which of its times is looked for, seen from one on the wall.
#[derive(Clone, Copy)]
enum Look<'a> {
    /// The last one, that time included.
    Past(&'a Zoned),
    /// The next one, that time excluded.
    Future(&'a Zoned),
}

use Look::{Future, Past};

fn cron(name: &str, field: &'static str, text: &str) -> Result<Cron, InvalidSchedule> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).sloppy_ranges(true).build();
    let cron = parser.parse(text).map_err(|error| InvalidSchedule::Cron {
        name: name.to_owned(),
        field,
        text: text.to_owned(),
        why: error.to_string(),
    })?;
    // `0/30` is taken as Kubernetes' CronJobs take it: from 0 on, every 30. Within eight years there is a 29 February,
    // on any day of the week within forty.
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
    /// Why the time of a schedule is not known, if one's is not: then the count stays.
    pub unknown: Option<InvalidSchedule>,
}

impl Bounds {
    /// Bounds that no schedule moves.
    #[must_use]
    pub fn fixed(min: i32, max: i32) -> Self {
        Self { min: min.min(max), max, min_by: None, max_by: None, until: None, unknown: None }
    }

    /// The bounds at a time: those of the workload, as its schedules move them. They need not be computed again before
    /// `until`.
    #[must_use]
    pub fn at(min: i32, max: i32, schedules: &[Schedule], now: Timestamp) -> Self {
        let mut bounds = Self { min, max, min_by: None, max_by: None, until: None, unknown: None };
        for schedule in schedules {
            match schedule.state(now) {
                Ok((active, until)) => {
                    bounds.until = bounds.until.into_iter().chain([until]).min();
                    if !active {
                        continue;
                    }
                }
                Err(error) => {
                    bounds.unknown = Some(error);
                    continue;
                }
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
