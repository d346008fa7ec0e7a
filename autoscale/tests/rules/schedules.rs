//! Schedules: when they are active, what they do to the bounds, and what happens where clocks change.

use std::collections::BTreeSet;

use catamaran_autoscale::{
    Bounds, Schedule,
    decision::{Bound, Hold, Idle, Step},
    schedule::InvalidSchedule,
};
use jiff::{
    SignedDuration, Timestamp, ToSpan,
    tz::{TimeZone, TimeZoneDatabase},
};
use proptest::prelude::*;

use crate::kit::{Workload, condition, cpu, lost, policy, queue};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn schedule(zone: &str, start: &str, end: &str) -> Schedule {
    Schedule::new("office", zone, start, end, Some(6), None).expect("a schedule")
}

/// Whether a schedule is active at a time, and until when that is certain.
fn state(schedule: &Schedule, at: &str) -> (bool, String) {
    let bounds = Bounds::at(2, 20, std::slice::from_ref(schedule), time(at));
    (bounds.min == 6, bounds.until.map_or_else(|| "for ever".to_owned(), |until| until.to_string()))
}

#[test]
fn active_from_the_start_to_the_end() {
    let office = schedule("Europe/Paris", "0 8 * * MON-FRI", "0 19 * * MON-FRI");
    for (at, active, until) in [
        // A Monday in winter: one hour ahead of UTC.
        ("2026-03-02T06:59:59.999Z", false, "2026-03-02T07:00:00Z"),
        ("2026-03-02T07:00:00Z", true, "2026-03-02T18:00:00Z"),
        ("2026-03-02T17:59:59.999Z", true, "2026-03-02T18:00:00Z"),
        ("2026-03-02T18:00:00Z", false, "2026-03-03T07:00:00Z"),
        // Friday evening to Monday morning.
        ("2026-03-06T18:00:00Z", false, "2026-03-09T07:00:00Z"),
        ("2026-03-07T12:00:00Z", false, "2026-03-09T07:00:00Z"),
        // In summer two hours.
        ("2026-07-06T06:00:00Z", true, "2026-07-06T17:00:00Z"),
    ] {
        assert_eq!(state(&office, at), (active, until.to_owned()), "{at}");
    }
}

#[test]
fn the_end_may_have_other_days_than_the_start() {
    // Started on Mondays, ended by whichever end comes next; ends without a start before them do nothing.
    let week = schedule("UTC", "0 8 * * MON", "0 20 * * WED,SAT");
    for (at, active) in [
        ("2026-03-02T07:00:00Z", false),
        ("2026-03-03T03:00:00Z", true),
        ("2026-03-04T19:59:00Z", true),
        ("2026-03-04T20:00:00Z", false),
        ("2026-03-07T21:00:00Z", false),
    ] {
        assert_eq!(state(&week, at).0, active, "{at}");
    }
}

#[test]
fn a_start_before_the_end_of_the_last_period_goes_on() {
    let often = schedule("UTC", "0 */2 * * *", "30 21 * * *");
    for (at, active) in
        [("2026-03-02T21:29:00Z", true), ("2026-03-02T21:30:00Z", false), ("2026-03-02T22:00:00Z", true)]
    {
        assert_eq!(state(&often, at).0, active, "{at}");
    }
    // Both at the same time: the start counts.
    let hourly = schedule("UTC", "0 * * * *", "0 8 * * *");
    for at in ["2026-03-02T07:59:00Z", "2026-03-02T08:00:00Z", "2026-03-02T08:01:00Z"] {
        assert!(state(&hourly, at).0, "{at}");
    }
}

/// What is so where a clock changes: what it is about, the start and the end of the schedule, a time, whether it is
/// active then, and until when that is certain.
type AtChange = (&'static str, &'static str, &'static str, &'static str, bool, &'static str);

fn assert_at_change(zone: &str, rows: &[AtChange]) {
    for (what, start, end, at, active, until) in rows {
        assert_eq!(state(&schedule(zone, start, end), at), (*active, (*until).to_owned()), "{zone}, {what} at {at}");
    }
}

#[test]
fn where_a_clock_is_set_forward() {
    // 29 March 2026, Paris: 02:00 becomes 03:00 at 01:00 UTC.
    assert_at_change(
        "Europe/Paris",
        &[
            ("skipped start", "30 2 * * *", "0 6 * * *", "2026-03-29T00:59:59Z", false, "2026-03-29T01:00:00Z"),
            ("skipped start", "30 2 * * *", "0 6 * * *", "2026-03-29T01:00:00Z", true, "2026-03-29T04:00:00Z"),
            ("skipped end", "0 1 * * *", "30 2 * * *", "2026-03-29T00:59:59Z", true, "2026-03-29T01:00:00Z"),
            ("skipped end", "0 1 * * *", "30 2 * * *", "2026-03-29T01:00:00Z", false, "2026-03-29T23:00:00Z"),
            ("both skipped", "10 2 * * *", "50 2 * * *", "2026-03-29T01:30:00Z", false, "2026-03-30T00:10:00Z"),
            ("the skipped hour", "0 2 * * *", "0 3 * * *", "2026-03-29T00:59:59Z", false, "2026-03-30T00:00:00Z"),
            ("the skipped hour", "0 2 * * *", "0 3 * * *", "2026-03-29T01:00:00Z", false, "2026-03-30T00:00:00Z"),
            ("weekly, skipped", "0 2 * * SUN", "0 3 * * SUN", "2026-03-29T01:00:00Z", false, "2026-04-05T00:00:00Z"),
            ("that hour and more", "0 2 * * *", "30 3 * * *", "2026-03-29T01:00:00Z", true, "2026-03-29T01:30:00Z"),
            ("the day after", "30 2 * * *", "0 6 * * *", "2026-03-30T00:30:00Z", true, "2026-03-30T04:00:00Z"),
        ],
    );
    // 8 March 2026, New York: 02:00 becomes 03:00 at 07:00 UTC.
    assert_at_change(
        "America/New_York",
        &[
            ("skipped start", "30 2 * * *", "0 6 * * *", "2026-03-08T06:59:59Z", false, "2026-03-08T07:00:00Z"),
            ("skipped start", "30 2 * * *", "0 6 * * *", "2026-03-08T07:00:00Z", true, "2026-03-08T10:00:00Z"),
        ],
    );
    // Half an hour, and an offset of half hours. 4 October 2026, Lord Howe: 02:00 becomes 02:30 at 15:30 UTC the day
    // before (10:30 to 11:00).
    assert_at_change(
        "Australia/Lord_Howe",
        &[
            ("skipped start", "15 2 * * *", "0 6 * * *", "2026-10-03T15:29:59Z", false, "2026-10-03T15:30:00Z"),
            ("skipped start", "15 2 * * *", "0 6 * * *", "2026-10-03T15:30:00Z", true, "2026-10-03T19:00:00Z"),
        ],
    );
}

#[test]
fn where_a_clock_is_set_back() {
    // 25 October 2026, Paris: 03:00 becomes 02:00 at 01:00 UTC.
    assert_at_change(
        "Europe/Paris",
        &[
            ("first of two", "30 2 * * *", "0 6 * * *", "2026-10-25T00:29:59Z", false, "2026-10-25T00:30:00Z"),
            ("first of two", "30 2 * * *", "0 6 * * *", "2026-10-25T00:30:00Z", true, "2026-10-25T01:00:00Z"),
            ("set back before it", "30 2 * * *", "0 6 * * *", "2026-10-25T01:00:00Z", false, "2026-10-25T01:30:00Z"),
            ("second of two", "30 2 * * *", "0 6 * * *", "2026-10-25T01:30:00Z", true, "2026-10-25T05:00:00Z"),
            ("ended in the first", "0 1 * * *", "30 2 * * *", "2026-10-25T00:30:00Z", false, "2026-10-25T01:00:00Z"),
            ("set back into it", "0 1 * * *", "30 2 * * *", "2026-10-25T01:15:00Z", true, "2026-10-25T01:30:00Z"),
            ("ended in the second", "0 1 * * *", "30 2 * * *", "2026-10-25T01:30:00Z", false, "2026-10-26T00:00:00Z"),
            ("over both", "0 2 * * *", "0 3 * * *", "2026-10-25T01:59:59Z", true, "2026-10-25T02:00:00Z"),
            // Every hour is every hour, in both of those that come twice.
            ("an hour like any other", "0 * * * *", "10 * * * *", "2026-10-25T01:05:00Z", true, "2026-10-25T01:10:00Z"),
        ],
    );
    // 1 November 2026, New York: 02:00 becomes 01:00 at 06:00 UTC.
    assert_at_change(
        "America/New_York",
        &[
            ("first of two", "30 1 * * *", "0 6 * * *", "2026-11-01T05:29:59Z", false, "2026-11-01T05:30:00Z"),
            ("first of two", "30 1 * * *", "0 6 * * *", "2026-11-01T05:30:00Z", true, "2026-11-01T06:00:00Z"),
        ],
    );
    // 5 April 2026, Lord Howe: 02:00 becomes 01:30 at 15:00 UTC the day before.
    assert_at_change(
        "Australia/Lord_Howe",
        &[
            ("first of two", "45 1 * * *", "0 6 * * *", "2026-04-04T14:44:59Z", false, "2026-04-04T14:45:00Z"),
            ("first of two", "45 1 * * *", "0 6 * * *", "2026-04-04T14:45:00Z", true, "2026-04-04T15:00:00Z"),
        ],
    );
    // Casey's clock was set back by three hours, to 21:00, at 13:00 UTC on 13 March 2021: 22:00 came at 11:00 and at
    // 14:00 UTC.
    assert_at_change(
        "Antarctica/Casey",
        &[
            ("set back", "0 22 * * *", "0 1 * * *", "2021-03-13T12:00:00Z", true, "2021-03-13T13:00:00Z"),
            ("an hour longer at most", "0 22 * * *", "0 1 * * *", "2021-03-13T14:00:00Z", true, "2021-03-13T15:00:00Z"),
        ],
    );
}

/// Samoa skipped Friday, 30 December 2011, and Kwajalein Saturday, 21 August 1993: from UTC-10 to UTC+14, UTC-12 to
/// UTC+12.
#[test]
fn where_a_day_is_skipped() {
    assert_at_change(
        "Pacific/Apia",
        &[
            ("a skipped day", "0 8 * * FRI", "0 18 * * FRI", "2011-12-30T10:00:00Z", false, "2012-01-05T18:00:00Z"),
            ("begun on it", "0 8 * * FRI", "0 18 * * SAT", "2011-12-30T10:00:00Z", true, "2011-12-31T04:00:00Z"),
            ("before it", "0 8 * * FRI", "0 18 * * SAT", "2011-12-30T09:59:59Z", false, "2011-12-30T10:00:00Z"),
        ],
    );
    assert_at_change(
        "Pacific/Kwajalein",
        &[("a skipped day", "0 0 21 8 *", "0 0 22 8 *", "1993-08-21T12:00:00Z", false, "1994-08-20T12:00:00Z")],
    );
}

#[test]
fn cron_is_that_of_vixie() {
    for (start, at, active) in [
        ("0 8 * * mon-fri", "2026-03-02T08:30:00Z", true),
        ("0 8 * * 1-5", "2026-03-07T08:30:00Z", false),
        ("0 8 * * 0", "2026-03-01T08:30:00Z", true),
        ("0 8 * * 7", "2026-03-01T08:30:00Z", true),
        ("0 8,20 * * *", "2026-03-02T20:30:00Z", true),
        ("*/15 * * * *", "2026-03-02T08:46:00Z", true),
        ("0 8-10 * JAN,MAR *", "2026-03-02T10:30:00Z", true),
        ("0 8-10 * JAN,FEB *", "2026-03-02T10:30:00Z", false),
        // Either of the two day fields.
        ("0 8 2 * FRI", "2026-03-02T08:30:00Z", true),
        ("0 8 2 * FRI", "2026-03-06T08:30:00Z", true),
        ("0 8 2 * FRI", "2026-03-03T08:30:00Z", false),
        ("0 8 29 2 *", "2028-02-29T08:30:00Z", true),
        // From a number on, in steps, as CronJobs of Kubernetes take it.
        ("0/30 * * * *", "2026-03-02T08:31:00Z", true),
        ("0 2/3 * * *", "2026-03-02T08:31:00Z", true),
        ("0 2/3 * * *", "2026-03-02T09:31:00Z", false),
    ] {
        // Ended 45 minutes after every hour's start.
        let schedule = schedule("UTC", start, "59 * * * *");
        assert_eq!(state(&schedule, at).0, active, "{start} at {at}");
    }
}

#[test]
fn what_cannot_be_read_is_told_by_field() {
    let new = |zone, start, end, min, max| {
        Schedule::new("office", zone, start, end, min, max).expect_err("refused").to_string()
    };
    let day = "0 8 * * *";
    for (error, wanted) in [
        (new("Europe/Atlantis", day, day, Some(1), None), "schedule office: timeZone: \"Europe/Atlantis\" is no name"),
        (new("", day, day, Some(1), None), "schedule office: timeZone: \"\" is no name"),
        (
            new("UTC", "0 8 * *", day, Some(1), None),
            "schedule office: start: \"0 8 * *\" is no cron expression of five fields",
        ),
        (
            new("UTC", "0 0 8 * * *", day, Some(1), None),
            "schedule office: start: \"0 0 8 * * *\" is no cron expression",
        ),
        (new("UTC", day, "61 8 * * *", Some(1), None), "schedule office: end: \"61 8 * * *\" is no cron expression"),
        (new("UTC", day, "0 8 * * someday", Some(1), None), "schedule office: end: \"0 8 * * someday\" is no cron"),
        (new("UTC", day, "", Some(1), None), "schedule office: end: \"\" is no cron expression"),
        (new("UTC", day, "0 0 30 2 *", Some(1), None), "schedule office: end: \"0 0 30 2 *\" never comes"),
        (new("UTC", day, day, None, None), "schedule office: neither minReplicas nor maxReplicas is given"),
        (new("UTC", day, day, Some(5), Some(4)), "schedule office: minReplicas 5 is above maxReplicas 4"),
        (
            new("UTC", day, "00 8 * * *", Some(5), None),
            "schedule office: start and end are the same time (\"0 8 * * *\")",
        ),
        (new("UTC", "0 8 * * 1", "0 8 * * MON", Some(5), None), "schedule office: start and end are the same time"),
    ] {
        assert!(error.starts_with(wanted), "{error}");
    }
    assert!(matches!(
        Schedule::new("x", "UTC", day, "0 0 31 4 *", Some(1), None),
        Err(InvalidSchedule::Never { field: "end", .. })
    ));
}

#[test]
fn a_time_that_cannot_be_found_is_told_and_holds_the_count() {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 4);
    workload.policy.schedules = vec![schedule("UTC", "0 8 * * *", "0 18 * * *")];
    // Beyond the last year that cron expressions are looked up in.
    let now = time("5000-12-31T23:00:00Z");
    let decision = workload.decide(workload.all_use(900, now), now);
    assert_eq!((decision.to, &decision.steps[..]), (4, &[Step::Held(Hold::Schedule)][..]));
    assert_eq!(condition(&decision, "ScalingActive"), Some((false, "FailedGetSchedule")));
    assert!(decision.to_string().contains("schedule office: no time could be found that"), "{decision}");
}

/// Every zone of the database that is built in, every change of its clock from 2020 to 2030, and windows of a quarter
/// of an hour to 23 hours that begin before, in and after what the change skips or repeats.
#[test]
fn no_window_lasts_longer_than_it_says_and_an_hour() {
    const MINUTE: i64 = 60;
    const DAY: i64 = 1440;
    let (from, to) = (time("2020-01-01T00:00:00Z"), time("2031-01-01T00:00:00Z"));
    let database = TimeZoneDatabase::bundled();
    let mut changes = 0;
    let mut seen = BTreeSet::new();
    for zone_name in database.available() {
        let zone = database.get(zone_name.as_str()).expect("it is there");
        for change in zone.following(from).take_while(|change| change.timestamp() < to) {
            let at = change.timestamp();
            let shift = zone.to_offset(at).seconds() - zone.to_offset(at - 1.second()).seconds();
            let shows = zone.to_datetime(at);
            // Many zones change alike.
            if shift == 0 || !seen.insert((at.as_second().rem_euclid(86_400), shows.hour(), shows.minute(), shift)) {
                continue;
            }
            changes += 1;
            let shown = i64::from(shows.hour()) * 60 + i64::from(shows.minute());
            let shift = i64::from(shift) / MINUTE;
            for start in [shown - 30, shown, shown + 15, shown - shift, shown - shift - 45].map(|at| at.rem_euclid(DAY))
            {
                for length in [15, 60, 150, 12 * 60, 23 * 60] {
                    let end = (start + length) % DAY;
                    let cron = |at: i64| format!("{} {} * * *", at % 60, at / 60);
                    let window = schedule(zone_name.as_str(), &cron(start), &cron(end));
                    // Of a window that is over in what is skipped alone, the next one begins as it ends.
                    let longest = length + 60 + if DAY - length <= shift { length } else { 0 };
                    if let Some(wrong) = wrong(&window, &zone, at, start, length, longest) {
                        panic!("{} from {} to {}: {wrong}", zone_name.as_str(), cron(start), cron(end));
                    }
                }
            }
        }
    }
    assert!(changes > 60, "{changes} different changes of the clock");
}

/// What is wrong with a daily window, in minutes of the day, from a day before a change of the clock until a day after
/// it.
fn wrong(
    window: &Schedule,
    zone: &TimeZone,
    change: Timestamp,
    start: i64,
    length: i64,
    longest: i64,
) -> Option<String> {
    let longest = SignedDuration::from_mins(longest);
    let set_back = zone.to_datetime(change - 1.second()).duration_since(zone.to_datetime(change));
    let mut now = change - SignedDuration::from_hours(25);
    while now < change + SignedDuration::from_hours(25) {
        let bounds = Bounds::at(2, 20, std::slice::from_ref(window), now);
        let (active, until) = (bounds.min == 6, bounds.until?);
        if active && until.duration_since(now) > longest {
            return Some(format!("active from {now} to {until}"));
        }
        for probe in [now, until - 1.second()] {
            let wall = zone.to_datetime(probe);
            let shown = i64::from(wall.hour()) * 60 + i64::from(wall.minute());
            let inside = (shown - start).rem_euclid(1440) < length;
            // A clock that is set back by more than an hour may show times of a window that has lasted long enough.
            let lasted = probe >= change && set_back > SignedDuration::from_mins(60);
            if active != inside && !(inside && lasted) {
                return Some(format!("active at {probe} ({wall}): {active}"));
            }
        }
        now = until;
    }
    None
}

/// A schedule that is active all day, or never on a day of these tests.
fn bounds_of(name: &str, active: bool, min: Option<i32>, max: Option<i32>) -> Schedule {
    let (start, end) = if active { ("0 0 * * *", "59 23 * * *") } else { ("0 0 1 1 *", "0 1 1 1 *") };
    Schedule::new(name, "UTC", start, end, min, max).expect("a schedule")
}

#[test]
fn bounds_are_moved() {
    for (what, schedules, bounds, by) in [
        ("none", vec![], (2, 20), (None, None)),
        ("inactive", vec![bounds_of("a", false, Some(6), Some(7))], (2, 20), (None, None)),
        ("the minimum", vec![bounds_of("a", true, Some(6), None)], (6, 20), (Some("a"), None)),
        ("the minimum, downward", vec![bounds_of("a", true, Some(0), None)], (0, 20), (Some("a"), None)),
        ("the maximum", vec![bounds_of("a", true, None, Some(5))], (2, 5), (None, Some("a"))),
        ("the maximum, upward", vec![bounds_of("a", true, None, Some(50))], (2, 50), (None, Some("a"))),
        ("both", vec![bounds_of("a", true, Some(3), Some(4))], (3, 4), (Some("a"), Some("a"))),
        (
            "the highest minimum, the lowest maximum",
            vec![
                bounds_of("a", true, Some(6), Some(30)),
                bounds_of("b", true, Some(8), Some(40)),
                bounds_of("c", true, Some(0), Some(12)),
            ],
            (8, 12),
            (Some("b"), Some("c")),
        ),
        ("the maximum wins", vec![bounds_of("a", true, Some(30), None)], (20, 20), (None, None)),
        (
            "also between schedules",
            vec![bounds_of("day", true, Some(10), None), bounds_of("closed", true, None, Some(0))],
            (0, 0),
            (Some("closed"), Some("closed")),
        ),
    ] {
        let moved = Bounds::at(2, 20, &schedules, time("2026-03-02T12:00:00Z"));
        assert_eq!((moved.min, moved.max), bounds, "{what}");
        assert_eq!((moved.min_by.as_deref(), moved.max_by.as_deref()), by, "{what}");
        assert_eq!(moved.until.is_some(), !schedules.is_empty());
    }
}

#[test]
fn moved_bounds_apply_at_once_and_are_named() {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 2);
    workload.policy.schedules = vec![bounds_of("office", true, Some(9), None)];
    let now = time("2026-03-02T12:00:00Z");
    let decision = workload.decide(vec![lost()], now);
    assert_eq!(decision.to, 9);
    assert_eq!(decision.steps, [Step::OutOfBounds { bound: Bound::Min, to: 9 }]);
    assert!(decision.to_string().contains("2 is below the minimum of schedule office: 9 at once"), "{decision}");
    // When it is over, the count goes down as the metrics say, through the window.
    let mut workload = Workload::new(policy(vec![cpu(50)]), 9);
    workload.policy.schedules = vec![bounds_of("office", false, Some(9), None)];
    assert_eq!(workload.decide(workload.all_use(100, now), now).to, 2);
}

#[test]
fn demand_above_the_minimum_still_counts() {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 6);
    workload.policy.schedules = vec![bounds_of("office", true, Some(6), None)];
    let now = time("2026-03-02T12:00:00Z");
    assert_eq!(workload.decide(workload.all_use(700, now), now).to, 9);
    assert_eq!(workload.decide(workload.all_use(100, now), now).to, 6);
}

#[test]
fn closed_and_opened_by_the_maximum() {
    let closed = |active| vec![bounds_of("closed", active, None, Some(0))];
    let now = time("2026-03-02T12:00:00Z");
    let mut workload = Workload::new(policy(vec![cpu(50)]), 4);
    workload.policy.schedules = closed(true);
    let decision = workload.pass(workload.all_use(900, now), now);
    assert_eq!(decision.to, 0);
    assert_eq!(condition(&decision, "ScaledToZero"), Some((true, "ScaledToZero")));
    // While it is closed no metric is asked, and so none is lost.
    let decision = workload.pass(vec![lost()], now + 1.hour());
    assert_eq!((decision.to, &decision.steps[..]), (0, &[Step::Idle(Idle::Closed)][..]));
    assert_eq!(workload.history.lost_since(), None);
    assert_eq!(condition(&decision, "ScalingActive"), Some((false, "ScalingDisabled")));
    workload.policy.schedules = closed(false);
    assert_eq!(workload.pass(vec![lost()], now + 2.hours()).to, 1);
}

#[test]
fn asleep_and_woken_by_the_minimum() {
    let office = |active| vec![bounds_of("office", active, Some(3), None)];
    let now = time("2026-03-02T12:00:00Z");
    let mut workload = Workload::new(policy(vec![cpu(50)]), 5);
    workload.policy.min = 0;
    workload.policy.schedules = office(true);
    assert_eq!(workload.pass(workload.all_use(500, now), now).to, 5);
    // The schedule is over: nothing asks for replicas, but the window holds what was needed a moment ago.
    workload.policy.schedules = office(false);
    let decision = workload.pass(workload.all_use(500, now), now + 10.seconds());
    assert_eq!((decision.to, decision.recommendation), (5, Some(0)));
    assert_eq!(workload.pass(vec![lost()], now + 299.seconds()).to, 5);
    let decision = workload.pass(vec![lost()], now + 300.seconds());
    assert_eq!((decision.to, decision.metrics.len()), (0, 0));
    // Asleep no metric is missed, and no fallback wakes it.
    assert_eq!(workload.pass(vec![lost()], now + 1.hour()).to, 0);
    assert_eq!(workload.history.lost_since(), None);
    workload.policy.schedules = office(true);
    assert_eq!(workload.pass(vec![lost()], now + 2.hours()).to, 3);
}

#[test]
fn with_a_metric_of_demand_schedules_are_only_bounds() {
    let mut workload = Workload::new(policy(vec![queue(10, None)]), 0);
    workload.policy.min = 0;
    workload.policy.schedules = vec![bounds_of("office", false, Some(3), None)];
    let samples = catamaran_autoscale::samples::Samples::Series(vec![15_000]);
    assert_eq!(workload.decide(vec![Ok(samples)], time("2026-03-02T12:00:00Z")).to, 2);
}

fn cron_expression() -> impl Strategy<Value = String> {
    let minute = prop_oneof![(0..60u8).prop_map(|m| m.to_string()), Just("*/20".to_owned()), Just("*".to_owned())];
    let hour = prop_oneof![
        4 => (0..24u8).prop_map(|h| h.to_string()),
        1 => Just("*".to_owned()),
        1 => Just("*/6".to_owned()),
        2 => (0..4u8).prop_map(|h| h.to_string()),
    ];
    let day = prop_oneof![3 => Just("*"), 1 => Just("1-5"), 1 => Just("SUN"), 1 => Just("6,0")];
    (minute, hour, day).prop_map(|(minute, hour, day)| format!("{minute} {hour} * * {day}"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Walked through a change of the clock in steps of ten minutes: the state changes at a named moment and at no
    /// other, from inactive to active at a start and back at an end, and what holds at a moment holds whoever asks
    /// first.
    #[test]
    fn nothing_changes_but_when_it_says(
        start in cron_expression(),
        end in cron_expression(),
        change in prop::sample::select(vec![
            ("Europe/Paris", "2026-03-28T12:00:00Z"), ("Europe/Paris", "2026-10-24T12:00:00Z"),
            ("America/New_York", "2026-03-07T12:00:00Z"), ("America/New_York", "2026-10-31T12:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T03:00:00Z"), ("Australia/Lord_Howe", "2026-04-04T03:00:00Z"),
            ("Asia/Kolkata", "2026-06-01T00:00:00Z"),
        ]),
    ) {
        let (zone, from) = change;
        let Ok(often) = Schedule::new("office", zone, &start, &end, Some(6), None) else {
            return Err(TestCaseError::reject("the same time twice"));
        };
        let schedules = [often];
        let at = |now| Bounds::at(2, 20, &schedules, now);
        let mut now = time(from);
        let mut before = at(now);
        for _ in 0..(36 * 6) {
            let next = now + SignedDuration::from_mins(10);
            let until = before.until.expect("both fire again");
            prop_assert!(until > now, "{until} is not after {now}");
            let after = at(next);
            if next < until {
                prop_assert_eq!((after.min, after.max), (before.min, before.max), "changed before {}", until);
            } else {
                prop_assert_eq!(at(until - SignedDuration::from_nanos(1)).min, before.min);
                // At an end it may go on, when a start comes at the same moment.
                prop_assert!(at(until).min == 6 || before.min == 6);
            }
            (now, before) = (next, after);
        }
    }
}
