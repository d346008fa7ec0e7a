//! Who asks what and when: the state behind the polls, without any waiting or asking.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use catamaran_autoscale::samples::{NoSamples, Samples};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    query::{Metric, Request},
    resource::{self, PodUsage},
};
use crate::stores::WorkloadKey;

/// After so many intervals without an answer, the last one is no longer used.
const STALE_AFTER: u32 = 3;

/// What a request gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fetched {
    /// The usage of pods, of which each query takes its resource.
    PodUsage(Vec<PodUsage>),
    /// What every query takes as it is.
    Samples(Samples),
}

/// An answer to a metric of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The samples, or why there are none.
    pub result: Result<Samples, NoSamples>,
    /// When it arrived; `None` while nothing has come yet, and when the metric itself is wrong.
    pub arrived: Option<Timestamp>,
}

/// A repeated request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PollId(u64);

struct Poll {
    request: Arc<Request>,
    askers: HashSet<WorkloadKey>,
    /// When it was or is to be sent.
    due: Instant,
    last: Option<Last>,
}

struct Last {
    result: Result<Fetched, NoSamples>,
    at: Instant,
    arrived: Timestamp,
}

/// A metric of a workload, and how it is answered.
struct Wanted {
    metric: Metric,
    by: Result<PollId, NoSamples>,
}

/// All polls and those who want them.
pub(super) struct Schedule {
    /// How long it is from one poll of a request to its next.
    interval: Duration,
    workloads: HashMap<WorkloadKey, Vec<Wanted>>,
    polls: HashMap<PollId, Poll>,
    ids: HashMap<Arc<Request>, PollId>,
    /// Every poll that is not under way.
    due: BTreeSet<(Instant, PollId)>,
    next: u64,
    /// Spreads the polls of many workloads that came at once.
    spread: RandomState,
}

impl Schedule {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            workloads: HashMap::new(),
            polls: HashMap::new(),
            ids: HashMap::new(),
            due: BTreeSet::new(),
            next: 0,
            spread: RandomState::new(),
        }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Sets what a workload asks; what it asked before and asks no more ends. Answers to metrics that stay are kept.
    pub(super) fn want(&mut self, workload: &WorkloadKey, metrics: Vec<Metric>, now: Instant) {
        let unchanged = self.workloads.get(workload).map_or(metrics.is_empty(), |wanted| {
            wanted.len() == metrics.len()
                && wanted.iter().zip(&metrics).all(|(wanted, metric)| wanted.metric == *metric)
        });
        if unchanged {
            return;
        }
        let wanted: Vec<Wanted> = metrics
            .into_iter()
            .map(|metric| {
                let request = metric.request(&workload.namespace);
                let by = request.map(|request| self.join(request, workload, now)).map_err(NoSamples::from);
                Wanted { metric, by }
            })
            .collect();
        let joined: HashSet<PollId> = wanted.iter().filter_map(|wanted| wanted.by.as_ref().ok().copied()).collect();
        let before = if wanted.is_empty() {
            self.workloads.remove(workload)
        } else {
            self.workloads.insert(workload.clone(), wanted)
        };
        for left in before.into_iter().flatten().filter_map(|wanted| wanted.by.ok()) {
            if !joined.contains(&left) {
                self.leave(left, workload);
            }
        }
    }

    fn join(&mut self, request: Request, workload: &WorkloadKey, now: Instant) -> PollId {
        let request = Arc::new(request);
        let id = *self.ids.entry(request.clone()).or_insert_with(|| {
            self.next += 1;
            PollId(self.next)
        });
        let poll = self.polls.entry(id).or_insert_with(|| {
            // A first answer is wanted at once.
            self.due.insert((now, id));
            Poll { request, askers: HashSet::new(), due: now, last: None }
        });
        poll.askers.insert(workload.clone());
        id
    }

    fn leave(&mut self, id: PollId, workload: &WorkloadKey) {
        let Some(poll) = self.polls.get_mut(&id) else { return };
        poll.askers.remove(workload);
        if poll.askers.is_empty() {
            self.due.remove(&(poll.due, id));
            self.ids.remove(&poll.request);
            self.polls.remove(&id);
        }
    }

    /// When the next poll is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes a poll that is due; [`Self::arrived`] ends it.
    pub(super) fn take(&mut self, now: Instant) -> Option<(PollId, Arc<Request>)> {
        let (_, id) = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.pop_first();
        self.polls.get(&id).map(|poll| (id, poll.request.clone()))
    }

    /// Enters the answer to a poll, and gives those who are to hear of it: all who ask, unless it is the same error
    /// again.
    pub(super) fn arrived(
        &mut self,
        id: PollId,
        result: Result<Fetched, NoSamples>,
        now: Instant,
        arrived: Timestamp,
    ) -> Vec<WorkloadKey> {
        // Nobody asks any more.
        let Some(poll) = self.polls.get_mut(&id) else { return Vec::new() };
        let interval = self.interval;
        let pause = match poll.last {
            Some(_) => interval,
            // Only the second poll is at a time of its own, half an interval to one and a half after the first; the
            // others keep its distance.
            None => interval / 2 + interval.mul_f64(fraction(self.spread.hash_one(id))),
        };
        // Counted from when it was due, so that the time of an answer adds nothing; a poll that is late is sent next.
        poll.due = (poll.due + pause).max(now);
        self.due.insert((poll.due, id));
        let news = match (&poll.last, &result) {
            (Some(Last { result: Err(before), .. }), Err(now)) => before != now,
            (Some(_) | None, Ok(_) | Err(_)) => true,
        };
        poll.last = Some(Last { result, at: now, arrived });
        if news { poll.askers.iter().cloned().collect() } else { Vec::new() }
    }

    /// The last answers to the metrics of a workload, in their order.
    pub(super) fn answers(&self, workload: &WorkloadKey, now: Instant) -> Vec<Answer> {
        let wanted = self.workloads.get(workload);
        wanted.into_iter().flatten().map(|wanted| self.answer(wanted, now)).collect()
    }

    fn answer(&self, wanted: &Wanted, now: Instant) -> Answer {
        let none = |why: String| Answer { result: Err(NoSamples(why)), arrived: None };
        let poll = match &wanted.by {
            Ok(id) => self.polls.get(id),
            Err(wrong) => return none(wrong.0.clone()),
        };
        let Some(last) = poll.and_then(|poll| poll.last.as_ref()) else {
            return none("no answer has come yet".to_owned());
        };
        let age = now.duration_since(last.at);
        let result = match (&last.result, wanted.metric.resource()) {
            (Ok(_), _) if age > self.interval * STALE_AFTER => {
                Err(NoSamples(format!("the last answer is {} s old", age.as_secs())))
            }
            (Ok(Fetched::PodUsage(pods)), Some(resource)) => resource::samples(pods, resource).map_err(NoSamples::from),
            (Ok(Fetched::Samples(samples)), None) => Ok(samples.clone()),
            // Requests for pod usage come from queries for a resource, and no others do.
            (Ok(Fetched::PodUsage(_)), None) | (Ok(Fetched::Samples(_)), Some(_)) => {
                Err(NoSamples("the answer is to another question".to_owned()))
            }
            (Err(why), _) => Err(why.clone()),
        };
        Answer { result, arrived: Some(last.arrived) }
    }

    /// Every request that is repeated.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.ids.keys().map(|request| &**request)
    }
}

/// A number from 0 to 1 out of random bits.
fn fraction(bits: u64) -> f64 {
    f64::from(u32::try_from(bits >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::{api::autoscaling::v2::MetricIdentifier, apimachinery::pkg::apis::meta::v1::LabelSelector};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    fn key(name: &str) -> WorkloadKey {
        WorkloadKey { namespace: "shop".to_owned(), name: name.to_owned() }
    }

    fn external(name: &str) -> Metric {
        Metric::External { metric: MetricIdentifier { name: name.to_owned(), selector: None } }
    }

    fn usage(resource: &str) -> Metric {
        Metric::Resource { selector: LabelSelector::default(), name: resource.to_owned() }
    }

    /// A schedule with a clock.
    struct Played {
        schedule: Schedule,
        start: Instant,
    }

    impl Played {
        fn new() -> Self {
            Self { schedule: Schedule::new(INTERVAL), start: Instant::now() }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        fn want(&mut self, name: &str, metrics: &[Metric]) {
            self.schedule.want(&key(name), metrics.to_vec(), self.start);
        }

        fn take(&mut self, seconds: f64) -> Option<PollId> {
            self.schedule.take(self.at(seconds)).map(|(id, _)| id)
        }

        fn arrived(&mut self, id: PollId, seconds: f64, result: Result<i64, &str>) -> Vec<String> {
            let result = result
                .map(|value| Fetched::Samples(Samples::Series(vec![value])))
                .map_err(|why| NoSamples(why.to_owned()));
            let now = self.at(seconds);
            let mut heard: Vec<String> =
                self.schedule.arrived(id, result, now, Timestamp::UNIX_EPOCH).into_iter().map(|key| key.name).collect();
            heard.sort();
            heard
        }

        /// Values, or words.
        fn answers(&self, name: &str, seconds: f64) -> Vec<Result<i64, String>> {
            let answers = self.schedule.answers(&key(name), self.at(seconds));
            let value = |answer: Answer| match answer.result {
                Ok(Samples::Series(series)) => Ok(series[0]),
                Ok(other) => panic!("{other:?}"),
                Err(NoSamples(why)) => Err(why),
            };
            answers.into_iter().map(value).collect()
        }
    }

    #[test]
    fn equal_questions_are_asked_once_and_told_to_all() {
        let mut played = Played::new();
        played.want("a", &[external("x"), external("y")]);
        played.want("b", &[external("y")]);
        let polls: Vec<PollId> = std::iter::from_fn(|| played.take(0.0)).collect();
        assert_eq!(polls.len(), 2, "both at once");
        assert_eq!(
            played.answers("a", 0.0),
            [Err("no answer has come yet".to_owned()), Err("no answer has come yet".to_owned())]
        );
        assert_eq!(played.arrived(polls[0], 0.1, Ok(1)), ["a"]);
        assert_eq!(played.arrived(polls[1], 0.1, Ok(2)), ["a", "b"]);
        assert_eq!(played.answers("a", 0.2), [Ok(1), Ok(2)]);
        assert_eq!(played.answers("b", 0.2), [Ok(2)]);
        assert_eq!(played.answers("c", 0.2), []);
    }

    #[test]
    fn polls_are_spread_and_keep_their_distance() {
        let mut played = Played::new();
        let metrics: Vec<Metric> = (0..500).map(|n| external(&format!("m{n}"))).collect();
        played.want("a", &metrics);
        while let Some(id) = played.take(0.0) {
            played.arrived(id, 0.5, Ok(1));
        }
        let second: BTreeMap<PollId, Instant> = played.schedule.due.iter().map(|(due, id)| (*id, *due)).collect();
        let start = played.start;
        let seconds = |due: &Instant| due.duration_since(start).as_secs_f64();
        assert!(second.values().all(|due| (7.5..=22.5).contains(&seconds(due))));
        // 500 evenly random times: each of the 15 s has 33 on average.
        for second_of in 0..15 {
            let from = 7.5 + f64::from(second_of);
            let there = second.values().filter(|due| (from..from + 1.0).contains(&seconds(due))).count();
            assert!((8..80).contains(&there), "{there} polls from {from}");
        }
        // From then on they keep to the interval, however long the answers take.
        for _ in 0..500 {
            let due = seconds(&played.schedule.next_due().expect("one is due"));
            let id = played.take(due + 0.001).expect("due");
            played.arrived(id, due + 7.0, Ok(1));
        }
        for (due, id) in &played.schedule.due {
            assert_eq!(*due, second[id] + INTERVAL);
        }
    }

    #[test]
    fn a_poll_that_is_late_is_sent_next_and_only_once() {
        let mut played = Played::new();
        played.want("a", &[external("x")]);
        let id = played.take(0.0).expect("due");
        assert_eq!(played.take(1000.0), None, "it is under way");
        played.arrived(id, 1000.0, Ok(1));
        assert_eq!(played.schedule.next_due(), Some(played.at(1000.0)));
        assert_eq!(played.take(1000.0), Some(id));
        assert_eq!(played.take(1000.0), None);
    }

    #[test]
    fn an_old_answer_is_not_used() {
        let mut played = Played::new();
        played.want("a", &[external("x")]);
        let id = played.take(0.0).expect("due");
        played.arrived(id, 1.0, Ok(1));
        assert_eq!(played.answers("a", 46.0), [Ok(1)]);
        assert_eq!(played.answers("a", 46.1), [Err("the last answer is 45 s old".to_owned())]);
        assert!(played.schedule.answers(&key("a"), played.at(46.1))[0].arrived.is_some());
    }

    #[test]
    fn an_error_replaces_the_samples_and_is_told_once() {
        let mut played = Played::new();
        played.want("a", &[external("x")]);
        let mut poll = |seconds: f64, result| {
            let id = played.take(seconds).expect("due");
            let heard = played.arrived(id, seconds, result);
            (!heard.is_empty(), played.answers("a", seconds))
        };
        assert_eq!(poll(0.0, Ok(1)), (true, vec![Ok(1)]));
        assert_eq!(poll(100.0, Ok(1)), (true, vec![Ok(1)]), "the same value is news: replicas may have changed since");
        assert_eq!(poll(200.0, Err("gone")), (true, vec![Err("gone".to_owned())]));
        assert_eq!(poll(300.0, Err("gone")), (false, vec![Err("gone".to_owned())]));
        assert_eq!(poll(400.0, Err("still gone")), (true, vec![Err("still gone".to_owned())]));
        assert_eq!(poll(500.0, Ok(2)), (true, vec![Ok(2)]));
    }

    #[test]
    fn what_nobody_asks_any_more_ends() {
        let mut played = Played::new();
        played.want("a", &[external("x"), external("y")]);
        played.want("b", &[external("y")]);
        let polls: Vec<PollId> = std::iter::from_fn(|| played.take(0.0)).collect();
        played.arrived(polls[1], 0.1, Ok(2));
        // x is under way when it is no longer wanted.
        played.want("a", &[external("z"), external("y")]);
        assert_eq!(played.arrived(polls[0], 0.2, Ok(1)), Vec::<String>::new());
        assert_eq!(played.answers("a", 0.2), [Err("no answer has come yet".to_owned()), Ok(2)], "y is kept");
        assert_eq!(played.schedule.polls.len(), 2);
        played.want("a", &[]);
        played.want("b", &[]);
        let Schedule { workloads, polls, ids, due, .. } = &played.schedule;
        assert!(workloads.is_empty() && polls.is_empty() && ids.is_empty() && due.is_empty());
        // And starts anew when it is wanted again.
        played.want("b", &[external("y")]);
        assert_eq!(played.answers("b", 0.2), [Err("no answer has come yet".to_owned())]);
        assert!(played.take(0.2).is_some());
    }

    #[test]
    fn asking_for_the_same_again_changes_nothing() {
        let mut played = Played::new();
        played.want("a", &[external("x")]);
        let id = played.take(0.0).expect("due");
        played.want("a", &[external("x")]);
        assert_eq!(played.take(0.0), None, "it is under way");
        played.arrived(id, 0.1, Ok(1));
        played.want("a", &[external("x")]);
        assert_eq!(played.take(0.1), None);
        assert_eq!(played.answers("a", 0.1), [Ok(1)]);
    }

    #[test]
    fn resources_of_the_same_pods_are_one_request() {
        let mut played = Played::new();
        played.want("a", &[usage("cpu"), usage("memory"), usage("cpu")]);
        let id = played.take(0.0).expect("due");
        assert_eq!(played.take(0.0), None);
        let pods = r#"[{"metadata":{"name":"p"},"window":"15s","containers":[{"name":"c","usage":{"cpu":"1","memory":"lots"}}]}]"#;
        let pods = Fetched::PodUsage(serde_json::from_str(pods).expect("pods"));
        let now = played.at(0.0);
        assert_eq!(played.schedule.arrived(id, Ok(pods), now, Timestamp::UNIX_EPOCH), [key("a")]);
        let answers = played.schedule.answers(&key("a"), now);
        assert!(matches!(&answers[0].result, Ok(Samples::Resource(pods)) if pods["p"].containers["c"] == Some(1000)));
        assert!(answers[1].result.is_err(), "memory cannot be read, which does not harm cpu");
        assert_eq!(answers[0], answers[2]);
    }

    #[test]
    fn a_wrong_metric_is_answered_without_asking() {
        let mut played = Played::new();
        let selector = LabelSelector {
            match_labels: Some([("a b".to_owned(), String::new())].into()),
            ..LabelSelector::default()
        };
        let metric = Metric::Resource { selector, name: "cpu".to_owned() };
        played.want("a", &[metric, external("x")]);
        assert!(played.take(0.0).is_some());
        assert_eq!(played.take(0.0), None);
        let told = played.answers("a", 0.0);
        assert_eq!(told[0], Err("invalid selector: \"a b\" is no key or value of a label".to_owned()));
    }
}
