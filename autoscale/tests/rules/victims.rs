//! Which replicas go first.

use catamaran_autoscale::victims::{
    Candidate,
    Victims::{Default, LeastBusy, Newest},
    order,
};
use proptest::prelude::*;

use crate::kit::after;

/// A ready replica: its name, how long ago it was made and got ready, and its usage.
fn ready(name: &str, age: i64, ready: i64, usage: Option<i64>) -> Candidate<'_> {
    Candidate { name, created: after(-age), ready_since: Some(after(-ready)), usage }
}

/// One that is not ready.
fn unready(name: &str, age: i64, usage: Option<i64>) -> Candidate<'_> {
    Candidate { ready_since: None, ..ready(name, age, 0, usage) }
}

fn names<'a>(order: &[Candidate<'a>]) -> Vec<&'a str> {
    order.iter().map(|candidate| candidate.name).collect()
}

#[test]
fn each_choice_has_its_order() {
    let candidates = [
        ready("busy", 10, 9, Some(900)),
        ready("idle", 300, 200, Some(10)),
        ready("half", 200, 5, Some(500)),
        unready("starting", 2, Some(1000)),
        unready("broken", 400, None),
        ready("silent", 50, 40, None),
        ready("half, but older", 250, 100, Some(500)),
    ];
    for (victims, wanted) in [
        (LeastBusy, ["starting", "broken", "idle", "half", "half, but older", "busy", "silent"]),
        (Newest, ["starting", "broken", "busy", "silent", "half", "half, but older", "idle"]),
        (Default, ["starting", "broken", "half", "busy", "silent", "half, but older", "idle"]),
    ] {
        assert_eq!(names(&order(victims, &candidates)), wanted, "{victims:?}");
    }
}

#[test]
fn without_any_usage_the_least_busy_is_the_newest() {
    let candidates = [ready("a", 30, 20, None), ready("b", 10, 9, None), ready("c", 20, 19, None)];
    assert_eq!(order(LeastBusy, &candidates), order(Newest, &candidates));
}

#[test]
fn equals_go_by_name() {
    let candidates = [ready("b", 10, 9, Some(5)), ready("a", 10, 9, Some(5))];
    for victims in [LeastBusy, Newest, Default] {
        assert_eq!(names(&order(victims, &candidates)), ["a", "b"], "{victims:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_order_of_the_list(
        replicas in prop::collection::vec((0..50i64, prop::option::of(0..50i64), prop::option::of(0..9i64)), 0..12),
        seed in any::<u64>(),
    ) {
        let labels: Vec<String> = (0..replicas.len()).map(|index| format!("r{index}")).collect();
        let candidates: Vec<Candidate<'_>> = replicas
            .iter()
            .zip(&labels)
            .map(|((age, ready, usage), name)| Candidate {
                name,
                created: after(-age),
                ready_since: ready.map(|age| after(-age)),
                usage: *usage,
            })
            .collect();
        let mut shuffled = candidates.clone();
        let place = |name: &str, created: jiff::Timestamp| name.len() as u64 * 7919 + created.as_second() as u64;
        shuffled.sort_by_key(|candidate| place(candidate.name, candidate.created) ^ seed);
        for victims in [LeastBusy, Newest, Default] {
            let order_one = order(victims, &candidates);
            prop_assert_eq!(&order_one, &order(victims, &shuffled));
            let first_ready = order_one.iter().position(|candidate| candidate.ready_since.is_some());
            if let Some(first) = first_ready {
                prop_assert!(order_one[first..].iter().all(|candidate| candidate.ready_since.is_some()));
                if victims == LeastBusy {
                    // No replica of unknown usage goes before one of known usage.
                    let usage = |candidate: &Candidate<'_>| candidate.usage.unwrap_or(i64::MAX);
                    let usages: Vec<_> = order_one[first..].iter().map(usage).collect();
                    prop_assert!(usages.is_sorted());
                }
            }
        }
    }
}
