//! A clock that only goes forward, also while the machine sleeps (CLOCK_BOOTTIME).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// For how long the machine has been up, time asleep included: a leader that slept knows that its lease is over.
#[must_use]
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
