//! What replicas use now: the answer of the operator's `GET /usage`, which `kubectl catamaran top` shows. It is JSON,
//! and no object of the Kubernetes API.
//!
//! A figure that nobody reports is absent. What is 0 was reported as 0.

use serde::{Deserialize, Serialize};

use catamaran_crds::Hull;

/// The usage of several workloads, by namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageList {
    /// One for each workload.
    pub items: Vec<WorkloadUsage>,
    /// There is more: to be sent back as the parameter `continue`.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub continue_: Option<String>,
}

/// The usage of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its replicas are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hull: Option<Hull>,
    /// How many replicas are wanted (`status.desiredReplicas`).
    pub desired_replicas: i32,
    /// How many are ready (`status.readyReplicas`).
    pub ready_replicas: i32,
    /// How many have a pod that is neither terminating nor ended.
    pub replicas: u32,
    /// Those of them that a node agent reports.
    pub by_agent: u32,
    /// Those of them whose usage is from metrics.k8s.io.
    pub by_metrics_api: u32,
    /// How long ago the oldest of the agents' figures was read, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents_age_seconds: Option<f64>,
    /// What they use together: sums of amounts, means of shares, over the replicas that have the figure.
    #[serde(flatten)]
    pub usage: Usage,
    /// Each of them, by name; only when asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<ReplicaUsage>,
}

/// The usage of one replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaUsage {
    /// The name of the pod, or of the VirtualMachineInstance.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Who reports its usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<UsageSource>,
    /// How long ago that was read, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// What it uses.
    #[serde(flatten)]
    pub usage: Usage,
}

/// Who reports usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UsageSource {
    /// The node's agent, about once a second.
    Agent,
    /// metrics.k8s.io, about every 15 s.
    MetricsApi,
}

/// Amounts and shares. Of a virtual machine they are those of its guest's container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// CPU, in thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<i64>,
    /// What was requested of it; absent where one that uses CPU has no request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_request_millicores: Option<i64>,
    /// The working set, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// What was requested of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_request_bytes: Option<i64>,
    /// The limit of memory; absent where one has none, and for virtual machines, whose guest memory is the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<i64>,
    /// The share of CPU periods in which the busiest container was stopped at its limit, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<f64>,
    /// The share of time in which some task of the busiest container waited for a CPU (PSI), in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_percent: Option<f64>,
    /// The same for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_pressure_percent: Option<f64>,
    /// The same for IO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_pressure_percent: Option<f64>,
}
