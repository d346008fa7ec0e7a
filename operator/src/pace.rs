//! How often one workload, and all of one namespace, may be written: what changes all the time, say because somebody
//! else puts back each write of ours, may not take the API server's time from other tenants.
//!
//! Counted are passes that write, not writes: a rollout of thousands of replicas is many writes in few passes.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::stores::WorkloadKey;

/// Passes of one workload that write: each second, and at once. Replicas take a second and more to become ready, so
/// that a rollout needs no more.
const WORKLOAD: Quota = quota(2, 120);
/// Those of all workloads of a namespace. All of them are written once after an upgrade, or when they are created.
const NAMESPACE: Quota = quota(100, 5000);

/// What was written long ago is forgotten each time that so many passes were counted: it takes a look at everything.
const FORGET_EVERY: u64 = 4096;

const fn quota(each_second: u32, burst: u32) -> Quota {
    match (NonZeroU32::new(each_second), NonZeroU32::new(burst)) {
        (Some(each_second), Some(burst)) => Quota::per_second(each_second).allow_burst(burst),
        (None, _) | (_, None) => panic!("a limit of nothing"),
    }
}

type Limiter<K, C> = RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// What was written lately.
pub struct Pace<C: Clock = MonotonicClock> {
    clock: C,
    /// By a hash of the workload's key: there are many, and two that share a limit by chance are one in 2^64.
    workloads: Limiter<u64, C>,
    hash: RandomState,
    namespaces: Limiter<String, C>,
    /// Passes that were counted.
    taken: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self::by(MonotonicClock)
    }
}

impl<C: Clock + Clone> Pace<C> {
    fn by(clock: C) -> Self {
        let workloads = RateLimiter::dashmap_with_clock(WORKLOAD, clock.clone());
        let namespaces = RateLimiter::dashmap_with_clock(NAMESPACE, clock.clone());
        Self { clock, workloads, hash: RandomState::new(), namespaces, taken: AtomicU64::new(0) }
    }

    /// Counts a pass that is about to write. What comes back is how long it has to wait instead, if it has to.
    ///
    /// # Errors
    /// When the workload, or its namespace, was written too often lately.
    pub fn take(&self, key: &WorkloadKey) -> Result<(), Duration> {
        if self.taken.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.workloads.retain_recent();
            self.namespaces.retain_recent();
        }
        let wait = |earliest: governor::NotUntil<C::Instant>| earliest.wait_time_from(self.clock.now());
        self.workloads.check_key(&self.hash.hash_one(key)).map_err(wait)?;
        self.namespaces.check_key(&key.namespace).map_err(wait)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn key(namespace: &str, name: &str) -> WorkloadKey {
        WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// How many of a thousand passes in each of these seconds write.
    fn passes(seconds: u64, keys: impl Fn(u64) -> WorkloadKey) -> Vec<usize> {
        let clock = FakeRelativeClock::default();
        let pace = Pace::by(clock.clone());
        let second = |_| {
            let taken = (0..1000).filter(|number| pace.take(&keys(*number)).is_ok()).count();
            clock.advance(Duration::from_secs(1));
            taken
        };
        (0..seconds).map(second).collect()
    }

    #[test]
    fn a_workload_that_changes_all_the_time_is_written_twice_a_second() {
        assert_eq!(passes(4, |_| key("shop", "web")), [120, 2, 2, 2]);
    }

    #[test]
    fn a_namespace_whose_workloads_all_change_has_a_limit_too() {
        let counts = passes(9, |number| key("shop", &format!("web-{number}")));
        assert_eq!(counts[..5], [1000; 5]);
        assert!(counts[5..].iter().all(|count| *count <= 500), "{counts:?}");
        assert_eq!(counts.last(), Some(&100));
    }

    #[test]
    fn others_are_not_held_up() {
        let clock = FakeRelativeClock::default();
        let pace = Pace::by(clock);
        while pace.take(&key("shop", "web")).is_ok() {}
        let wait = pace.take(&key("shop", "web")).expect_err("it was written too often");
        assert!(wait <= Duration::from_millis(500), "{wait:?}");
        for other in [key("shop", "api"), key("bank", "web")] {
            assert_eq!(pace.take(&other), Ok(()));
        }
    }
}
