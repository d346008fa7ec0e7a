//! Sources of metrics other than the agents' push: metrics.k8s.io, custom.metrics.k8s.io, external.metrics.k8s.io and
//! Prometheus.
//!
//! [`Sources`] is their front: workloads say what they [want](Sources::want), it is asked for at intervals, and the
//! last answers are [kept](Sources::answers). Equal questions of several workloads are asked once. What fails, fails in
//! the words of the HPA's client, and holds until the next poll.
//!
//! ```text
//! want -> schedule -> turns, breaker -> resource | custom | external | prometheus (secrets)
//!                                           -> schedule -> arrival, answers
//! ```

mod api;
mod backend;
mod breaker;
mod custom;
mod discovery;
mod external;
mod failure;
mod metrics;
pub mod prometheus;
mod quantity;
mod query;
mod resource;
mod schedule;
mod secrets;
mod turns;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use catamaran_autoscale::samples::{NoSamples, Samples};
use jiff::Timestamp;
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

pub use query::{KeyOf, Metric, PrometheusMetric};
pub use schedule::Answer;

use crate::stores::WorkloadKey;
use backend::Backend;
use breaker::Breakers;
use custom::Custom;
use failure::Failure;
use metrics::{Ended, SourceMetrics};
use prometheus::{InstantQuery, Prometheus, PrometheusSettings};
use query::{Request, Source};
use schedule::{Fetched, PollId, Schedule};
use secrets::Secrets;
use turns::{Turn, Turns};

/// How long it is from one question to its next: metrics-server has new figures every 15 s, and the HPA looks every 15
/// s.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long one question waits for its answer, if the interval is not shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often what nobody needs any more is cleared away.
const CLEAR_EVERY: Duration = Duration::from_secs(300);
/// How many questions of one namespace are under way at once, to all servers together: it may name as many as it likes.
const OF_A_NAMESPACE: usize = 64;

/// The sources of metrics, as workloads see them. A clone is the same.
#[derive(Clone)]
pub struct Sources {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something may be due sooner.
    changed: Notify,
    /// Somebody is to hear of an answer.
    news: Notify,
    /// By namespace.
    connections: Mutex<HashMap<String, Arc<Semaphore>>>,
    breakers: Breakers,
    backends: Backends,
    metrics: SourceMetrics,
}

struct State {
    schedule: Schedule,
    /// Who is to hear of an answer; each once, so that a slow listener costs no memory.
    to_hear: BTreeSet<WorkloadKey>,
}

/// The clients of the sources.
struct Backends {
    client: Client,
    custom: Custom,
    prometheus: Prometheus,
    secrets: Secrets,
}

impl Sources {
    /// With connections of its own to an API server: the client of the rest of the operator repeats what was refused
    /// with 503 for minutes, while here the next poll does that, and words are wanted at once. Asks nothing before
    /// [`Self::run`].
    ///
    /// The configuration's user needs `list` of pods in metrics.k8s.io, `get` of everything in custom.metrics.k8s.io,
    /// `list` of everything in external.metrics.k8s.io, and `get` of the Secrets that Prometheus metrics name.
    ///
    /// # Errors
    /// When the configuration is wrong.
    // A kube::Error is large, and this happens once.
    #[allow(clippy::result_large_err)]
    pub fn connect(config: &Config, prometheus: PrometheusSettings) -> Result<Self, kube::Error> {
        let mut config = config.clone();
        config.default_retry = false;
        Ok(Self::new(Client::try_from(config)?, prometheus))
    }

    /// With a client that does not repeat what is refused; see [`Self::connect`].
    #[must_use]
    pub fn new(client: Client, prometheus: PrometheusSettings) -> Self {
        let backends = Backends {
            custom: Custom::new(client.clone()),
            prometheus: Prometheus::new(prometheus),
            secrets: Secrets::new(client.clone()),
            client,
        };
        let shared = Shared {
            state: Mutex::new(State { schedule: Schedule::new(INTERVAL), to_hear: BTreeSet::new() }),
            changed: Notify::new(),
            news: Notify::new(),
            connections: Mutex::default(),
            breakers: Breakers::default(),
            backends,
            metrics: SourceMetrics::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// With another interval than 15 s, for tests. To be set before anything is wanted.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        self.shared.state().schedule = Schedule::new(interval);
        self
    }

    /// Registers what is counted of the questions.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// Sets what a workload asks, in place of what it asked before; an empty list ends it. Asking for the same again
    /// costs nothing.
    pub fn want(&self, workload: &WorkloadKey, metrics: Vec<Metric>) {
        self.shared.state().schedule.want(workload, metrics, Instant::now());
        self.shared.changed.notify_one();
    }

    /// The last answers to what a workload asks, in the order of its metrics. An answer is used for three intervals at
    /// most.
    #[must_use]
    pub fn answers(&self, workload: &WorkloadKey) -> Vec<Answer> {
        self.shared.state().schedule.answers(workload, Instant::now())
    }

    /// Waits for a workload that has a new answer: samples, or another error than before. For one listener; nothing is
    /// lost when the future is dropped.
    pub async fn arrival(&self) -> WorkloadKey {
        loop {
            if let Some(workload) = self.shared.state().to_hear.pop_first() {
                return workload;
            }
            self.shared.news.notified().await;
        }
    }

    /// Asks, until the future is dropped.
    pub async fn run(&self) {
        let mut asking = JoinSet::new();
        let mut under_way = HashMap::new();
        let mut turns: Turns<Backend, (PollId, Arc<Request>)> = Turns::new();
        let mut clear = tokio::time::interval(CLEAR_EVERY);
        loop {
            while let Some((id, request)) = self.shared.take_due() {
                let backend = Backend::from(&*request);
                turns.wait(&backend, backend.bounds(), &request.namespace.clone(), (id, request));
            }
            while let Some(Turn { server, namespace, question: (id, request) }) = turns.next() {
                let (shared, backend) = (self.shared.clone(), server.clone());
                let task = asking.spawn(async move { shared.ask(&request, &backend).await });
                under_way.insert(task.id(), (id, server, namespace));
            }
            let next = self.shared.state().schedule.next_due();
            tokio::select! {
                Some(done) = asking.join_next_with_id() => {
                    let (task, outcome) = match done {
                        Ok((task, outcome)) => (task, outcome),
                        // It panicked: that must not end the others, nor the poll.
                        Err(error) => (error.id(), Err(NoSamples(format!("asking the source failed: {error}")))),
                    };
                    if let Some((id, server, namespace)) = under_way.remove(&task) {
                        turns.end(&server, &namespace);
                        self.shared.arrived(id, outcome);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = self.shared.changed.notified() => {}
                _ = clear.tick() => self.shared.clear(),
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_due(&self) -> Option<(PollId, Arc<Request>)> {
        self.state().schedule.take(Instant::now())
    }

    fn arrived(&self, id: PollId, outcome: Result<Fetched, NoSamples>) {
        let mut state = self.state();
        let hear = state.schedule.arrived(id, outcome, Instant::now(), Timestamp::now());
        let news = !hear.is_empty();
        state.to_hear.extend(hear);
        drop(state);
        if news {
            self.news.notify_one();
        }
    }

    fn clear(&self) {
        let wanted: HashSet<Backend> = self.state().schedule.requests().map(Backend::from).collect();
        self.breakers.retain(|backend| wanted.contains(backend));
        // Those that a question holds stay.
        self.connections().retain(|_, connections| Arc::strong_count(connections) > 1);
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, request: &Request, backend: &Backend) -> Result<Fetched, NoSamples> {
        let connections = self
            .connections()
            .entry(request.namespace.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(OF_A_NAMESPACE)))
            .clone();
        // Fails only when it is closed, which it never is.
        let _connection = connections.acquire().await;
        if let Err(down) = self.breakers.check(backend, Instant::now()) {
            self.metrics.ended(backend, Ended::Withheld);
            return Err(down.into());
        }
        let within = ANSWER_WITHIN.min(self.state().schedule.interval());
        let outcome = timeout(within, self.backends.ask(request)).await.unwrap_or_else(|_| {
            Err(Failure::Answered(format!("{backend} gave no answer within {} s", within.as_secs())))
        });
        self.metrics.ended(backend, Ended::from(&outcome));
        self.breakers.note(backend, &outcome, Instant::now());
        Ok(outcome?)
    }
}

impl Backends {
    async fn ask(&self, request: &Request) -> Result<Fetched, Failure> {
        let (client, namespace) = (&self.client, &*request.namespace);
        match &request.source {
            Source::PodUsage { selector } => {
                return resource::pod_usage(client, namespace, selector).await.map(Fetched::PodUsage);
            }
            Source::Pods { selector, metric, metric_selector } => {
                self.custom.pods(namespace, selector, metric, metric_selector).await
            }
            Source::Object { object, metric, metric_selector } => {
                self.custom.object(namespace, object, metric, metric_selector).await
            }
            Source::External { metric, metric_selector } => {
                external::series(client, namespace, metric, metric_selector).await
            }
            Source::Prometheus { url, query, ca, bearer_token } => {
                let ca = match ca {
                    Some(key) => Some(self.secrets.bytes(key).await?),
                    None => None,
                };
                let token = match bearer_token {
                    Some(key) => Some(self.secrets.text(key).await?),
                    None => None,
                };
                let query = InstantQuery { url, query, ca: ca.as_ref(), bearer_token: token.as_ref() };
                self.prometheus.ask(&query).await.map(Samples::Value).map_err(|refused| {
                    if refused.unauthorized {
                        // It may have been rotated.
                        bearer_token.iter().for_each(|key| self.secrets.forget(key));
                    }
                    refused.failure.within("unable to fetch the metric from Prometheus")
                })
            }
        }
        .map(Fetched::Samples)
    }
}
