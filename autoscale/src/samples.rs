//! What a metrics source answers: the input of a decision that comes from outside the cluster's objects.
//!
//! Values are in thousandths (milli): of a core for cpu, of a byte for memory, of the unit for every other metric. That
//! is what autoscaling/v2 computes with (`resource.Quantity.MilliValue`), so a decision is the same to the last digit.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// More CPU than any machine has, in cores: whoever says that something uses or needs more is wrong.
pub const MOST_CORES: i64 = 1_000_000;
/// More memory than any machine has, in bytes: 4 PiB.
pub const MOST_BYTES: i64 = 1 << 52;

/// The answer for one metric of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// For Resource and ContainerResource metrics: by pod name.
    Resource(BTreeMap<String, ResourceSample>),
    /// For Pods metrics: by pod name. For Pressure and Throttling as well: the value is the share of the window in
    /// which the pod stalled or was throttled, in thousandths of a percent (100,000 is all of it).
    Pods(BTreeMap<String, PodSample>),
    /// For Object metrics: the value of the object, in thousandths. For Prometheus as well: the answer to the query.
    Value(i64),
    /// For External metrics: one value a series, in thousandths.
    Series(Vec<i64>),
}

/// What the containers of one pod use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSample {
    /// In thousandths, by container name; `None`: the container is listed, but not this resource of it.
    pub containers: BTreeMap<String, Option<i64>>,
    /// When the usage was read.
    pub taken: Timestamp,
    /// Over which time, ending at `taken`, a rate was computed.
    pub window: SignedDuration,
}

/// One value of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSample {
    /// In thousandths.
    pub value: i64,
    /// When it was read.
    pub taken: Timestamp,
    /// Over which time, ending at `taken`, it was computed.
    pub window: SignedDuration,
}

/// Why a source gave no answer for a metric. An empty answer is one, too (`no metrics returned`), as for the HPA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSamples(pub String);
