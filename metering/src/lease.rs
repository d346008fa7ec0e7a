//! What one pod has reserved, over time.

use std::time::Duration;

use jiff::Timestamp;

use super::{Amounts, Used};

/// What the scheduler reserves for a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// In millicores.
    pub cpu_millicores: u64,
    /// In bytes.
    pub memory_bytes: u64,
}

/// The reservation of one pod: from its start on, in steps. Each step is charged with the request that held when it
/// began.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    until: Timestamp,
    request: Request,
}

impl Lease {
    /// From a moment on.
    #[must_use]
    pub fn from(start: Timestamp, request: Request) -> Self {
        Self { until: start, request }
    }

    /// What was reserved since the step before; from `now` on it is `request`. A clock that went back adds nothing.
    pub fn step(&mut self, now: Timestamp, request: Request) -> Used {
        let within = Duration::try_from(now.duration_since(self.until)).unwrap_or_default();
        let held = self.request;
        self.request = request;
        if within.is_zero() {
            return Used::default();
        }
        self.until = now;
        let usec = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let cpu = u128::from(held.cpu_millicores).saturating_mul(u128::from(usec)) / 1000;
        let amounts = Amounts {
            cpu_requested_usec: u64::try_from(cpu).unwrap_or(u64::MAX),
            memory_requested_byte_usec: u128::from(held.memory_bytes).saturating_mul(u128::from(usec)),
            replica_usec: usec,
            ..Amounts::NONE
        };
        Used { amounts, within }
    }
}
