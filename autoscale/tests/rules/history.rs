//! The memory of windows and rates: the answers of the HPA's lists, from far fewer entries, and over restarts and set
//! clocks.

use catamaran_autoscale::{
    Behavior, History,
    behavior::{Rate, Unit},
    history::Recommendation,
};
use jiff::SignedDuration;
use proptest::prelude::*;

use crate::kit::{Workload, after, cpu, lost, policy};

/// What the HPA does with its list of recommendations (`stabilizeRecommendationWithBehaviors`), and without `behavior`
/// (`stabilizeRecommendation`): it looks at all of them.
fn stabilized(list: &[(i32, i64)], wanted: i32, current: i32, now: i64, up: i64, down: i64) -> i32 {
    let young = |window: i64| list.iter().filter(move |(_, at)| *at > now - window).map(|(replicas, _)| *replicas);
    let lowest = young(up).chain([wanted]).min().expect("one");
    let highest = young(down).chain([wanted]).max().expect("one");
    current.max(lowest).min(highest)
}

fn highest(list: &[(i32, i64)], wanted: i32, now: i64, window: i64) -> i32 {
    list.iter().filter(|(_, at)| *at >= now - window).map(|(replicas, _)| *replicas).chain([wanted]).max().expect("one")
}

fn workload(behavior: Option<(u32, u32)>, downscale: u32) -> Workload {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 10);
    workload.policy.max = 1000;
    workload.policy.settings.downscale_stabilization = downscale;
    workload.policy.behavior = behavior.map(|(up, down)| {
        let mut behavior = Behavior::with_defaults(down);
        behavior.up.window = up;
        // Nothing but the windows limits.
        behavior.up.rates = vec![Rate { kind: Unit::Pods, value: 1000, period: 1 }];
        behavior
    });
    workload
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_answer_like_the_list_of_the_hpa(
        old in prop::collection::vec((1..20i32, -700..=0i64), 0..8),
        passes in prop::collection::vec((0..200i64, 1..20i32), 1..60),
        windows in prop::option::of((
            prop::sample::select(vec![0u32, 15, 60, 300]),
            prop::sample::select(vec![0u32, 60, 300, 600]),
        )),
    ) {
        let mut workload = workload(windows, 300);
        let recommendations = old.iter().map(|(replicas, at)| Recommendation { replicas: *replicas, at: after(*at) });
        workload.history = History::from_lists(recommendations, [], []);
        let (mut list, mut now) = (old, 0);
        for (pause, wanted) in passes {
            now += pause;
            let current = workload.replicas;
            // 50 % of a core for each replica that is wanted, spread over those that there are: it does not always come
            // out even.
            let samples = workload.all_use(i64::from(wanted) * 500 / i64::from(current), after(now));
            let decision = workload.pass(samples, after(now));
            let asked = decision.recommendation.expect("metrics answer");
            let expected = match windows {
                Some((up, down)) => stabilized(&list, asked, current, now, up.into(), down.into()),
                // Up to double, or four.
                None => highest(&list, asked, now, 300).min((2 * current).max(4)),
            };
            prop_assert_eq!(decision.to, expected.max(1), "at {} s, {:?}", now, list);
            list.push((asked, now));
        }
        // Each of the two queues keeps no more than there are different counts.
        prop_assert!(workload.history.len() <= 2 * 20 + 60, "{}", workload.history.len());
    }

    #[test]
    fn rates_answer_like_the_list_of_the_hpa(
        changes in prop::collection::vec((0..100i64, any::<bool>()), 1..40),
        periods in (1..120u32, 1..120u32),
    ) {
        let mut workload = workload(Some((0, 0)), 300);
        if let Some(behavior) = &mut workload.policy.behavior {
            behavior.up.rates = vec![Rate { kind: Unit::Pods, value: 3, period: periods.0 }];
            behavior.down.rates = vec![Rate { kind: Unit::Pods, value: 3, period: periods.1 }];
        }
        let (mut ups, mut downs, mut now) = (Vec::new(), Vec::new(), 0);
        for (pause, up) in changes {
            now += pause;
            let current = workload.replicas;
            let samples = workload.all_use(if up { 5000 } else { 0 }, after(now));
            let decision = workload.pass(samples, after(now));
            let period = i64::from(if up { periods.0 } else { periods.1 });
            let within = |events: &[(i32, i64)]| -> i32 {
                events.iter().filter(|(_, at)| *at > now - period).map(|(by, _)| by).sum()
            };
            let start = current - within(&ups) + within(&downs);
            let asked = decision.recommendation.expect("metrics answer");
            let highest = (start + 3).max(current).min(asked.max(current));
            let expected = if up { highest } else { (start - 3).min(current).max(1) };
            prop_assert_eq!(decision.to, expected, "at {} s: {:?} {:?}", now, ups, downs);
            if decision.to != current {
                store(if up { &mut ups } else { &mut downs }, (decision.to - current).abs(), now, period);
            }
        }
        prop_assert!(workload.history.len() <= 4 + ups.len() + downs.len());
    }
}

/// How the HPA keeps events (`storeScaleEvent`).
fn store(events: &mut Vec<(i32, i64)>, change: i32, now: i64, longest_period: i64) {
    let outdated = events.iter().rposition(|(_, at)| *at < now - longest_period);
    match outdated {
        Some(index) => events[index] = (change, now),
        None => events.push((change, now)),
    }
}

#[test]
fn a_constant_load_keeps_two_entries() {
    let mut workload = workload(Some((60, 300)), 300);
    for seconds in 0..1000 {
        workload.pass(workload.all_use(500, after(seconds)), after(seconds));
    }
    assert_eq!(workload.history.len(), 2);
}

#[test]
fn a_falling_load_keeps_no_more_than_its_window() {
    let mut workload = workload(Some((0, 300)), 300);
    workload.policy.max = 100_000;
    let mut most = 0;
    for seconds in 0..2000 {
        let wanted = 3000 - seconds;
        let samples = workload.all_use(wanted * 500 / i64::from(workload.replicas), after(seconds));
        workload.pass(samples, after(seconds));
        most = most.max(workload.history.len());
    }
    assert!(most <= 320, "{most}");
}

#[test]
fn it_survives_a_restart() {
    let mut workload = workload(Some((0, 300)), 300);
    workload.replicas = 4;
    workload.pods = crate::kit::pods(4);
    workload.pass(workload.all_use(1000, after(0)), after(0));
    assert_eq!(workload.replicas, 8);
    let stored = serde_json::to_string(&workload.history).expect("JSON");
    // Load falls; nothing goes within the window, so nothing is stored any more. Then the operator starts again.
    for seconds in 1..200 {
        workload.pass(workload.all_use(100, after(seconds)), after(seconds));
    }
    let stored: History = serde_json::from_str(&stored).expect("a history");
    workload.history = History::restored(stored, workload.replicas, after(200));
    for (seconds, to) in [(200, 8), (301, 8), (499, 8), (500, 2)] {
        let decision = workload.pass(workload.all_use(100, after(seconds)), after(seconds));
        assert_eq!(decision.to, to, "after {seconds} s");
    }
}

#[test]
fn scale_events_and_the_loss_of_metrics_are_stored_too() {
    let mut workload = workload(Some((0, 300)), 300);
    workload.pass(workload.all_use(1000, after(0)), after(0));
    workload.pass(vec![lost()], after(1));
    let text = serde_json::to_string(&workload.history).expect("JSON");
    let stored: History = serde_json::from_str(&text).expect("a history");
    assert_eq!(stored, workload.history);
    assert_eq!(stored.lost_since(), Some(after(1)));
    assert!(text.contains(r#""ups":[{"change":10"#), "{text}");
    // What an older or newer version left out is empty.
    assert_eq!(serde_json::from_str::<History>("{}").expect("empty"), History::default());
}

#[test]
fn a_new_one_removes_nothing_for_a_window() {
    let mut workload = workload(Some((0, 300)), 300);
    workload.history = History::new(10, after(0));
    for (seconds, to) in [(0, 10), (299, 10), (300, 2)] {
        let decision = workload.pass(workload.all_use(100, after(seconds)), after(seconds));
        assert_eq!(decision.to, to, "after {seconds} s");
    }
}

#[test]
fn a_clock_that_is_set_changes_nothing_when_told() {
    for hours in [-1, 1] {
        let by = SignedDuration::from_hours(hours);
        let mut workload = workload(Some((0, 300)), 300);
        workload.history = History::new(10, after(0));
        workload.pass(workload.all_use(1000, after(0)), after(0));
        assert_eq!(workload.replicas, 20);
        workload.pass(vec![lost()], after(1));
        workload.history.shift(by);
        assert_eq!(workload.history.lost_since(), Some(after(1) + by));
        for (seconds, to) in [(2, 20), (299, 20), (300, 4)] {
            let now = after(seconds) + by;
            assert_eq!(workload.pass(workload.all_use(100, now), now).to, to, "{hours} h, after {seconds} s");
        }
    }
}
