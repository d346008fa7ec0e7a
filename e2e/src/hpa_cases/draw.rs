//! Drawing from a seed.

use std::ops::RangeInclusive;

use rand::{
    Rng, RngExt, SeedableRng,
    distr::uniform::{SampleRange, SampleUniform},
    rngs::StdRng,
};

/// A source of chance that starts from a seed.
pub(super) struct Draw(StdRng);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A seed for another source.
    pub(super) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Whether something with this probability happens.
    pub(super) fn percent(&mut self, probability: u32) -> bool {
        self.0.random_ratio(probability.min(100), 100)
    }

    /// A number of the range, bounds included; the lower bound when the range is empty.
    pub(super) fn between<T: SampleUniform + PartialOrd + Copy>(&mut self, range: RangeInclusive<T>) -> T
    where
        RangeInclusive<T>: SampleRange<T>,
    {
        if range.is_empty() { *range.start() } else { self.0.random_range(range) }
    }

    /// One of several, all equally likely.
    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.between(0..=from.len().saturating_sub(1))].clone()
    }

    /// One of several with their weights.
    pub(super) fn weighted<T: Copy>(&mut self, from: &[(u32, T)]) -> T {
        let mut left = self.between(1..=from.iter().map(|(weight, _)| weight).sum());
        for &(weight, value) in from {
            if left <= weight {
                return value;
            }
            left -= weight;
        }
        from[0].1
    }

    /// Something with this probability, else nothing.
    pub(super) fn maybe<T>(&mut self, probability: u32, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.percent(probability).then(|| value(self))
    }

    /// A whole number at, just below or just above an edge.
    pub(super) fn near(&mut self, edge: i64) -> i64 {
        edge.saturating_add(self.weighted(&[(2, 0), (1, -1), (1, 1)]))
    }
}
