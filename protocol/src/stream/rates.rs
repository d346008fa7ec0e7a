//! From cumulative counters to rates.
//!
//! A rate is a difference of two readings over the time between them. That time is taken from the sender's steady
//! clock, which knows when the counters were read; the time of arrival only vouches for it. Where the two disagree, or
//! a counter went down, the readings are not compared: the newer one is the start of a new series. A missing rate is
//! harmless, a wrong one is not. (A counter that starts again and overtakes its old value between two readings cannot
//! be told from one that goes on, and gives too low a rate. Containers that restart have another id, so this takes a
//! cgroup that was made anew.)

use std::{collections::VecDeque, time::Duration};

use crate::stream::{Counters, proto};

/// More CPUs than Linux can be built for (`NR_CPUS` is 8192 at most): a faster counter is a wrong one.
const MOST_CPUS: u64 = 8192;
/// By how much the time between two readings and the time between their arrivals may differ: a network's and a busy
/// node's delays.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);
/// The points of a window are at least so many parts of it apart, which bounds their number.
const POINTS_PER_WINDOW: u32 = 8;

/// One reading of one container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When it was read, by the sender's steady clock.
    pub taken: Duration,
    /// When it arrived, by the receiver's steady clock.
    pub arrived: Duration,
    /// What was read.
    pub counters: Counters,
}

/// Over which time rates are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The time that a rate is an average of, as far as there are readings.
    pub length: Duration,
    /// Readings further apart than this are not compared: their mean would say little about now.
    pub longest_gap: Duration,
}

/// The last readings of one container, as many as a rate needs.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The life of the sender's clock.
    clock: u64,
    points: VecDeque<Point>,
}

/// What a reading did to a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is the first.
    Started,
    /// It continues the series.
    Continued,
    /// It starts the series again.
    Restarted(Restart),
    /// It is the same reading once more.
    Repeated,
}

/// Why a reading is not compared with the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// A counter went down.
    CounterReset,
    /// The CPU counter grew faster than any machine can make it.
    Implausible,
    /// The sender's clock went back, or it is another clock.
    ClockReset,
    /// The sender's clock and the times of arrival disagree.
    ClockDisagrees,
    /// Too long ago.
    Gap,
}

/// Rates of one container over one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The time that the rates are an average of.
    pub window: Duration,
    /// CPU use in thousandths of a CPU, rounded up, as Kubernetes does (`Quantity.MilliValue`).
    pub cpu_millicores: u64,
    /// The share of CPU periods in which the container was stopped at its limit. `None` without a limit.
    pub throttled: Option<Share>,
    /// `None` where the kernel has no PSI.
    pub pressure: Option<PressureShares>,
}

/// The shares of time in which tasks waited for a resource (PSI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureShares {
    /// Some task waited for a CPU.
    pub cpu_some: Share,
    /// All of them did.
    pub cpu_full: Share,
    /// Some task waited for memory.
    pub memory_some: Share,
    /// All of them did.
    pub memory_full: Share,
    /// Some task waited for IO.
    pub io_some: Share,
    /// All of them did.
    pub io_full: Share,
}

/// A part of a whole, from nothing to all of it, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const ALL: Self = Self(1_000_000);

    /// `part` of `whole`; at most all of it, and none of nothing.
    #[must_use]
    pub fn new(part: u64, whole: u64) -> Self {
        let millionths = u128::from(part).saturating_mul(1_000_000).checked_div(u128::from(whole)).unwrap_or(0);
        u32::try_from(millionths).map_or(Self::ALL, |millionths| Self(millionths).min(Self::ALL))
    }

    /// In millionths.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }
}

impl Series {
    /// Adds a reading. `clock` names the life of the sender's clock.
    pub fn push(&mut self, clock: u64, point: Point, window: Window) -> Pushed {
        let pushed = match self.points.back() {
            None => Pushed::Started,
            Some(last) if self.clock != clock || point.taken < last.taken => Pushed::Restarted(Restart::ClockReset),
            Some(last) if point.taken == last.taken && !went_down(&last.counters, &point.counters) => Pushed::Repeated,
            Some(last) => restart(last, &point, window.longest_gap).map_or(Pushed::Continued, Pushed::Restarted),
        };
        match pushed {
            Pushed::Started | Pushed::Restarted(_) => {
                self.points.clear();
                self.clock = clock;
                self.points.push_back(point);
            }
            Pushed::Continued => self.extend(point, window.length),
            Pushed::Repeated => {}
        }
        pushed
    }

    fn extend(&mut self, point: Point, length: Duration) {
        let step = length / POINTS_PER_WINDOW;
        // A newest point that is close to the one before it is replaced, so that frequent readings take no more memory.
        let before = self.points.len().checked_sub(2).and_then(|index| self.points.get(index));
        if before.zip(self.points.back()).is_some_and(|(before, last)| last.taken.saturating_sub(before.taken) < step) {
            self.points.pop_back();
        }
        // The oldest one is the youngest that is about a window old, so readings that jitter give the same window. What
        // is older goes first, which keeps the queue from growing for a moment, and with it its memory for ever.
        let old = length.saturating_sub(step);
        while self.points.get(1).is_some_and(|second| point.taken.saturating_sub(second.taken) >= old) {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// The rates now; `None` until there are two readings to compare.
    #[must_use]
    pub fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.points.front()?, self.points.back()?);
        let window = last.taken.checked_sub(first.taken).filter(|window| window.as_micros() > 0)?;
        let usec = micros(window);
        let (from, to) = (&first.counters, &last.counters);
        let cpu = u128::from(to.cpu_usage_usec.saturating_sub(from.cpu_usage_usec)).saturating_mul(1000);
        Some(Rates {
            window,
            cpu_millicores: u64::try_from(cpu.div_ceil(u128::from(usec))).unwrap_or(u64::MAX),
            throttled: from.throttling.zip(to.throttling).map(|(from, to)| throttled(&from, &to)),
            pressure: from.pressure.zip(to.pressure).map(|(from, to)| pressure(&from, &to, usec)),
        })
    }

    /// The newest reading.
    #[must_use]
    pub fn newest(&self) -> Option<&Point> {
        self.points.back()
    }

    /// How many readings are kept.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points.len()
    }
}

/// Why two readings in a row must not be compared.
fn restart(last: &Point, point: &Point, longest_gap: Duration) -> Option<Restart> {
    let elapsed = point.taken.saturating_sub(last.taken);
    let arrivals = point.arrived.saturating_sub(last.arrived);
    if went_down(&last.counters, &point.counters) {
        Some(Restart::CounterReset)
    } else if elapsed.abs_diff(arrivals) > CLOCK_TOLERANCE {
        Some(Restart::ClockDisagrees)
    } else if elapsed > longest_gap {
        Some(Restart::Gap)
    } else if point.counters.cpu_usage_usec.saturating_sub(last.counters.cpu_usage_usec)
        > micros(elapsed).saturating_mul(MOST_CPUS)
    {
        Some(Restart::Implausible)
    } else {
        None
    }
}

/// Whether any counter went down, or a group of them went away or came.
fn went_down(from: &Counters, to: &Counters) -> bool {
    let throttling = match (&from.throttling, &to.throttling) {
        (Some(from), Some(to)) => {
            to.nr_periods < from.nr_periods
                || to.nr_throttled < from.nr_throttled
                || to.throttled_usec < from.throttled_usec
        }
        // A limit that was set or taken away in place: the CPU counter goes on.
        (Some(_), None) | (None, Some(_)) | (None, None) => false,
    };
    let pressure = match (&from.pressure, &to.pressure) {
        (Some(from), Some(to)) => totals(from).into_iter().zip(totals(to)).any(|(from, to)| to < from),
        (Some(_), None) | (None, Some(_)) | (None, None) => false,
    };
    to.cpu_usage_usec < from.cpu_usage_usec || throttling || pressure
}

fn totals(pressure: &proto::Pressure) -> [u64; 6] {
    let proto::Pressure {
        cpu_some_usec,
        cpu_full_usec,
        memory_some_usec,
        memory_full_usec,
        io_some_usec,
        io_full_usec,
    } = *pressure;
    [cpu_some_usec, cpu_full_usec, memory_some_usec, memory_full_usec, io_some_usec, io_full_usec]
}

/// None of no periods: the container did not want to run.
fn throttled(from: &proto::Throttling, to: &proto::Throttling) -> Share {
    Share::new(to.nr_throttled.saturating_sub(from.nr_throttled), to.nr_periods.saturating_sub(from.nr_periods))
}

fn pressure(from: &proto::Pressure, to: &proto::Pressure, usec: u64) -> PressureShares {
    let share = |from: u64, to: u64| Share::new(to.saturating_sub(from), usec);
    PressureShares {
        cpu_some: share(from.cpu_some_usec, to.cpu_some_usec),
        cpu_full: share(from.cpu_full_usec, to.cpu_full_usec),
        memory_some: share(from.memory_some_usec, to.memory_some_usec),
        memory_full: share(from.memory_full_usec, to.memory_full_usec),
        io_some: share(from.io_some_usec, to.io_some_usec),
        io_full: share(from.io_full_usec, to.io_full_usec),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
