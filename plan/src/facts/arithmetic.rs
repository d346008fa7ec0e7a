//! Times and counts that neither overflow nor wrap.

use jiff::{SignedDuration, Timestamp};

/// `seconds` after `time`, or the end of time.
#[must_use]
pub fn after(time: Timestamp, seconds: u32) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

pub(crate) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
