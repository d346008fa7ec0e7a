//! Metrics in the OpenMetrics text format.

use std::{
    cmp::Ordering,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catamaran_plan::autoscale::Decision;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

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
    decisions: Family<DecisionLabels, Counter>,
    scales: Family<ScaleLabels, Counter>,
    reaction: Histogram,
}

/// A verb of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Verb {
    /// Server-side apply.
    Apply,
    /// Merge patch, or apply of a status.
    Patch,
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
struct DecisionLabels {
    /// `up`, `down` or `stay`.
    outcome: &'static str,
    /// What made the number, one word of a fixed list.
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScaleLabels {
    /// `up` or `down`.
    direction: &'static str,
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
        let mut registry = Registry::with_prefix("catamaran");
        let seconds = Unit::Seconds;
        registry.register_with_unit("reconcile_duration", "Time of one reconcile", seconds, reconcile.clone());
        registry.register("reconcile_errors", "Reconciles that failed, by class of error", errors.clone());
        registry.register("writes", "Requests to the API server that write, by kind and verb", writes.clone());
        registry.register("queue_depth", "Workloads that wait for a reconcile", depth.clone());
        registry.register("workloads", "ElasticWorkloads by hull and state", workloads.clone());
        registry.register("leader", "1 while this process holds the lease", leader.clone());
        let (decisions, scales) = (Family::default(), Family::default());
        // From ten milliseconds to a minute: what the HPA takes.
        let reaction = Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0]);
        registry.register("scaling_decisions", "Decisions of scaling, by outcome and what made it", decisions.clone());
        registry.register("scaling_changes", "Changes of a count that were written, by direction", scales.clone());
        registry.register_with_unit(
            "scaling_reaction",
            "Time from the news that changes a count until it is written",
            Unit::Seconds,
            reaction.clone(),
        );
        let registry = Mutex::new(registry);
        let inner =
            Inner { registry, reconcile, errors, writes, depth, workloads, leader, decisions, scales, reaction };
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

    /// A decision was made.
    pub fn decided(&self, decision: &Decision) {
        let labels = DecisionLabels { outcome: outcome(decision), reason: decision.reason() };
        self.inner.decisions.get_or_create(&labels).inc();
    }

    /// The count of a decision was written.
    pub fn scaled(&self, decision: &Decision) {
        self.inner.scales.get_or_create(&ScaleLabels { direction: outcome(decision) }).inc();
    }

    /// From the news to the written count.
    pub fn reacted(&self, duration: Duration) {
        self.inner.reaction.observe(duration.as_secs_f64());
    }

    /// Lets a part of the operator register its own metrics.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner))
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

fn outcome(decision: &Decision) -> &'static str {
    match decision.to.cmp(&decision.from) {
        Ordering::Greater => "up",
        Ordering::Less => "down",
        Ordering::Equal => "stay",
    }
}
