//! Random cases for the autoscaler in the conformance format, and what the oracle and the product make of them.
//!
//! A case is one decision at one frozen instant. It is made from a seed alone, so a number in a log is enough to have
//! it again. What is drawn is what the API server accepts, but for a few oddities that the controller has an answer
//! for, and goes for the edges: ratios at a tolerance, ages at a window, pods at the end of their start, counts at a
//! bound, numbers at the end of 64 bits.

mod ask;
mod behavior;
mod draw;
mod format;
mod history;
mod metrics;
mod outcome;
mod pods;
mod samples;
mod shape;
mod shrink;

pub use ask::ask;
pub use format::Case;
pub use outcome::{Deliberate, Difference, Outcome, differences};
pub use shrink::shrink;

use draw::Draw;

/// The cases of a seed. The same seed gives the same cases, and more of them begin with the same ones.
#[must_use]
pub fn generate(seed: u64, count: usize) -> Vec<Case> {
    let mut seeds = Draw::new(seed);
    (0..count).map(|number| case(format!("{seed}/{number}"), &mut Draw::new(seeds.seed()))).collect()
}

fn case(name: String, draw: &mut Draw) -> Case {
    let mut case = shape::draw(name, draw);
    behavior::draw(&mut case, draw);
    pods::draw(&mut case, draw);
    metrics::draw(&mut case, draw);
    history::draw(&mut case, draw);
    case
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::generate;

    /// What the format's examples are labelled with, and what was added here.
    const TAGS: [&str; 51] = [
        "ContainerResource",
        "External",
        "Object",
        "Pods",
        "Resource",
        "behavior",
        "boundary-time",
        "clamped",
        "deleted",
        "disabled-at-zero",
        "empty-behavior",
        "extreme",
        "failed",
        "fresh-controller",
        "fresh-sample-edge",
        "from-one",
        "from-zero",
        "hot-ready",
        "hot-unready",
        "init-edge",
        "metric-error",
        "missing-container-sample",
        "missing-request",
        "missing-sample",
        "no-metrics",
        "no-pods",
        "no-ready-condition",
        "no-start-time",
        "odd-metric",
        "out-of-range",
        "pending",
        "plain",
        "pod-level-requests",
        "policy-Percent",
        "policy-Pods",
        "restartable-init",
        "scale-events",
        "select-Disabled",
        "select-Max",
        "select-Min",
        "several-metrics",
        "status-differs",
        "stray-sample",
        "succeeded",
        "to-zero",
        "tolerance-edge",
        "tolerance-per-direction",
        "unready-edge",
        "unready-never",
        "unready-was-ready",
        "zero-time",
    ];

    #[test]
    fn a_seed_gives_its_cases_again() {
        let once = generate(7, 40);
        assert_eq!(once, generate(7, 40));
        assert_eq!(once[..10], generate(7, 10)[..]);
        assert_ne!(once[0].metrics, generate(8, 1)[0].metrics);
    }

    #[test]
    fn every_kind_of_case_occurs_often() {
        const CASES: usize = 5_000;
        let cases = generate(1, CASES);
        assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), CASES);
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for tag in cases.iter().flat_map(|case| &case.tags) {
            *found.entry(tag).or_default() += 1;
        }
        assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(TAGS));
        let seldom: Vec<_> = found.into_iter().filter(|(_, count)| *count < CASES / 200).collect();
        assert!(seldom.is_empty(), "{seldom:?}");
    }
}
