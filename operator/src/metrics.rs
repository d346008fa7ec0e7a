//! Metrics in the OpenMetrics text format.

pub mod accounting;
pub mod lease;
#[cfg(target_os = "linux")]
mod process;
mod scaling;
pub mod watches;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catamaran_autoscale::Decision;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use scaling::ScalingMetrics;

/// What the names of our own metrics begin with.
const PREFIX: &str = "catamaran";

/// All metrics of the operator.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Mutex<Registry>,
    reconcile: Histogram,
    errors: Family<ErrorLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    depth: Gauge,
    workloads: Family<WorkloadLabels, Gauge>,
    leader: Gauge,
    events_dropped: Counter,
    held: Counter,
    scaling: ScalingMetrics,
}

/// A verb of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Verb {
    /// Merge patch, or apply of a status.
    Patch,
    /// Put.
    Update,
    /// Post.
    Create,
    /// Delete.
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: String,
    verb: Verb,
}

/// What workloads are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WorkloadLabels {
    /// `container`, `virtualMachine`, or `unknown` before the first plan.
    pub hull: &'static str,
    /// `Ready`, `Reconciling`, `Stalled` or `NotReady`.
    pub state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond to a minute: a reconcile is a handful of API calls.
        let buckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
        let (reconcile, errors, writes) = (Histogram::new(buckets), Family::default(), Family::default());
        let (depth, workloads, leader) = (Gauge::default(), Family::default(), Gauge::default());
        let mut all = Registry::default();
        #[cfg(target_os = "linux")]
        all.register_collector(Box::new(process::ProcessCollector));
        let registry = all.sub_registry_with_prefix(PREFIX);
        let seconds = Unit::Seconds;
        registry.register_with_unit("reconcile_duration", "Time of one reconcile", seconds, reconcile.clone());
        registry.register("reconcile_errors", "Reconciles that failed, by class of error", errors.clone());
        registry.register("writes", "Requests to the API server that write, by kind and verb", writes.clone());
        registry.register("queue_depth", "Workloads that wait for a reconcile", depth.clone());
        registry.register("workloads", "ElasticWorkloads by hull and state", workloads.clone());
        registry.register("leader", "1 while this process holds the lease", leader.clone());
        let events_dropped = Counter::default();
        let help = "Events that were not written since too many of them waited";
        registry.register("events_dropped", help, events_dropped.clone());
        let held = Counter::default();
        let help = "Reconciles that wait since their workload or namespace is written too often";
        registry.register("reconciles_held", help, held.clone());
        // There from the start: the first one of a series that begins with it would be lost to rate().
        for class in ["conflict", "panic", "refused", "timeout", "transient"] {
            drop(errors.get_or_create(&ErrorLabels { class }));
        }
        let scaling = ScalingMetrics::register(registry);
        let registry = Mutex::new(all);
        let inner =
            Inner { registry, reconcile, errors, writes, depth, workloads, leader, events_dropped, held, scaling };
        Self { inner: Arc::new(inner) }
    }
}

impl Metrics {
    /// One reconcile took so long.
    pub fn reconciled(&self, duration: Duration) {
        self.inner.reconcile.observe(duration.as_secs_f64());
    }

    /// One reconcile failed.
    pub fn failed(&self, class: &'static str) {
        self.inner.errors.get_or_create(&ErrorLabels { class }).inc();
    }

    /// One write is sent.
    pub fn write(&self, verb: Verb, kind: &str) {
        self.inner.writes.get_or_create(&WriteLabels { kind: kind.to_owned(), verb }).inc();
    }

    /// An Event was dropped for newer ones.
    pub fn event_dropped(&self) {
        self.inner.events_dropped.inc();
    }

    /// A reconcile waits since its workload, or its namespace, is written too often.
    pub fn held(&self) {
        self.inner.held.inc();
    }

    /// The leader made a decision.
    pub fn decided(&self, decision: &Decision) {
        self.inner.scaling.decided(decision);
    }

    /// From the arrival of usage, or of an answer of a source, to the leader's decision on it.
    pub fn sampled(&self, to_decision: Duration) {
        self.inner.scaling.sampled(to_decision);
    }

    /// The count of a decision was written.
    pub fn scaled(&self, decision: &Decision) {
        self.inner.scaling.scaled(decision);
    }

    /// From the decision, and from what arrived before it, to the written count.
    pub fn reacted(&self, from_decision: Duration, from_sample: Option<Duration>) {
        self.inner.scaling.reacted(from_decision, from_sample);
    }

    /// Lets a part of the operator register its own metrics.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner);
        register(registry.sub_registry_with_prefix(PREFIX))
    }

    /// Lets a part of the operator be read when metrics are asked for; it gives full names.
    pub fn collect(&self, collector: Box<dyn prometheus_client::collector::Collector>) {
        self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(collector);
    }

    /// Whether this process holds the lease.
    pub fn leads(&self, leads: bool) {
        self.inner.leader.set(i64::from(leads));
    }

    /// The text of all metrics; `depth` and `workloads` are counted when asked.
    ///
    /// # Errors
    /// When a metric cannot be formatted.
    pub fn render(
        &self,
        depth: usize,
        workloads: impl Iterator<Item = WorkloadLabels>,
    ) -> Result<String, std::fmt::Error> {
        self.inner.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.inner.workloads.clear();
        for labels in workloads {
            self.inner.workloads.get_or_create(&labels).inc();
        }
        let mut text = String::new();
        encode(&mut text, &self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}
