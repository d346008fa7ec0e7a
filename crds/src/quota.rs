//! The quota of one replica.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What one replica may use. A container: requests and limits of its container. A virtual machine: vCPUs, guest memory,
/// requests and limits of its domain; KubeVirt's overhead (about 250 Mi) comes on top.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// CPU, in cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuQuota>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryQuota>,
}

/// CPU of one replica, in cores: `500m` is half a core.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.request) || !has(self.limit) || !isQuantity(string(self.request)) || !isQuantity(string(self.limit)) || quantity(string(self.request)).compareTo(quantity(string(self.limit))) <= 0")
        .message("quota.cpu.request must not be above quota.cpu.limit; lower the request or raise the limit"),
    validation = Rule::new("!has(self.request) || (isQuantity(string(self.request)) && quantity(string(self.request)).isGreaterThan(quantity('0')) && quantity(string(self.request)).compareTo(quantity('10k')) <= 0)")
        .message("quota.cpu.request must be a quantity above 0 and at most 10000 cores, for example 250m or 2"),
    validation = Rule::new("!has(self.limit) || (isQuantity(string(self.limit)) && quantity(string(self.limit)).isGreaterThan(quantity('0')) && quantity(string(self.limit)).compareTo(quantity('10k')) <= 0)")
        .message("quota.cpu.limit must be a quantity above 0 and at most 10000 cores, for example 500m or 4"),
)]
pub struct CpuQuota {
    /// What the scheduler reserves, in cores; the limit when absent. A virtual machine with neither asks for a tenth of its
    /// one vCPU (KubeVirt's cpuAllocationRatio).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub request: Option<Quantity>,
    /// What the kernel allows (cpu.max), in cores. A virtual machine gets as many vCPUs, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub limit: Option<Quantity>,
}

/// Memory of one replica, in bytes: `512Mi` is 512 x 1024 x 1024.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.request) || !has(self.limit) || !isQuantity(string(self.request)) || !isQuantity(string(self.limit)) || quantity(string(self.request)).compareTo(quantity(string(self.limit))) <= 0")
        .message("quota.memory.request must not be above quota.memory.limit; lower the request or raise the limit"),
    validation = Rule::new("!has(self.request) || (isQuantity(string(self.request)) && quantity(string(self.request)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self.request)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.memory.request must be a quantity from 1Mi to 1Pi, for example 256Mi (a bare m means thousandths of a byte)"),
    validation = Rule::new("!has(self.limit) || (isQuantity(string(self.limit)) && quantity(string(self.limit)).compareTo(quantity('1Mi')) >= 0 && quantity(string(self.limit)).compareTo(quantity('1Pi')) <= 0)")
        .message("quota.memory.limit must be a quantity from 1Mi to 1Pi, for example 512Mi (a bare m means thousandths of a byte)"),
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
}
