//! Differences of one pod's counters.

use std::time::Duration;

use super::Amounts;

/// More CPUs than Linux can be built for (`NR_CPUS` is 8192 at most): a faster counter is a wrong one.
const MOST_CPU_USEC_PER_SECOND: u64 = 8192 * 1_000_000;
/// More bytes in a second than block devices of one machine move: a faster counter is a wrong one.
const MOST_BYTES_PER_SECOND: u64 = 1 << 40;
/// Between readings that are further apart nobody knows how much memory was used. An agent's restart takes seconds, its
/// update minutes.
pub const LONGEST_BRIDGE: Duration = Duration::from_secs(900);
/// By how much clocks may be apart, when the age of a pod bounds what it can have used.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// What was read of a pod at one moment, most of it from the pod's own cgroup. What could not be read is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The life of the node's clock: another one after each boot.
    pub clock: u64,
    /// When, by that clock.
    pub taken: Duration,
    /// cpu.stat usage_usec.
    pub cpu_usage_usec: Option<u64>,
    /// The working set of the containers that run.
    pub memory_bytes: Option<u64>,
    /// io.stat rbytes of all devices.
    pub io_read_bytes: Option<u64>,
    /// io.stat wbytes of all devices.
    pub io_write_bytes: Option<u64>,
}

/// What is remembered of one pod between readings.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// The newest reading; each counter is the newest that was present.
    last: Option<Reading>,
    /// A counter that is seen for the first time has counted since the pod (or this boot) began, and all of it is to be
    /// counted.
    from_zero: bool,
}

/// What was used between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// How much.
    pub amounts: Amounts,
    /// In which time, up to the newer reading.
    pub within: Duration,
}

impl Meter {
    /// Of a pod that began after the ledger: what its counters say at first is its own.
    #[must_use]
    pub fn from_zero() -> Self {
        Self { last: None, from_zero: true }
    }

    /// Of a pod that was there before the ledger: its first reading is where counting begins.
    #[must_use]
    pub fn from_now() -> Self {
        Self { last: None, from_zero: false }
    }

    /// What was used since the reading before. `age` is the time since the pod began.
    ///
    /// A reading that is as old as one that was seen, or older, says nothing new. A counter that went down, or one of
    /// another boot, started from zero. A counter that cannot be right is where counting begins again.
    pub fn read(&mut self, reading: Reading, age: Duration) -> Used {
        let before = self.last.filter(|last| last.clock == reading.clock);
        if before.is_some_and(|before| reading.taken <= before.taken) {
            return Used::default();
        }
        // Another boot: all counters began after the ledger did.
        self.from_zero |= self.last.is_some() && before.is_none();
        let oldest = age.saturating_add(CLOCK_TOLERANCE);
        let within = before.map_or(oldest, |before| reading.taken.saturating_sub(before.taken).min(oldest));
        let counter = |pick: fn(&Reading) -> Option<u64>, most_per_second: u64| -> (u64, Option<u64>) {
            let before = before.as_ref().and_then(pick);
            // Absent is not zero: the next difference is to the newest value that was present.
            let Some(now) = pick(&reading) else { return (0, before) };
            let grown = match before {
                Some(before) => now.checked_sub(before).unwrap_or(now),
                None if self.from_zero => now,
                None => 0,
            };
            let most = u128::from(most_per_second).saturating_mul(oldest.as_micros()) / 1_000_000;
            (if u128::from(grown) <= most { grown } else { 0 }, Some(now))
        };
        let (cpu_usage_usec, cpu) = counter(|reading| reading.cpu_usage_usec, MOST_CPU_USEC_PER_SECOND);
        let (io_read_bytes, read) = counter(|reading| reading.io_read_bytes, MOST_BYTES_PER_SECOND);
        let (io_write_bytes, written) = counter(|reading| reading.io_write_bytes, MOST_BYTES_PER_SECOND);
        let (memory_usage_byte_usec, metered_usec) = before.map_or((0, 0), |before| memory(&before, &reading));
        self.last = Some(Reading { cpu_usage_usec: cpu, io_read_bytes: read, io_write_bytes: written, ..reading });
        let amounts = Amounts {
            cpu_usage_usec,
            memory_usage_byte_usec,
            io_read_bytes,
            io_write_bytes,
            metered_usec,
            ..Amounts::NONE
        };
        Used { amounts, within }
    }
}

/// Byte-microseconds between two readings of one boot, and the microseconds: the mean of both ends, for the time
/// between them.
fn memory(before: &Reading, now: &Reading) -> (u128, u64) {
    let elapsed = now.taken.saturating_sub(before.taken);
    let (Some(from), Some(to), true) = (before.memory_bytes, now.memory_bytes, elapsed <= LONGEST_BRIDGE) else {
        return (0, 0);
    };
    let both = u128::from(from).saturating_add(u128::from(to));
    (both.saturating_mul(elapsed.as_micros()) / 2, u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}
