//! What workloads used and had reserved, hour by hour: the answer of the operator's `GET /accounts`, which `kubectl
//! catamaran bill` charges. It is JSON, and no object of the Kubernetes API.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use catamaran_crds::Hull;

/// The accounts of a period, in order of hour, namespace, workload, class and hull.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accounts {
    /// The process that answers; another one has a ledger of its own.
    pub replica: String,
    /// Since when it has kept its ledger. What was used before is not in it.
    pub since: Timestamp,
    /// One for each hour and account.
    pub items: Vec<HourOfAccount>,
    /// There is more: to be sent back as the parameter `continue`.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_: Option<String>,
}

/// One hour of one workload, with one class and one hull.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HourOfAccount {
    /// When the hour begins.
    pub start: Timestamp,
    /// The namespace.
    pub namespace: String,
    /// The ElasticWorkload.
    pub workload: String,
    /// Its WorkloadClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What its replicas are.
    pub hull: Hull,
    /// How much.
    #[serde(flatten)]
    pub amounts: HourAmounts,
}

/// Amounts of one hour. Sums are exact to a microsecond, and to a KiB-second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HourAmounts {
    /// CPU time used, in microseconds.
    pub cpu_usage_usec: u64,
    /// Memory used over time (the working set), in KiB-seconds.
    pub memory_usage_kib_seconds: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
    /// CPU requested over time, in microseconds of CPU time.
    pub cpu_requested_usec: u64,
    /// Memory requested over time, in KiB-seconds.
    pub memory_requested_kib_seconds: u64,
    /// The time that replicas existed, in microseconds, summed over replicas.
    pub replica_usec: u64,
    /// The part of it over which memory was read, in microseconds.
    pub metered_usec: u64,
}
