//! What was used and what was reserved, as integers: sums in any order are the same.

use std::time::Duration;

/// Amounts over some time. Sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// CPU time used, in microseconds.
    pub cpu_usage_usec: u64,
    /// Memory used over time (the working set), in byte-microseconds.
    pub memory_usage_byte_usec: u128,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
    /// CPU requested over time, in microseconds of CPU time.
    pub cpu_requested_usec: u64,
    /// Memory requested over time, in byte-microseconds.
    pub memory_requested_byte_usec: u128,
    /// The time that replicas existed, in microseconds, summed over replicas.
    pub replica_usec: u64,
    /// The part of it over which memory was read, in microseconds. What is missing was not measured, so it is not
    /// billed by usage.
    pub metered_usec: u64,
}

impl Amounts {
    /// Nothing.
    pub const NONE: Self = Self {
        cpu_usage_usec: 0,
        memory_usage_byte_usec: 0,
        io_read_bytes: 0,
        io_write_bytes: 0,
        cpu_requested_usec: 0,
        memory_requested_byte_usec: 0,
        replica_usec: 0,
        metered_usec: 0,
    };

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        *self = self.with(other, u64::saturating_add, u128::saturating_add);
    }

    /// What is left when `other` is taken away.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub, u128::saturating_sub)
    }

    fn with(&self, other: &Self, narrow: fn(u64, u64) -> u64, wide: fn(u128, u128) -> u128) -> Self {
        Self {
            cpu_usage_usec: narrow(self.cpu_usage_usec, other.cpu_usage_usec),
            memory_usage_byte_usec: wide(self.memory_usage_byte_usec, other.memory_usage_byte_usec),
            io_read_bytes: narrow(self.io_read_bytes, other.io_read_bytes),
            io_write_bytes: narrow(self.io_write_bytes, other.io_write_bytes),
            cpu_requested_usec: narrow(self.cpu_requested_usec, other.cpu_requested_usec),
            memory_requested_byte_usec: wide(self.memory_requested_byte_usec, other.memory_requested_byte_usec),
            replica_usec: narrow(self.replica_usec, other.replica_usec),
            metered_usec: narrow(self.metered_usec, other.metered_usec),
        }
    }

    /// `part` of `whole` of it, rounded down; all of it when `part` is not below `whole`.
    #[must_use]
    pub fn share(&self, part: Duration, whole: Duration) -> Self {
        let (part, whole) = (part.as_micros(), whole.as_micros());
        if part >= whole {
            return *self;
        }
        let wide = |value: u128| match value.checked_mul(part) {
            Some(product) => product.checked_div(whole).unwrap_or(value),
            // Too large to be exact: it is so to 2^-64 or better.
            None => value.checked_div(whole).unwrap_or(value).saturating_mul(part),
        };
        let narrow = |value: u64| u64::try_from(wide(u128::from(value))).unwrap_or(u64::MAX);
        Self {
            cpu_usage_usec: narrow(self.cpu_usage_usec),
            memory_usage_byte_usec: wide(self.memory_usage_byte_usec),
            io_read_bytes: narrow(self.io_read_bytes),
            io_write_bytes: narrow(self.io_write_bytes),
            cpu_requested_usec: narrow(self.cpu_requested_usec),
            memory_requested_byte_usec: wide(self.memory_requested_byte_usec),
            replica_usec: narrow(self.replica_usec),
            metered_usec: narrow(self.metered_usec),
        }
    }
}
