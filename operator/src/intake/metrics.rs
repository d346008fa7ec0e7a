//! Metrics of the intake.

use std::time::Duration;

use catamaran_protocol::stream::rates::Restart;
use prometheus_client::{
    encoding::EncodeLabelValue,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{hooks::Placed, store::Swept};

/// What the intake counts. Clones count together.
#[derive(Clone, Debug)]
pub struct IntakeMetrics {
    streams: Gauge,
    connections: Gauge,
    bytes: Counter,
    reports: Counter,
    superseded: Counter,
    samples: Counter,
    refused_streams: Family<Reason<Refused>, Counter>,
    ended_streams: Family<Reason<EndReason>, Counter>,
    refused_samples: Family<Reason<RefusedSample>, Counter>,
    restarts: Family<Reason<RestartReason>, Counter>,
    reviews: Family<Outcome, Counter>,
    certificates: Family<Outcome, Counter>,
    certificate: Gauge,
    pods: Gauge,
    stale: Gauge,
    age: Histogram,
    gap: Histogram,
    clock_offset: Histogram,
}

/// One label, `reason`.
type Reason<R> = [(&'static str, R); 1];
/// One label, `outcome`.
type Outcome = [(&'static str, Worked); 1];

fn by<R>(reason: R) -> Reason<R> {
    [("reason", reason)]
}

fn outcome(success: bool) -> Outcome {
    [("outcome", if success { Worked::Success } else { Worked::Failure })]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Worked {
    Success,
    Failure,
}

/// Why a stream was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refused {
    /// No bearer token, or none that can be one.
    NoToken,
    /// The API server does not accept the token.
    Token,
    /// The token is of another account.
    Account,
    /// The token is bound to no node.
    Unbound,
    /// The stream is for another node than the token.
    Node,
    /// The token cannot be reviewed now.
    Review,
    /// There are as many streams as may be.
    Busy,
    /// The first message is no proper hello, or did not come.
    Hello,
}

impl Refused {
    const ALL: [Self; 8] =
        [Self::NoToken, Self::Token, Self::Account, Self::Unbound, Self::Node, Self::Review, Self::Busy, Self::Hello];
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum EndReason {
    /// By its agent.
    Closed,
    /// The connection broke.
    Lost,
    /// A newer stream of the node took over.
    Replaced,
    /// Nothing came for too long.
    Idle,
    /// The token is no longer accepted.
    Token,
    /// The token could not be reviewed for too long.
    Review,
    /// A message was not the protocol.
    Malformed,
    /// A message was too large.
    Oversized,
    /// The operator stops.
    Stopped,
}

/// Why a sample was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum RefusedSample {
    UnknownPod,
    OtherNode,
    OtherUid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum RestartReason {
    CounterReset,
    Implausible,
    ClockReset,
    ClockDisagrees,
    Gap,
}

impl IntakeMetrics {
    /// Registers all of them, below `usage` in the names.
    pub fn register(registry: &mut Registry) -> Self {
        let age = Histogram::new([0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]);
        let gap = Histogram::new([0.5, 0.9, 1.1, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]);
        let clock_offset = Histogram::new([0.1, 1.0, 5.0, 30.0, 300.0, 3600.0]);
        let metrics = Self {
            streams: Gauge::default(),
            connections: Gauge::default(),
            bytes: Counter::default(),
            reports: Counter::default(),
            superseded: Counter::default(),
            samples: Counter::default(),
            refused_streams: Family::default(),
            ended_streams: Family::default(),
            refused_samples: Family::default(),
            restarts: Family::default(),
            reviews: Family::default(),
            certificates: Family::default(),
            certificate: Gauge::default(),
            pods: Gauge::default(),
            stale: Gauge::default(),
            age,
            gap,
            clock_offset,
        };
        let m = &metrics;
        // There from the start: the first one of a series that begins with it would be lost to rate().
        for reason in Refused::ALL {
            drop(m.refused_streams.get_or_create(&by(reason)));
        }
        for success in [true, false] {
            drop(m.reviews.get_or_create(&outcome(success)));
            drop(m.certificates.get_or_create(&outcome(success)));
        }
        let registry = registry.sub_registry_with_prefix("usage");
        registry.register("streams", "Streams of node agents that are open", m.streams.clone());
        registry.register("connections", "Connections of node agents that are open", m.connections.clone());
        registry.register_with_unit(
            "received",
            "Received from node agents, TLS included",
            Unit::Bytes,
            m.bytes.clone(),
        );
        registry.register("reports", "Reports taken", m.reports.clone());
        registry.register("superseded_reports", "Reports that a newer one superseded", m.superseded.clone());
        registry.register("samples", "Readings of containers recorded", m.samples.clone());
        registry.register("refused_streams", "Streams not taken, by reason", m.refused_streams.clone());
        registry.register("ended_streams", "Streams ended, by reason", m.ended_streams.clone());
        registry.register("refused_pod_samples", "Readings of pods not taken, by reason", m.refused_samples.clone());
        registry.register(
            "series_restarts",
            "Readings of containers not compared with the ones before, by reason",
            m.restarts.clone(),
        );
        registry.register("token_reviews", "Tokens reviewed, by outcome", m.reviews.clone());
        registry.register("certificate_reads", "New certificates read, by outcome", m.certificates.clone());
        registry.register("certificate_in_use", "1 once there is a certificate to serve with", m.certificate.clone());
        registry.register("pods", "Pods in the store", m.pods.clone());
        registry.register("stale_pods", "Pods in the store whose usage is too old to count", m.stale.clone());
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "age",
            "Age of the usage of the pods in the store, looked at in regular intervals",
            seconds.clone(),
            m.age.clone(),
        );
        registry.register_with_unit(
            "report_interval",
            "Time between two reports of a stream",
            seconds.clone(),
            m.gap.clone(),
        );
        registry.register_with_unit(
            "node_clock_offset",
            "Difference between the clocks of nodes and of the operator, at each report",
            seconds,
            m.clock_offset.clone(),
        );
        metrics
    }

    /// A connection was opened; it counts until the guard is dropped.
    pub(super) fn connection(&self) -> Counting {
        Counting::new(&self.connections)
    }

    /// A stream was taken; it counts until the guard is dropped.
    pub(super) fn stream(&self) -> Counting {
        Counting::new(&self.streams)
    }

    /// So many bytes were received.
    pub(super) fn received(&self, bytes: usize) {
        self.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// A report was taken, `gap` after the one before it.
    pub(super) fn report(&self, gap: Option<Duration>, clock_offset: Duration) {
        self.reports.inc();
        if let Some(gap) = gap {
            self.gap.observe(gap.as_secs_f64());
        }
        self.clock_offset.observe(clock_offset.as_secs_f64());
    }

    /// A report was superseded by the next one.
    pub(super) fn superseded(&self) {
        self.superseded.inc();
    }

    /// So many readings of containers were recorded.
    pub(super) fn recorded(&self, samples: u64) {
        self.samples.inc_by(samples);
    }

    /// A series started again.
    pub(super) fn restarted(&self, restart: Restart) {
        let reason = match restart {
            Restart::CounterReset => RestartReason::CounterReset,
            Restart::Implausible => RestartReason::Implausible,
            Restart::ClockReset => RestartReason::ClockReset,
            Restart::ClockDisagrees => RestartReason::ClockDisagrees,
            Restart::Gap => RestartReason::Gap,
        };
        self.restarts.get_or_create(&by(reason)).inc();
    }

    /// The reading of a pod was refused, unless it is where it should be.
    pub(super) fn placed(&self, placed: Placed) {
        let reason = match placed {
            Placed::Here => return,
            Placed::Unknown => RefusedSample::UnknownPod,
            Placed::OtherNode => RefusedSample::OtherNode,
            Placed::OtherUid => RefusedSample::OtherUid,
        };
        self.refused_samples.get_or_create(&by(reason)).inc();
    }

    /// A stream was not taken.
    pub(super) fn refused(&self, reason: Refused) {
        self.refused_streams.get_or_create(&by(reason)).inc();
    }

    /// A stream ended.
    pub(super) fn ended(&self, reason: EndReason) {
        self.ended_streams.get_or_create(&by(reason)).inc();
    }

    /// A token was reviewed, or could not be.
    pub(super) fn reviewed(&self, success: bool) {
        self.reviews.get_or_create(&outcome(success)).inc();
    }

    /// A changed certificate was read, or could not be.
    pub(super) fn certificate(&self, success: bool) {
        self.certificates.get_or_create(&outcome(success)).inc();
    }

    /// There is a certificate to serve with. Later ones that cannot be used leave it in use.
    pub(super) fn first_certificate(&self) {
        self.certificate.set(1);
    }

    /// Whether there is a certificate to serve with.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        self.certificate.get() == 1
    }

    /// The store was looked through.
    pub(super) fn swept(&self, swept: &Swept) {
        self.pods.set(i64::try_from(swept.ages.len()).unwrap_or(i64::MAX));
        self.stale.set(i64::try_from(swept.stale).unwrap_or(i64::MAX));
        for age in &swept.ages {
            self.age.observe(age.as_secs_f64());
        }
    }
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub(super) struct Counting(Gauge);

impl Counting {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.dec();
    }
}
