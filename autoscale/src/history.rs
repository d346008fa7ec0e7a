//! What a decision has to remember of those before it: recommendations, scale events, and since when no metric has
//! answered.
//!
//! The HPA keeps every recommendation of its window (`stabilizeRecommendation`, `stabilizeRecommendationWithBehaviors`)
//! and asks for the highest or lowest of those younger than a cutoff. The same answers come from far fewer: a
//! recommendation that a later one equals or exceeds can never again be the highest. What is left is ordered by time
//! and by value, so the answer is the first one after the cutoff. With one decision a second, a constant load keeps one
//! entry, not three hundred.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    arithmetic::{later, seconds_before},
    behavior::{Behavior, Rate, Rules},
    decision::{Decision, LostMetrics, Target, Used},
    policy::Policy,
};

/// The memory of one workload's autoscaling.
///
/// It is serialized into the status with every decision that changes it anyway; [`History::restored`] makes up for the
/// decisions after that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Recommendations that may still be the highest of a window, the highest first.
    #[serde(default)]
    highs: VecDeque<Recommendation>,
    /// Those that may still be the lowest, the lowest first.
    #[serde(default)]
    lows: VecDeque<Recommendation>,
    /// Replicas added.
    #[serde(default)]
    pub(super) ups: Events,
    /// Replicas removed.
    #[serde(default)]
    pub(super) downs: Events,
    /// Since when no metric has answered; `None` while one does.
    #[serde(default)]
    pub(super) lost_since: Option<Timestamp>,
    /// What the samples of ratios were used for. Not stored: a process that starts anew has new samples.
    #[serde(skip)]
    used: Vec<Used>,
}

/// What the metrics alone asked for at some time: neither stabilized nor limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    /// The count.
    pub replicas: i32,
    /// When.
    pub at: Timestamp,
}

/// How a window is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cutoff {
    /// Younger than this: the windows of `behavior`.
    After(Timestamp),
    /// This old or younger: the window of the rules before there was `behavior`.
    From(Timestamp),
}

impl Cutoff {
    fn excludes(self, at: Timestamp) -> bool {
        match self {
            Self::After(cutoff) => at <= cutoff,
            Self::From(cutoff) => at < cutoff,
        }
    }
}

impl History {
    /// That of a workload seen for the first time: the count it has is noted as a recommendation, so that nothing is
    /// removed before a whole window has been seen.
    #[must_use]
    pub fn new(current: i32, now: Timestamp) -> Self {
        let mut history = Self::default();
        history.recommend(Recommendation { replicas: current, at: now });
        history
    }

    /// One made from lists in any order. A scale event is how many replicas were added or removed, and when.
    #[must_use]
    pub fn from_lists(
        recommendations: impl IntoIterator<Item = Recommendation>,
        ups: impl IntoIterator<Item = (i32, Timestamp)>,
        downs: impl IntoIterator<Item = (i32, Timestamp)>,
    ) -> Self {
        let mut history =
            Self { ups: ups.into_iter().collect(), downs: downs.into_iter().collect(), ..Self::default() };
        for recommendation in recommendations {
            history.recommend(recommendation);
        }
        history
    }

    /// The one stored before a restart. What was recommended since it was stored is not known; the count that the
    /// workload has stands for it.
    #[must_use]
    pub fn restored(stored: Self, current: i32, now: Timestamp) -> Self {
        let mut history = stored;
        history.recommend(Recommendation { replicas: current, at: now });
        history
    }

    /// Since when no metric has answered; `None` while one does.
    #[must_use]
    pub fn lost_since(&self) -> Option<Timestamp> {
        self.lost_since
    }

    /// How many entries it holds: what it costs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.highs.len() + self.lows.len() + self.ups.0.len() + self.downs.0.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves everything in time, for a clock that was set. Without it, an hour forward would end every window at once,
    /// and an hour back would keep every window open for that hour.
    pub fn shift(&mut self, by: SignedDuration) {
        let times = self.highs.iter_mut().chain(&mut self.lows).map(|entry| &mut entry.at);
        let events = self.ups.0.iter_mut().chain(&mut self.downs.0).map(|event| &mut event.at);
        for at in times.chain(events).chain(&mut self.lost_since) {
            *at = later(*at, by);
        }
    }

    /// Notes what a decision recommends, whatever became of it. To be called for every decision.
    pub fn decided(&mut self, policy: &Policy, decision: &Decision) {
        let (up, down) = windows(policy);
        let now = decision.at;
        forget(&mut self.lows, |entry| entry.at < seconds_before(now, up));
        forget(&mut self.highs, |entry| entry.at < seconds_before(now, down));
        for replicas in decision.resumed_from.into_iter().chain(decision.recommendation) {
            self.recommend(Recommendation { replicas, at: now });
        }
        match decision.lost {
            LostMetrics::NotAsked => {}
            LostMetrics::None => self.lost_since = None,
            LostMetrics::Since(since) => self.lost_since = Some(since),
        }
        if decision.lost != LostMetrics::NotAsked {
            self.used.clone_from(&decision.used);
        }
    }

    /// What a sample came to, if it was used before.
    pub(super) fn used(&self, metric: &str, target: Target, taken: Timestamp) -> Option<&Used> {
        self.used.iter().find(|used| used.taken == taken && used.target == target && used.metric == metric)
    }

    /// Notes that the count of a decision was written. Only then does it use up what the rate policies allow.
    pub fn written(&mut self, policy: &Policy, decision: &Decision) {
        let (Some(behavior), Some(to)) = (&policy.behavior, decision.write()) else { return };
        self.changed(behavior, decision.from, to, decision.at);
    }

    /// Takes over the changes of the count that another process noted.
    pub fn adopt(&mut self, noted: &Self) {
        for (mine, theirs) in [(&mut self.ups, &noted.ups), (&mut self.downs, &noted.downs)] {
            let new: Vec<Event> = theirs.0.iter().filter(|event| !mine.0.contains(event)).copied().collect();
            mine.0.extend(new);
        }
    }

    /// Notes a change of the count that is found in the cluster, and was written by a process that ended before it
    /// noted it. When it was is not known; so late that no rate can be used twice.
    pub fn found(&mut self, policy: &Policy, from: i32, to: i32, now: Timestamp) {
        let Some(behavior) = &policy.behavior else { return };
        self.changed(behavior, from, to, now);
    }

    /// Notes a change of the count.
    pub(super) fn changed(&mut self, behavior: &Behavior, from: i32, to: i32, at: Timestamp) {
        let (events, rules) = if to > from { (&mut self.ups, &behavior.up) } else { (&mut self.downs, &behavior.down) };
        let change = to.saturating_sub(from).saturating_abs();
        if change > 0 {
            events.store(Event { change, at }, rules.longest_period());
        }
    }

    /// When the next change leaves the period of a rate.
    pub(super) fn next_expiry(&self, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
        let period = |rate: &Rate| SignedDuration::from_secs(i64::from(rate.period));
        let events = self.ups.0.iter().chain(&self.downs.0);
        let expiries = events.flat_map(|event| rules.rates.iter().map(|rate| later(event.at, period(rate))));
        expiries.filter(|expiry| *expiry > now).min()
    }

    /// The highest recommendation of a window.
    pub(super) fn highest(&self, cutoff: Cutoff) -> Option<i32> {
        first(&self.highs, cutoff)
    }

    /// The lowest recommendation of a window.
    pub(super) fn lowest(&self, cutoff: Cutoff) -> Option<i32> {
        first(&self.lows, cutoff)
    }

    fn recommend(&mut self, new: Recommendation) {
        insert(&mut self.highs, new, |old| old.replicas <= new.replicas);
        insert(&mut self.lows, new, |old| old.replicas >= new.replicas);
    }
}

/// The stabilization windows upward and downward, in seconds.
fn windows(policy: &Policy) -> (u32, u32) {
    match &policy.behavior {
        Some(behavior) => (behavior.up.window, behavior.down.window),
        None => (0, policy.settings.downscale_stabilization),
    }
}

fn first(entries: &VecDeque<Recommendation>, cutoff: Cutoff) -> Option<i32> {
    let young = entries.partition_point(|entry| cutoff.excludes(entry.at));
    entries.get(young).map(|entry| entry.replicas)
}

/// Puts in a recommendation, and drops the older ones that it makes superfluous. Usually it is the youngest.
fn insert(entries: &mut VecDeque<Recommendation>, new: Recommendation, beaten: impl Fn(&Recommendation) -> bool) {
    let place = entries.partition_point(|entry| entry.at <= new.at);
    // The first of the younger ones is the best of them. When it is as good as the new one, that one never counts.
    if entries.get(place).is_some_and(|younger| !beaten(younger) || younger.replicas == new.replicas) {
        return;
    }
    let kept = entries.range(..place).rposition(|older| !beaten(older)).map_or(0, |last| last + 1);
    entries.drain(kept..place);
    entries.insert(kept, new);
}

/// Drops entries from the front, the oldest first.
fn forget<T>(entries: &mut VecDeque<T>, is_old: impl Fn(&T) -> bool) {
    while entries.front().is_some_and(&is_old) {
        entries.pop_front();
    }
}

/// The changes of the count in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Events(Vec<Event>);

/// A change of the count that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Event {
    /// By how many replicas, without sign.
    change: i32,
    /// When.
    at: Timestamp,
}

impl Events {
    /// How many replicas came (or went) in the last `period` seconds.
    pub(super) fn within(&self, period: u32, now: Timestamp) -> i32 {
        let cutoff = seconds_before(now, period);
        self.0.iter().filter(|event| event.at > cutoff).fold(0, |sum, event| sum.saturating_add(event.change))
    }

    /// Adds an event, in place of one that no policy of its direction looks at any more: so there are never more than a
    /// period has had. As in the HPA (`storeScaleEvent`) it is one that goes, although the policies of the other
    /// direction may have a longer period and still look at it.
    fn store(&mut self, event: Event, longest_period: u32) {
        let cutoff = seconds_before(event.at, longest_period);
        match self.0.iter_mut().rev().find(|old| old.at < cutoff) {
            Some(old) => *old = event,
            None => self.0.push(event),
        }
    }
}

impl FromIterator<(i32, Timestamp)> for Events {
    fn from_iter<I: IntoIterator<Item = (i32, Timestamp)>>(events: I) -> Self {
        Self(events.into_iter().map(|(change, at)| Event { change, at }).collect())
    }
}
