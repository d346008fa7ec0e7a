//! The usage of pods, as last reported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use catamaran_protocol::stream::{
    identity::PodIdentity,
    rates::{Point, Pushed, Rates, Series, Window},
    snapshot::PodReading,
};
use dashmap::DashMap;

/// How long usage counts, and over which time rates are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The time that rates are averages of.
    pub window: Duration,
    /// After so long without a new reading a pod has no usage.
    pub stale_after: Duration,
    /// After so long without a new reading a pod is forgotten.
    pub retention: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self { window: Duration::from_secs(3), stale_after: Duration::from_secs(5), retention: Duration::from_secs(60) }
    }
}

/// The usage of every reported pod. Clones share one store; it may be read and written from many threads at once.
#[derive(Clone, Debug)]
pub struct UsageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    keep: Keep,
    /// By `namespace/name`; neither has a slash.
    pods: DashMap<Box<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodIdentity>,
    node: Arc<str>,
    arrived: Duration,
    /// In the order of the pod's containers.
    series: Vec<Series>,
}

/// What a pod uses now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// Which pod; a consumer that knows the uid should compare it.
    pub pod: Arc<PodIdentity>,
    /// The node that reported it.
    pub node: Arc<str>,
    /// For how long it has been known: the time since its arrival, by a clock that never steps.
    pub age: Duration,
    /// In the order of [`PodIdentity::containers`].
    containers: Vec<ContainerUsage>,
}

/// What one container uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Its working set.
    pub memory_working_set_bytes: u64,
    /// CPU, throttling and pressure; `None` until there are two readings to compare.
    pub rates: Option<Rates>,
}

impl PodUsage {
    /// The containers by name.
    pub fn containers(&self) -> impl Iterator<Item = (&str, &ContainerUsage)> {
        self.pod.containers().iter().map(|container| container.name()).zip(&self.containers)
    }
}

/// One report's share in what is recorded: who read it, and when.
#[derive(Clone, Debug)]
pub struct Reading<'a> {
    /// The node.
    pub node: &'a Arc<str>,
    /// The life of the node's clock.
    pub clock: u64,
    /// When, by the node's steady clock.
    pub taken: Duration,
    /// When it arrived, by [`UsageStore::now`].
    pub arrived: Duration,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The age of each pod's usage, those that stay.
    pub ages: Vec<Duration>,
    /// Pods that stay but have no usage any more.
    pub stale: usize,
    /// Pods that were forgotten.
    pub forgotten: usize,
}

impl UsageStore {
    /// An empty store.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { inner: Arc::new(Inner { started: Instant::now(), keep, pods: DashMap::new() }) }
    }

    /// The time by the store's clock, which never steps.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// What a pod uses, unless nothing was reported lately.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodUsage> {
        self.pod_at(namespace, name, self.now())
    }

    /// The same at a given time of the store's clock.
    #[must_use]
    pub fn pod_at(&self, namespace: &str, name: &str, now: Duration) -> Option<PodUsage> {
        self.last_at(namespace, name, now).filter(|usage| !self.is_late(usage))
    }

    /// What a pod used when it was last reported, as long as that is kept: for people, who see its age.
    #[must_use]
    pub fn last(&self, namespace: &str, name: &str) -> Option<PodUsage> {
        self.last_at(namespace, name, self.now())
    }

    /// Whether usage is so old that nothing is decided on it.
    #[must_use]
    pub fn is_late(&self, usage: &PodUsage) -> bool {
        usage.age > self.inner.keep.stale_after
    }

    fn last_at(&self, namespace: &str, name: &str, now: Duration) -> Option<PodUsage> {
        let entry = self.inner.pods.get(key(namespace, name).as_ref())?;
        let age = now.saturating_sub(entry.arrived);
        let containers = entry.series.iter().map(|series| ContainerUsage {
            memory_working_set_bytes: series.newest().map_or(0, |point| point.counters.memory_working_set_bytes),
            rates: series.rates(),
        });
        Some(PodUsage { pod: entry.pod.clone(), node: entry.node.clone(), age, containers: containers.collect() })
    }

    /// How many pods are kept, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.pods.len()
    }

    /// Whether no pod is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.pods.is_empty()
    }

    /// Adds the reading of one pod; `seen` is told what it did to each container's series.
    pub fn record(&self, reading: &Reading<'_>, pod: &PodReading, mut seen: impl FnMut(Pushed)) {
        let Keep { window, stale_after, retention: _ } = self.inner.keep;
        let window = Window { length: window, longest_gap: stale_after.max(window) };
        let identity = pod.pod();
        let mut entry = self.inner.pods.entry(key(identity.namespace(), identity.name())).or_insert_with(|| Entry {
            pod: identity.clone(),
            node: reading.node.clone(),
            arrived: reading.arrived,
            series: vec![Series::default(); identity.containers().len()],
        });
        if !Arc::ptr_eq(&entry.pod, identity) {
            entry.become_pod(identity);
        }
        entry.node = reading.node.clone();
        // What was read before is not news, however late it is told.
        let mut new = pod.counters().is_empty();
        for (series, counters) in entry.series.iter_mut().zip(pod.counters()) {
            let point = Point { taken: reading.taken, arrived: reading.arrived, counters: *counters };
            let pushed = series.push(reading.clock, point, window);
            new |= pushed != Pushed::Repeated;
            seen(pushed);
        }
        if new {
            entry.arrived = reading.arrived;
        }
    }

    /// Forgets a pod that its node no longer has.
    pub fn remove(&self, node: &str, pod: &PodIdentity) {
        self.inner.pods.remove_if(key(pod.namespace(), pod.name()).as_ref(), |_, entry| {
            *entry.node == *node && entry.pod.uid() == pod.uid()
        });
    }

    /// Forgets the pods that have not been reported for too long.
    pub fn sweep(&self, now: Duration) -> Swept {
        let mut swept = Swept::default();
        self.inner.pods.retain(|_, entry| {
            let age = now.saturating_sub(entry.arrived);
            let stays = age <= self.inner.keep.retention;
            if stays {
                swept.ages.push(age);
                swept.stale += usize::from(age > self.inner.keep.stale_after);
            } else {
                swept.forgotten += 1;
            }
            stays
        });
        swept
    }
}

impl Entry {
    /// The same pod told again, with other containers perhaps, or another pod of the same name. What goes on is kept.
    fn become_pod(&mut self, pod: &Arc<PodIdentity>) {
        let same = self.pod.uid() == pod.uid();
        let mut before = std::mem::take(&mut self.series);
        let series = pod.containers().iter().map(|container| {
            let position = self.pod.containers().iter().position(|other| same && other == container);
            position.and_then(|position| before.get_mut(position)).map(std::mem::take).unwrap_or_default()
        });
        self.series = series.collect();
        self.pod = pod.clone();
    }
}

fn key(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}
