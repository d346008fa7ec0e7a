//! Metrics in the OpenMetrics text format.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catamaran_protocol::stream::reporter::Status;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{enforce::Round, hold::Why, node::Cgroups, sample::Sampled};

/// All metrics of the agent. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pods: Gauge,
    containers: Gauge,
    missing: Gauge,
    samples: Counter,
    late: Counter,
    read_errors: Counter,
    sample_duration: Histogram,
    cgroup_version: Gauge,
    kubelet_folders: Gauge,
    held: Gauge,
    writes: Family<WriteLabels, Counter>,
    unenforced: Family<KnobLabels, Gauge>,
    refused: Gauge,
    note_errors: Counter,
    watch_errors: Counter,
    replicas: Gauge,
    connected: Gauge,
    reports: Counter,
    push_errors: Counter,
    /// As they were counted last.
    streams: Arc<Mutex<BTreeMap<SocketAddr, Status>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    file: &'static str,
    /// `apply`, `reassert` or `undo`.
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KnobLabels {
    knob: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("catamaran_agent");
        // From a tenth of a millisecond to ten seconds.
        let sample_duration = Histogram::new([0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0]);
        let metrics = Self {
            registry: Arc::default(),
            pods: gauge(&mut registry, "pods", "Pods of this node"),
            containers: gauge(&mut registry, "containers", "Containers in the last sample"),
            missing: gauge(&mut registry, "missing_containers", "Containers that run and whose cgroup is not found"),
            samples: counter(&mut registry, "samples", "Samples of all containers that were taken"),
            late: counter(&mut registry, "late_samples", "Samples that came more than half an interval late"),
            read_errors: counter(&mut registry, "read_errors", "Files of cgroups that could not be read"),
            cgroup_version: gauge(
                &mut registry,
                "cgroup_version",
                "2, or 1 where nothing is sampled, or 0 without cgroups",
            ),
            kubelet_folders: gauge(&mut registry, "kubelet_folders", "Folders of all pods (kubepods) that were found"),
            held: gauge(&mut registry, "held_knobs", "Values in cgroups that are held"),
            writes: Family::default(),
            unenforced: Family::default(),
            refused: gauge(&mut registry, "refused_annotations", "Quota annotations that are refused"),
            note_errors: counter(
                &mut registry,
                "note_errors",
                "Rounds in which a cgroup took no note of what to set back",
            ),
            watch_errors: counter(&mut registry, "watch_errors", "Failures of the watch of pods"),
            replicas: gauge(&mut registry, "operator_replicas", "Replicas of the operator that are known"),
            connected: gauge(&mut registry, "connected_replicas", "Those of them that answer on a stream"),
            reports: counter(&mut registry, "acknowledged_reports", "Reports that replicas of the operator took"),
            push_errors: counter(&mut registry, "push_errors", "Streams to replicas that ended or could not be opened"),
            streams: Arc::default(),
            sample_duration: sample_duration.clone(),
        };
        registry.register_with_unit("sample_duration", "Time that one sample takes", Unit::Seconds, sample_duration);
        registry.register("knob_writes", "Values written into cgroups, by file and reason", metrics.writes.clone());
        registry.register("unenforced_knobs", "Parts of quotas that are not held as asked", metrics.unenforced.clone());
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

impl Metrics {
    /// A sample was taken.
    pub fn sampled(&self, pods: usize, sampled: &Sampled, duration: Duration, late: bool) {
        self.samples.inc();
        self.late.inc_by(u64::from(late));
        self.read_errors.inc_by(sampled.errors);
        self.sample_duration.observe(duration.as_secs_f64());
        self.pods.set(count(pods));
        self.containers.set(count(sampled.containers));
        self.missing.set(count(sampled.missing));
        self.kubelet_folders.set(count(sampled.bases));
    }

    /// Quotas were compared.
    pub fn held(&self, round: &Round) {
        for (slot, why) in &round.writes {
            let reason = match why {
                Why::Apply => "apply",
                Why::Reassert => "reassert",
                Why::Undo => "undo",
            };
            self.writes.get_or_create(&WriteLabels { file: slot.file(), reason }).inc();
        }
        self.held.set(count(round.held));
        self.refused.set(count(round.refused));
        self.note_errors.inc_by(u64::from(round.note_failed.is_some()));
        self.unenforced.clear();
        for part in round.states.values().flat_map(|state| &state.unenforced) {
            self.unenforced.get_or_create(&KnobLabels { knob: part.knob().as_str_name() }).inc();
        }
    }

    /// What the node is.
    pub fn cgroups(&self, cgroups: Cgroups) {
        self.cgroup_version.set(match cgroups {
            Cgroups::V2 => 2,
            Cgroups::V1 => 1,
            Cgroups::None => 0,
        });
    }

    /// The watch of pods failed.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// How it goes with the replicas of the operator; counters grow by what is new since the last call.
    pub fn pushed(&self, now: &BTreeMap<SocketAddr, Status>) {
        let mut before = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, status) in now {
            // A replica that comes back at its address after it was forgotten starts from zero.
            let last = before.get(address).cloned().unwrap_or_default();
            self.reports.inc_by(status.acknowledged.saturating_sub(last.acknowledged));
            self.push_errors.inc_by(status.failures.saturating_sub(last.failures));
        }
        self.replicas.set(count(now.len()));
        self.connected.set(count(now.values().filter(|status| status.connected).count()));
        before.clone_from(now);
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// When a metric cannot be formatted.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
