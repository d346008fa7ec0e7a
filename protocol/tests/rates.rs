//! From cumulative counters to rates: tables, and properties over any readings.

use std::time::Duration;

use catamaran_protocol::stream::{
    Counters,
    proto::{Pressure, Throttling},
    rates::{Point, Pushed, Restart, Series, Share, Window},
};
use proptest::prelude::*;

const WINDOW: Window = Window { length: Duration::from_secs(3), longest_gap: Duration::from_secs(5) };
const HOUR: Duration = Duration::from_secs(3600);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A point whose clocks agree.
fn point(at: f64, cpu_usage_usec: u64) -> Point {
    let counters = Counters { cpu_usage_usec, memory_working_set_bytes: 1 << 20, throttling: None, pressure: None };
    Point { taken: HOUR + seconds(at), arrived: seconds(at), counters }
}

fn series(points: &[Point]) -> (Series, Pushed) {
    let (mut series, mut last) = (Series::default(), Pushed::Repeated);
    for point in points {
        last = series.push(1, *point, WINDOW);
    }
    (series, last)
}

fn millicores(points: &[Point]) -> Option<u64> {
    series(points).0.rates().map(|rates| rates.cpu_millicores)
}

#[test]
fn a_rate_needs_two_readings() {
    assert_eq!(millicores(&[]), None);
    assert_eq!(millicores(&[point(0.0, 5_000_000)]), None);
    assert_eq!(millicores(&[point(0.0, 5_000_000), point(1.0, 5_250_000)]), Some(250));
}

#[test]
fn a_rate_is_rounded_up_as_kubernetes_does() {
    assert_eq!(millicores(&[point(0.0, 0), point(1.0, 1)]), Some(1));
    assert_eq!(millicores(&[point(0.0, 0), point(1.0, 0)]), Some(0));
    assert_eq!(millicores(&[point(0.0, 0), point(2.0, 2_000)]), Some(1));
}

#[test]
fn a_rate_is_the_mean_of_the_window() {
    // One core for 4 s, then two: the window of 3 s holds one second of one core and two of two.
    let points: Vec<_> = (0..=4).map(|s| point(f64::from(s), u64::from(s as u32) * 1_000_000)).collect();
    let mut points = points;
    points.push(point(5.0, 6_000_000));
    points.push(point(6.0, 8_000_000));
    let rates = series(&points).0.rates().expect("enough readings");
    assert_eq!((rates.window, rates.cpu_millicores), (Duration::from_secs(3), 1667));
}

#[test]
fn a_lost_report_loses_nothing() {
    let all = [point(0.0, 0), point(1.0, 400_000), point(2.0, 1_000_000), point(3.0, 1_500_000)];
    let lossy = [all[0], all[3]];
    assert_eq!(millicores(&all), millicores(&lossy));
}

#[test]
fn readings_that_jitter_keep_the_window() {
    let times = [0.0, 1.02, 1.99, 3.01, 3.98, 5.0, 6.03];
    let points = times.map(|at| point(at, (at * 1e6) as u64));
    let rates = series(&points).0.rates().expect("enough readings");
    assert_eq!(rates.cpu_millicores, 1000);
    assert!(rates.window > seconds(2.9) && rates.window < seconds(3.1), "{:?}", rates.window);
}

#[test]
fn a_counter_that_went_down_starts_again() {
    let before = [point(0.0, 9_000_000), point(1.0, 10_000_000)];
    let (series_after, pushed) = series(&[before[0], before[1], point(2.0, 300_000)]);
    assert_eq!(pushed, Pushed::Restarted(Restart::CounterReset));
    assert_eq!(series_after.rates(), None);
    assert_eq!(millicores(&[before[0], before[1], point(2.0, 300_000), point(3.0, 800_000)]), Some(500));
}

#[test]
fn a_throttling_or_pressure_counter_that_went_down_starts_again() {
    let with = |at, cpu, nr_throttled, io_full_usec| {
        let mut point = point(at, cpu);
        point.counters.throttling = Some(Throttling { nr_periods: 100, nr_throttled, throttled_usec: 0 });
        point.counters.pressure = Some(Pressure { io_full_usec, ..Pressure::default() });
        point
    };
    assert_eq!(series(&[with(0.0, 0, 5, 5), with(1.0, 1, 4, 5)]).1, Pushed::Restarted(Restart::CounterReset));
    assert_eq!(series(&[with(0.0, 0, 5, 5), with(1.0, 1, 5, 4)]).1, Pushed::Restarted(Restart::CounterReset));
    assert_eq!(series(&[with(0.0, 0, 5, 5), with(1.0, 1, 5, 5)]).1, Pushed::Continued);
}

#[test]
fn a_clock_that_steps_gives_no_rate() {
    let first = point(0.0, 0);
    for (taken, restart) in [
        (HOUR + HOUR, Restart::ClockDisagrees),
        (seconds(1.0), Restart::ClockReset),
        (HOUR + seconds(4.0), Restart::ClockDisagrees),
    ] {
        let stepped = Point { taken, ..point(1.0, 500_000) };
        let (after, pushed) = series(&[first, stepped]);
        assert_eq!((pushed, after.rates()), (Pushed::Restarted(restart), None), "{taken:?}");
        // From there on it is right.
        let next = Point { taken: taken + seconds(1.0), ..point(2.0, 1_000_000) };
        assert_eq!(millicores(&[first, stepped, next]), Some(500));
    }
}

#[test]
fn another_clock_is_not_compared() {
    let (mut series, _) = series(&[point(0.0, 0), point(1.0, 500_000)]);
    assert_eq!(series.push(2, point(2.0, 900_000), WINDOW), Pushed::Restarted(Restart::ClockReset));
    assert_eq!(series.rates(), None);
}

#[test]
fn delays_on_the_way_do_not_change_a_rate() {
    // Read each second, but the second one arrives 1.5 s late, together with the third.
    let points = [point(0.0, 0), Point { arrived: seconds(2.5), ..point(1.0, 500_000) }, point(2.5, 1_250_000)];
    assert_eq!(millicores(&points), Some(500));
}

#[test]
fn a_long_gap_starts_again() {
    let (series, pushed) = series(&[point(0.0, 0), point(60.0, 30_000_000)]);
    assert_eq!((pushed, series.rates()), (Pushed::Restarted(Restart::Gap), None));
}

#[test]
fn more_cpus_than_there_are_is_no_rate() {
    let (series, pushed) = series(&[point(0.0, 0), point(1.0, u64::MAX)]);
    assert_eq!((pushed, series.rates()), (Pushed::Restarted(Restart::Implausible), None));
}

#[test]
fn the_same_reading_twice_is_one() {
    let (series, pushed) = series(&[point(0.0, 0), point(0.0, 0)]);
    assert_eq!((pushed, series.points()), (Pushed::Repeated, 1));
}

#[test]
fn throttling_is_a_share_of_the_periods() {
    let with = |at, nr_periods, nr_throttled| {
        let mut point = point(at, 0);
        point.counters.throttling = Some(Throttling { nr_periods, nr_throttled, throttled_usec: 0 });
        point
    };
    let share = |points: &[Point]| series(points).0.rates().expect("two readings").throttled;
    assert_eq!(share(&[with(0.0, 100, 10), with(1.0, 110, 14)]), Some(Share::new(4, 10)));
    // A container that did not run was not throttled.
    assert_eq!(share(&[with(0.0, 100, 10), with(1.0, 100, 10)]), Some(Share::default()));
    // A limit that was set or removed in between.
    assert_eq!(share(&[with(0.0, 100, 10), point(1.0, 0)]), None);
    assert_eq!(share(&[point(0.0, 0), with(1.0, 100, 10)]), None);
}

#[test]
fn pressure_is_a_share_of_the_time() {
    let with = |at, pressure| {
        let mut point = point(at, 0);
        point.counters.pressure = Some(pressure);
        point
    };
    let later = Pressure {
        cpu_some_usec: 500_000,
        cpu_full_usec: 250_000,
        memory_some_usec: 125_000,
        memory_full_usec: 100_000,
        io_some_usec: 2_100_000,
        io_full_usec: 1,
    };
    let (series, _) = series(&[with(0.0, Pressure::default()), with(2.0, later)]);
    let shares = series.rates().and_then(|rates| rates.pressure).expect("both have pressure");
    let all =
        [shares.cpu_some, shares.cpu_full, shares.memory_some, shares.memory_full, shares.io_some, shares.io_full];
    // Never more than all the time, though the two are not read at the same instant.
    assert_eq!(all.map(Share::millionths), [250_000, 125_000, 62_500, 50_000, 1_000_000, 0]);
}

#[test]
fn a_share_is_between_none_and_all() {
    assert_eq!(Share::new(0, 0), Share::default());
    assert_eq!(Share::new(5, 0), Share::default());
    assert_eq!(Share::new(1, 3).millionths(), 333_333);
    assert_eq!(Share::new(u64::MAX, 1), Share::ALL);
    assert_eq!(Share::new(u64::MAX, u64::MAX), Share::ALL);
}

prop_compose! {
    fn any_throttling()(nr_periods: u64, nr_throttled: u64, throttled_usec: u64) -> Throttling {
        Throttling { nr_periods, nr_throttled, throttled_usec }
    }
}

prop_compose! {
    fn any_pressure()(totals: [u64; 6]) -> Pressure {
        let [cpu_some_usec, cpu_full_usec, memory_some_usec, memory_full_usec, io_some_usec, io_full_usec] = totals;
        Pressure { cpu_some_usec, cpu_full_usec, memory_some_usec, memory_full_usec, io_some_usec, io_full_usec }
    }
}

prop_compose! {
    fn any_point()(
        taken: u64, arrived: u64, cpu_usage_usec: u64, memory_working_set_bytes: u64,
        throttling in prop::option::of(any_throttling()), pressure in prop::option::of(any_pressure()),
    ) -> Point {
        let counters = Counters { cpu_usage_usec, memory_working_set_bytes, throttling, pressure };
        Point { taken: Duration::from_micros(taken), arrived: Duration::from_micros(arrived), counters }
    }
}

/// What happens between two readings.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes, work is done; the report of it may be lost.
    Work { millis: u64, millicores: u64, lost: bool },
    /// The counters start again.
    Reset,
    /// The agent's clock steps, by more than delays can explain.
    Step { seconds: i64 },
}

fn any_event() -> impl Strategy<Value = Event> {
    let work = (400_u64..2_000, 0_u64..8_000, prop::bool::weighted(0.2));
    prop_oneof![
        8 => work.prop_map(|(millis, millicores, lost)| Event::Work { millis, millicores, lost }),
        1 => Just(Event::Reset),
        1 => prop_oneof![-7200_i64..-3, 3_i64..7200, -5_i64..-2, 3_i64..6].prop_map(|seconds| Event::Step { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_reading_panics_and_memory_is_bounded(
        points in prop::collection::vec((0_u64..3, any_point()), 0..60), length: u64, longest_gap: u64,
    ) {
        let window = Window { length: Duration::from_micros(length), longest_gap: Duration::from_micros(longest_gap) };
        let mut series = Series::default();
        for (clock, point) in points {
            series.push(clock, point, window);
            prop_assert!(series.points() <= 11, "{} points", series.points());
            if let Some(rates) = series.rates() {
                prop_assert!(rates.cpu_millicores <= 8_192_000 * 2);
                prop_assert!(rates.window > Duration::ZERO);
            }
        }
    }

    #[test]
    fn many_readings_a_second_are_bounded(count in 0_u64..2_000, spacing_usec in 1_u64..2_000_000) {
        let mut series = Series::default();
        for n in 0..count {
            let at = Duration::from_micros(n * spacing_usec);
            let counters = Counters { cpu_usage_usec: n * spacing_usec, ..Counters::default() };
            series.push(0, Point { taken: at, arrived: at, counters }, WINDOW);
            prop_assert!(series.points() <= 11);
        }
        if let Some(rates) = series.rates() {
            prop_assert_eq!(rates.cpu_millicores, 1000);
            prop_assert!(rates.window <= WINDOW.length + WINDOW.longest_gap);
        }
    }

    /// Whatever happens to counters, clocks and reports: a rate is never outside of what was really used.
    #[test]
    fn no_rate_is_wrong(events in prop::collection::vec(any_event(), 1..80)) {
        let (mut series, window) = (Series::default(), Window { longest_gap: HOUR, ..WINDOW });
        let (mut now, mut offset, mut cpu) = (Duration::ZERO, 100_000_i64, 0_u64);
        // What was really used, for how long.
        let (mut used, mut unseen): (Vec<(Duration, u64)>, bool) = (vec![], false);
        for event in events {
            match event {
                Event::Work { millis, millicores, lost } => {
                    now += Duration::from_millis(millis);
                    cpu += millis * millicores;
                    used.push((Duration::from_millis(millis), millicores));
                    unseen = lost;
                    if lost {
                        continue;
                    }
                }
                // Work that nobody saw before the counters started again cannot be told from none.
                Event::Reset if unseen => continue,
                Event::Reset => cpu = 0,
                Event::Step { seconds } => offset = (offset + seconds).max(0),
            }
            let taken = now + Duration::from_secs(offset.unsigned_abs());
            let counters = Counters { cpu_usage_usec: cpu, ..Counters::default() };
            series.push(0, Point { taken, arrived: now, counters }, window);
            if let Some(rates) = series.rates() {
                let (mut left, mut low, mut high) = (rates.window, u64::MAX, 0);
                for (duration, millicores) in used.iter().rev() {
                    (low, high) = (low.min(*millicores), high.max(*millicores));
                    left = left.saturating_sub(*duration);
                    if left.is_zero() {
                        break;
                    }
                }
                prop_assert!(
                    rates.cpu_millicores >= low && rates.cpu_millicores <= high,
                    "{} is not within {low}..={high}", rates.cpu_millicores
                );
            }
        }
    }
}
