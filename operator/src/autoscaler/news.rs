//! When news of a workload is decided on.

use std::time::{Duration, Instant};

/// A decision is made at most so often for one workload: a little less than the second at which agents report, or a
/// report that is early would cost a whole one.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(900);
/// News that came so shortly before a decision may be made is as good as news that comes then.
const FRESH: Duration = Duration::from_millis(100);

/// What came since the last decision for a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum News {
    /// Time alone: it is to be looked at.
    #[default]
    Time,
    /// Usage, or an answer of a source.
    Came {
        /// When the first of it came, which waits the longest.
        first: Instant,
        /// When the last of it came.
        last: Instant,
    },
}

impl News {
    /// There came some, or more, just now.
    pub(super) fn came(&mut self, now: Instant) {
        *self = Self::Came { first: self.first().unwrap_or(now), last: now };
    }

    /// When the first of it came; `None` where it is time alone.
    pub(super) fn first(self) -> Option<Instant> {
        match self {
            Self::Time => None,
            Self::Came { first, last: _ } => Some(first),
        }
    }

    /// Whether it is decided on now, when the last decision was made at `decided` and stands for `pause`.
    ///
    /// The nodes of a workload report at different moments of each second. As soon as a decision may be made, all that
    /// they reported meanwhile is up to a second old, and what comes next has to wait for the next decision: so it is
    /// waited for, and decisions keep step with one of the nodes. Not for longer than once more the pause, as nothing
    /// may come.
    pub(super) fn is_due(self, decided: Instant, pause: Duration, now: Instant) -> bool {
        let age = now.saturating_duration_since(decided);
        match self {
            Self::Time => age >= pause,
            Self::Came { first: _, last } => {
                let fresh = last.saturating_duration_since(decided) + FRESH >= pause;
                age >= pause && (fresh || age >= pause * 2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(900);
    const TICK: u64 = 50;

    /// The moments of decisions, in milliseconds, when nodes report each second at these moments of it, until `end`.
    fn decisions(nodes: &[u64], last_report: u64, end: u64) -> Vec<u64> {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let (mut news, mut decided) = (None::<News>, Vec::<u64>::new());
        for ms in 0..end {
            if ms <= last_report && nodes.contains(&(ms % 1000)) {
                news.get_or_insert_default().came(at(ms));
            }
            let due = |news: News| decided.last().is_none_or(|last| news.is_due(at(*last), PAUSE, at(ms)));
            if ms % TICK == 0 && news.is_some_and(due) {
                decided.push(ms);
                news = None;
            }
        }
        decided
    }

    /// The mean age of what the nodes reported last, in milliseconds, when decisions are made; the first two are of the
    /// beginning.
    fn mean_age(nodes: &[u64], decided: &[u64]) -> u64 {
        let ages = |at: &u64| nodes.iter().map(|node| (at + 1000 - node) % 1000).collect::<Vec<_>>();
        let ages: Vec<u64> = decided.iter().skip(2).flat_map(ages).collect();
        ages.iter().sum::<u64>() / ages.len() as u64
    }

    #[test]
    fn one_node_is_decided_on_when_it_reports() {
        assert_eq!(decisions(&[310], 4400, 4500), [350, 1350, 2350, 3350, 4350]);
    }

    #[test]
    fn decisions_keep_step_with_a_node() {
        // Without the wait for the next report decisions would come each 0.9 s, and usage would be half a second old on
        // average.
        let (mut ages, others) = (0, (10..1000).step_by(30));
        for other in others.clone() {
            let nodes = [0, other];
            let decided = decisions(&nodes, 30_000, 30_000);
            assert!(decided.len().abs_diff(30) <= 1, "once a second: {decided:?}");
            assert!(decided.windows(2).all(|pair| pair[1] - pair[0] >= 900), "never more often: {decided:?}");
            ages += mean_age(&nodes, &decided);
        }
        let age = ages / others.count() as u64;
        assert!(age < 350, "usage is {age} ms old on average");
    }

    #[test]
    fn many_nodes_are_not_waited_for() {
        let nodes: Vec<u64> = (0..1000).step_by(20).collect();
        let decided = decisions(&nodes, 9_000, 9_000);
        assert!(decided.windows(2).all(|pair| pair[1] - pair[0] == 900), "{decided:?}");
    }

    #[test]
    fn the_last_news_is_decided_on_even_if_nothing_more_comes() {
        assert_eq!(decisions(&[0, 300], 300, 4000), [0, 1800]);
    }

    #[test]
    fn time_alone_waits_for_nothing() {
        let decided = Instant::now();
        assert!(!News::Time.is_due(decided, PAUSE, decided + Duration::from_millis(899)));
        assert!(News::Time.is_due(decided, PAUSE, decided + PAUSE));
        assert_eq!(News::Time.first(), None);
    }
}
