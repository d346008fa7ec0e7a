//! The quota of one replica.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What one replica may use. A container: requests and limits of its container. A virtual machine: vCPUs, guest memory,
/// requests and limits of its domain; KubeVirt's overhead (about 250 Mi) comes on top. What Kubernetes has no field for
/// (cpu.burst, cpu.weight, memory.high, memory.swap, pids, io) is held by the node agent in the container's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// CPU, in cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuQuota>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryQuota>,
    /// How many processes and threads there may be at once (pids.max). Beyond it fork fails with EAGAIN. Held by the
    /// node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_194_304))]
    pub pids: Option<i64>,
    /// Limits to reading and writing block devices (io.max), one entry a device. Goes before the class's list as a
    /// whole; an empty list is no limit. Held by the node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["device".into()]))]
    pub io: Option<Vec<IoQuota>>,
}

/// CPU of one replica, in cores: `500m` is half a core.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.request) || !has(self.limit) || !isQuantity(string(self.request)) || !isQuantity(string(self.limit)) || quantity(string(self.request)).compareTo(quantity(string(self.limit))) <= 0")
        .message("quota.cpu.request must not be above quota.cpu.limit; lower the request or raise the limit"),
    validation = Rule::new("!has(self.request) || (isQuantity(string(self.request)) && quantity(string(self.request)).isGreaterThan(quantity('0')) && quantity(string(self.request)).compareTo(quantity('10k')) <= 0)")
        .message("quota.cpu.request must be a quantity above 0 and at most 10000 cores, for example 250m or 2"),
    validation = Rule::new("!has(self.limit) || (isQuantity(string(self.limit)) && quantity(string(self.limit)).isGreaterThan(quantity('0')) && quantity(string(self.limit)).compareTo(quantity('10k')) <= 0)")
        .message("quota.cpu.limit must be a quantity above 0 and at most 10000 cores, for example 500m or 4"),
    validation = Rule::new("!has(self.burst) || (isQuantity(string(self.burst)) && quantity(string(self.burst)).compareTo(quantity('0')) >= 0 && quantity(string(self.burst)).compareTo(quantity('10k')) <= 0)")
        .message("quota.cpu.burst must be a quantity from 0 to 10000 cores, for example 250m"),
    validation = Rule::new("!has(self.burst) || !has(self.limit) || !isQuantity(string(self.burst)) || !isQuantity(string(self.limit)) || quantity(string(self.burst)).compareTo(quantity(string(self.limit))) <= 0")
        .message("quota.cpu.burst must not be above quota.cpu.limit, since the kernel refuses it; lower the burst or raise the limit"),
)]
pub struct CpuQuota {
    /// What the scheduler reserves, in cores; the limit when absent. A virtual machine with neither asks for a tenth of
    /// its one vCPU (KubeVirt's cpuAllocationRatio).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub request: Option<Quantity>,
    /// What the kernel allows (cpu.max), in cores. A virtual machine gets as many vCPUs, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub limit: Option<Quantity>,
    /// CPU time above the limit that may be saved up while less is used, in cores over one period of 100 ms
    /// (cpu.max.burst): 500m are 50 ms. Needs a limit, here or in the class, and is at most that limit. Held by the
    /// node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub burst: Option<Quantity>,
    /// The share of CPU time among the containers of one pod while that is short (cpu.weight), from 1 to 10000: 300
    /// gets three times as much as 100. Between pods it is the request that counts. Left out, Kubernetes makes it from
    /// the request. Held by the node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weight: Option<i32>,
}

/// Memory of one replica, in bytes: `512Mi` is 512 x 1024 x 1024.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.request) || !has(self.limit) || !isQuantity(string(self.request)) || !isQuantity(string(self.limit)) || quantity(string(self.request)).compareTo(quantity(string(self.limit))) <= 0")
        .message("quota.memory.request must not be above quota.memory.limit; lower the request or raise the limit"),
    validation = Rule::new("!has(self.request) || (isQuantity(string(self.request)) && quantity(string(self.request)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self.request)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.memory.request must be a quantity from 1Mi to 1Pi, for example 256Mi (a bare m means thousandths of a byte)"),
    validation = Rule::new("!has(self.limit) || (isQuantity(string(self.limit)) && quantity(string(self.limit)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self.limit)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.memory.limit must be a quantity from 1Mi to 1Pi, for example 512Mi (a bare m means thousandths of a byte)"),
    validation = Rule::new("!has(self.high) || (isQuantity(string(self.high)) && quantity(string(self.high)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self.high)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.memory.high must be a quantity from 1Mi to 1Pi, for example 448Mi (a bare m means thousandths of a byte)"),
    validation = Rule::new("!has(self.high) || !has(self.limit) || !isQuantity(string(self.high)) || !isQuantity(string(self.limit)) || quantity(string(self.high)).compareTo(quantity(string(self.limit))) <= 0")
        .message("quota.memory.high must not be above quota.memory.limit, where it would never be reached; lower it or raise the limit"),
    validation = Rule::new("!has(self.swap) || (isQuantity(string(self.swap)) && quantity(string(self.swap)).compareTo(quantity('0')) >= 0 && quantity(string(self.swap)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.memory.swap must be a quantity from 0 to 1Pi, for example 0 or 256Mi"),
)]
pub struct MemoryQuota {
    /// What the scheduler reserves, in bytes; the guest memory of a virtual machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub request: Option<Quantity>,
    /// Where the kernel stops it (memory.max), in bytes. Without a request, a virtual machine takes it as guest memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub limit: Option<Quantity>,
    /// Above it the kernel takes memory back and slows the processes down, in bytes (memory.high): a brake before the
    /// limit, not a limit. Not above the limit. With a virtual machine it has to leave room for the guest and
    /// KubeVirt's overhead. Held by the node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub high: Option<Quantity>,
    /// How much may be swapped out, in bytes (memory.swap.max); 0 is none. Only nodes with swap have any. Held by the
    /// node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub swap: Option<Quantity>,
}

/// What may be read from and written to one block device, each second. At least one limit is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.device.matches('^([*]|[0-9]{1,4}:[0-9]{1,7}|[A-Za-z][A-Za-z0-9_-]{0,31})$')")
        .message("quota.io[].device must be * (every disk), MAJ:MIN such as 8:0, or a name such as vda without /dev/"),
    validation = Rule::new("has(self.readBytesPerSecond) || has(self.writeBytesPerSecond) || has(self.readOperationsPerSecond) || has(self.writeOperationsPerSecond)")
        .message("quota.io[] needs a limit: set readBytesPerSecond, writeBytesPerSecond, readOperationsPerSecond or writeOperationsPerSecond"),
    validation = Rule::new("!has(self.readBytesPerSecond) || (isQuantity(string(self.readBytesPerSecond)) && quantity(string(self.readBytesPerSecond)).compareTo(quantity('1')) >= 0 && quantity(string(self.readBytesPerSecond)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.io[].readBytesPerSecond must be a quantity from 1 to 1Pi, for example 50Mi"),
    validation = Rule::new("!has(self.writeBytesPerSecond) || (isQuantity(string(self.writeBytesPerSecond)) && quantity(string(self.writeBytesPerSecond)).compareTo(quantity('1')) >= 0 && quantity(string(self.writeBytesPerSecond)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.io[].writeBytesPerSecond must be a quantity from 1 to 1Pi, for example 50Mi"),
)]
pub struct IoQuota {
    /// Which device: * for every disk of the node that has no entry of its own, its number MAJ:MIN such as 8:0, or its
    /// name such as vda.
    #[schemars(length(min = 1, max = 32))]
    pub device: String,
    /// Bytes read in a second: 50Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub read_bytes_per_second: Option<Quantity>,
    /// Bytes written in a second: 50Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub write_bytes_per_second: Option<Quantity>,
    /// Reads in a second: a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub read_operations_per_second: Option<i64>,
    /// Writes in a second: a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub write_operations_per_second: Option<i64>,
}
