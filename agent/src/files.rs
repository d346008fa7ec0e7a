//! The texts of the kernel's files, read into numbers.
//!
//! Source: Documentation/admin-guide/cgroup-v2.rst and accounting/psi.rst of the kernel. Lines and keys that are not known are
//! passed over, as newer kernels add some; a number that is none counts as absent.

/// cpu.stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// `usage_usec`: CPU time so far, in microseconds.
    pub usage_usec: u64,
    /// Present where the cpu controller is on.
    pub bandwidth: Option<Bandwidth>,
}

/// The part of cpu.stat about the CPU limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// `nr_periods`.
    pub nr_periods: u64,
    /// `nr_throttled`.
    pub nr_throttled: u64,
    /// `throttled_usec`.
    pub throttled_usec: u64,
}

/// cpu.pressure, memory.pressure or io.pressure: the totals, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// `some`: at least one task waited.
    pub some_usec: u64,
    /// `full`: all tasks did; 0 where the kernel has no such line.
    pub full_usec: u64,
}

/// io.stat, summed over devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoStat {
    /// `rbytes`.
    pub read_bytes: u64,
    /// `wbytes`.
    pub write_bytes: u64,
    /// `rios`.
    pub read_operations: u64,
    /// `wios`.
    pub write_operations: u64,
}

/// cpu.max.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// CPU time in each period, in microseconds; `None` without a limit.
    pub quota_usec: Option<u64>,
    /// The period, in microseconds.
    pub period_usec: u64,
}

/// cpu.stat; `None` without `usage_usec`.
#[must_use]
pub fn cpu_stat(text: &str) -> Option<CpuStat> {
    let (mut usage, mut periods, mut throttled, mut throttled_usec) = (None, None, None, None);
    for (key, value) in pairs(text) {
        match key {
            "usage_usec" => usage = number(value),
            "nr_periods" => periods = number(value),
            "nr_throttled" => throttled = number(value),
            "throttled_usec" => throttled_usec = number(value),
            _ => {}
        }
    }
    let bandwidth = periods
        .zip(throttled)
        .zip(throttled_usec)
        .map(|((nr_periods, nr_throttled), throttled_usec)| Bandwidth { nr_periods, nr_throttled, throttled_usec });
    Some(CpuStat { usage_usec: usage?, bandwidth })
}

/// A file of one number, such as memory.current or pids.current.
#[must_use]
pub fn single(text: &str) -> Option<u64> {
    number(text.trim_ascii())
}

/// The value of one key in a file of `key value` lines, such as `inactive_file` in memory.stat or `oom_kill` in memory.events.
#[must_use]
pub fn value(text: &str, key: &str) -> Option<u64> {
    pairs(text).find(|(found, _)| *found == key).and_then(|(_, value)| number(value))
}

/// A pressure file; `None` without a `some` line.
#[must_use]
pub fn stall(text: &str) -> Option<Stall> {
    let total = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.split_ascii_whitespace().find_map(|field| number(field.strip_prefix("total=")?))
    };
    Some(Stall { some_usec: total("some")?, full_usec: total("full").unwrap_or_default() })
}

/// io.stat. An empty file is no I/O.
#[must_use]
pub fn io_stat(text: &str) -> IoStat {
    let mut sum = IoStat::default();
    for field in text.lines().flat_map(str::split_ascii_whitespace) {
        let Some((key, value)) = field.split_once('=') else { continue };
        let sum = match key {
            "rbytes" => &mut sum.read_bytes,
            "wbytes" => &mut sum.write_bytes,
            "rios" => &mut sum.read_operations,
            "wios" => &mut sum.write_operations,
            _ => continue,
        };
        *sum = sum.saturating_add(number(value).unwrap_or_default());
    }
    sum
}

/// cpu.max; `None` when it is of another form.
#[must_use]
pub fn cpu_max(text: &str) -> Option<CpuMax> {
    let (quota, period) = text.trim_ascii().split_once(' ')?;
    let quota_usec = if quota == "max" { None } else { Some(number(quota)?) };
    Some(CpuMax { quota_usec, period_usec: number(period)? })
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(' '))
}

/// Digits alone: `parse` would take a sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}
