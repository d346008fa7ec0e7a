//! Which hours.

use clap::Args;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// Flags.
#[derive(Args, Debug, Default)]
pub struct PeriodArguments {
    /// The beginning, rounded down to an hour: a time of RFC 3339, or a date for its midnight in UTC
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    from: Option<String>,
    /// The end, rounded up to an hour; now when absent
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// So long up to the end: hours, days or weeks, such as 24h, 7d or 4w. 24h when neither this nor --from is given
    #[arg(long, value_name = "TIME")]
    last: Option<String>,
}

/// Whole hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
}

/// Why it is no period.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPeriod {
    /// Not a time.
    #[error("--{0} {1:?} is no time: give one of RFC 3339 such as 2026-03-01T12:00:00Z, or a date such as 2026-03-01")]
    Time(&'static str, String),
    /// Not a length.
    #[error("--last {0:?} is no length of time: give hours, days or weeks, such as 24h, 7d or 4w")]
    Last(String),
    /// The end is not after the beginning.
    #[error("the period from {0} to {1} has no hour in it")]
    Empty(Timestamp, Timestamp),
}

/// An hour in seconds.
pub const HOUR: i64 = 3600;

impl Period {
    /// From the flags.
    ///
    /// # Errors
    /// When they are wrong.
    pub fn from_arguments(arguments: &PeriodArguments, now: Timestamp) -> Result<Self, NoPeriod> {
        let to = match &arguments.to {
            Some(text) => time("to", text)?,
            None => now,
        };
        let from = match (&arguments.from, &arguments.last) {
            (Some(text), _) => time("from", text)?,
            (None, last) => {
                let last = last.as_deref().unwrap_or("24h");
                let length = length(last).ok_or_else(|| NoPeriod::Last(last.to_owned()))?;
                to.checked_sub(length).map_err(|_| NoPeriod::Last(last.to_owned()))?
            }
        };
        let hours = |seconds: i64| Timestamp::from_second(seconds.saturating_mul(HOUR)).unwrap_or(Timestamp::MAX);
        let first = hours(from.as_second().div_euclid(HOUR));
        // The hour that the end falls into counts, unless it is the hour's first moment.
        let end = match hours(to.as_second().div_euclid(HOUR)) {
            start if start == to => to,
            _ => hours(to.as_second().div_euclid(HOUR).saturating_add(1)),
        };
        if first < end { Ok(Self { from: first, to: end }) } else { Err(NoPeriod::Empty(from, to)) }
    }
}

fn time(flag: &'static str, text: &str) -> Result<Timestamp, NoPeriod> {
    let date = |text: &str| Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    text.parse().ok().or_else(|| date(text)).ok_or_else(|| NoPeriod::Time(flag, text.to_owned()))
}

fn length(text: &str) -> Option<SignedDuration> {
    let hours = [("h", 1), ("d", 24), ("w", 24 * 7)].into_iter().find_map(|(unit, hours)| {
        let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(hours)
    })?;
    (1..=24 * 366 * 10).contains(&hours).then(|| SignedDuration::from_hours(hours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: Option<&str>, to: Option<&str>, last: Option<&str>) -> Result<(String, String), String> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let arguments = PeriodArguments { from: text(from), to: text(to), last: text(last) };
        let now = "2026-03-10T12:34:56Z".parse().expect("a time");
        let period = Period::from_arguments(&arguments, now).map_err(|error| error.to_string())?;
        Ok((period.from.to_string(), period.to.to_string()))
    }

    #[test]
    fn periods_are_whole_hours() {
        let hours = |from: &str, to: &str| Ok((from.to_owned(), to.to_owned()));
        let now = "2026-03-10T13:00:00Z";
        assert_eq!(of(None, None, None), hours("2026-03-09T12:00:00Z", now));
        assert_eq!(of(None, None, Some("2d")), hours("2026-03-08T12:00:00Z", now));
        assert_eq!(
            of(Some("2026-03-01"), Some("2026-03-02"), None),
            hours("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z")
        );
        let with_zone = of(Some("2026-03-01T01:30:00+01:00"), Some("2026-03-01T01:40:00+01:00"), None);
        assert_eq!(with_zone, hours("2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z"));
        assert_eq!(of(None, Some("2026-03-01"), Some("1w")), hours("2026-02-22T00:00:00Z", "2026-03-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_period_is_told() {
        for (from, to, last, words) in [
            (Some("yesterday"), None, None, "--from"),
            (None, Some("2026-13-01"), None, "--to"),
            (None, None, Some("24"), "--last"),
            (None, None, Some("-3h"), "--last"),
            (None, None, Some("99999999999999999999h"), "--last"),
            (Some("2026-03-02"), Some("2026-03-02"), None, "no hour"),
            (Some("2026-03-03"), Some("2026-03-02"), None, "no hour"),
        ] {
            let error = of(from, to, last).expect_err("no period");
            assert!(error.contains(words), "{error}");
        }
    }
}
