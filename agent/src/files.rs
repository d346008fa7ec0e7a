//! The texts of the kernel's files, read into numbers.
//!
//! Source: Documentation/admin-guide/cgroup-v2.rst and accounting/psi.rst of the kernel. Lines and keys that are not
//! known are passed over, as newer kernels add some; a number that is none counts as absent.
//!
//! A node has thousands of these each second, so they are looked at byte by byte: the searches of `str` are made for
//! long texts.

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
            b"usage_usec" => usage = digits(value),
            b"nr_periods" => periods = digits(value),
            b"nr_throttled" => throttled = digits(value),
            b"throttled_usec" => throttled_usec = digits(value),
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

/// The value of one key in a file of `key value` lines, such as `inactive_file` in memory.stat or `oom_kill` in
/// memory.events.
#[must_use]
pub fn value(text: &str, key: &str) -> Option<u64> {
    pairs(text).find(|(found, _)| *found == key.as_bytes()).and_then(|(_, value)| digits(value))
}

/// A pressure file; `None` without a `some` line.
#[must_use]
pub fn stall(text: &str) -> Option<Stall> {
    let (mut some, mut full) = (None, None);
    for (name, fields) in pairs(text) {
        let total = match name {
            b"some" => &mut some,
            b"full" => &mut full,
            _ => continue,
        };
        // It is the last one.
        *total = words(fields).rev().find_map(|field| digits(field.strip_prefix(b"total=")?));
    }
    Some(Stall { some_usec: some?, full_usec: full.unwrap_or_default() })
}

/// io.stat. An empty file is no I/O.
#[must_use]
pub fn io_stat(text: &str) -> IoStat {
    let mut sum = IoStat::default();
    for field in lines(text).flat_map(words) {
        let Some((key, value)) = split_once(field, b'=') else { continue };
        let sum = match key {
            b"rbytes" => &mut sum.read_bytes,
            b"wbytes" => &mut sum.write_bytes,
            b"rios" => &mut sum.read_operations,
            b"wios" => &mut sum.write_operations,
            _ => continue,
        };
        *sum = sum.saturating_add(digits(value).unwrap_or_default());
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

fn lines(text: &str) -> impl Iterator<Item = &[u8]> {
    text.as_bytes().split(|c| *c == b'\n')
}

fn words(line: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    line.split(|c| *c == b' ')
}

/// The first word of each line, and the rest of it.
fn pairs(text: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(text).filter_map(|line| split_once(line, b' '))
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at_checked(text.iter().position(|c| *c == at)?)?;
    Some((before, after.get(1..)?))
}

/// Digits alone: `parse` would take a sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    digits(text.as_bytes())
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, c| {
        if !c.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(c.wrapping_sub(b'0')))
    })
}
