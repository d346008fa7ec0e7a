//! The working set: memory.current less `inactive_file`, without a look into memory.stat each second.
//!
//! memory.stat is the one costly file: the kernel sums about forty counters over all CPUs for it. What is reclaimed
//! easily changes slowly, unless the container reads or writes files at a rate that shows in memory.current.

use std::time::Duration;

/// memory.stat is read at least so often while memory.current moves.
const OLDEST: Duration = Duration::from_secs(10);
/// And so often while memory.current stays the same to the byte: then nothing was cached or reclaimed, and no more than
/// the kernel's opinion of what is inactive can have changed.
const OLDEST_AT_REST: Duration = Duration::from_secs(60);
/// It is not read more often than this.
const YOUNGEST: Duration = Duration::from_secs(2);
/// It is read early when memory.current moved by more than one part in so many.
const MOVED: u64 = 16;

/// What was last seen in memory.stat of a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkingSet {
    last: Option<Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    read: Duration,
    current: u64,
    inactive_file: u64,
}

impl WorkingSet {
    /// Whether memory.stat is to be read now, with memory.current in bytes and the time of a steady clock.
    #[must_use]
    pub fn is_due(&self, current: u64, now: Duration) -> bool {
        let Some(last) = self.last else { return true };
        let age = now.saturating_sub(last.read);
        let moved = current.abs_diff(last.current) > last.current / MOVED;
        let oldest = if current == last.current { OLDEST_AT_REST } else { OLDEST };
        age >= oldest || (moved && age >= YOUNGEST)
    }

    /// memory.stat was read.
    pub fn read(&mut self, current: u64, inactive_file: u64, now: Duration) {
        self.last = Some(Last { read: now, current, inactive_file });
    }

    /// The working set in bytes, for memory.current as it is now.
    #[must_use]
    pub fn bytes(&self, current: u64) -> u64 {
        current.saturating_sub(self.last.map_or(0, |last| last.inactive_file))
    }
}
