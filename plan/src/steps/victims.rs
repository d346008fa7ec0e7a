//! Which replicas go: the order of [`order`], for what is more than a candidate.

use std::collections::BTreeMap;

use catamaran_autoscale::victims::{Candidate, Victims, order};

/// The items in the order in which they go: those of a lower `rank` first, among equals as `victims` says.
pub(crate) fn in_order<'a, T, R: Ord>(
    victims: Victims,
    items: &[&'a T],
    candidate: fn(&'a T) -> Candidate<'a>,
    rank: impl Fn(&T) -> R,
) -> Vec<&'a T> {
    let candidates: Vec<Candidate<'a>> = items.iter().map(|item| candidate(item)).collect();
    // Looked up by name, not searched for: there are sets of many thousands.
    let by_name: BTreeMap<&str, &T> =
        candidates.iter().map(|candidate| candidate.name).zip(items.iter().copied()).collect();
    let mut ordered: Vec<&T> =
        order(victims, &candidates).into_iter().filter_map(|candidate| by_name.get(candidate.name).copied()).collect();
    ordered.sort_by_key(|item| rank(item));
    ordered
}
