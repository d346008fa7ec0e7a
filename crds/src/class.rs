//! WorkloadClass: a named quota with a price, like a cloud's instance type.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::quota::Quota;

/// A named quota with a price, like a cloud's instance type. An ElasticWorkload that names it takes from it what its
/// own quota leaves out; a change of the class reaches the workloads that use it, in place where the kernel and
/// Kubernetes allow it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "catamaran.dev",
    version = "v1alpha1",
    kind = "WorkloadClass",
    plural = "workloadclasses",
    shortname = "wlc",
    category = "all",
    derive = "PartialEq",
    printcolumn(name = "CPU request", type_ = "string", json_path = ".spec.quota.cpu.request"),
    printcolumn(name = "CPU limit", type_ = "string", json_path = ".spec.quota.cpu.limit"),
    printcolumn(name = "Memory request", type_ = "string", json_path = ".spec.quota.memory.request"),
    printcolumn(name = "Memory limit", type_ = "string", json_path = ".spec.quota.memory.limit"),
    printcolumn(name = "Currency", type_ = "string", json_path = ".spec.price.currency", priority = 1),
    printcolumn(name = "CPU hour", type_ = "string", json_path = ".spec.price.cpuHour", priority = 1),
    printcolumn(name = "Memory GiB hour", type_ = "string", json_path = ".spec.price.memoryGibHour", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    doc = "A named quota with a price, like a cloud's instance type. An ElasticWorkload that names it in spec.className takes from it what its own quota leaves out; a change of the class reaches the workloads that use it, in place where the kernel and Kubernetes allow it."
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadClassSpec {
    /// The quota of one replica.
    pub quota: Quota,
    /// What its use costs. Without one, workloads of the class are metered and not charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

/// What the use of a class costs: `kubectl catamaran bill` multiplies it with what was used, or with what was
/// requested. Amounts are decimal numbers in quotes, such as "0.04". What has no amount is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.currency.matches('^[A-Z]{3}$')")
        .message("price.currency must be a currency code of ISO 4217 in capitals, for example EUR"),
    validation = Rule::new("has(self.cpuHour) || has(self.memoryGibHour) || has(self.ioGib)")
        .message("price needs an amount: set cpuHour, memoryGibHour or ioGib"),
    validation = Rule::new("!has(self.cpuHour) || self.cpuHour.matches('^[0-9]{1,9}([.][0-9]{1,9})?$')")
        .message("price.cpuHour must be a decimal number with up to 9 digits on either side of the point, for example \"0.04\""),
    validation = Rule::new("!has(self.memoryGibHour) || self.memoryGibHour.matches('^[0-9]{1,9}([.][0-9]{1,9})?$')")
        .message("price.memoryGibHour must be a decimal number with up to 9 digits on either side of the point, for example \"0.005\""),
    validation = Rule::new("!has(self.ioGib) || self.ioGib.matches('^[0-9]{1,9}([.][0-9]{1,9})?$')")
        .message("price.ioGib must be a decimal number with up to 9 digits on either side of the point, for example \"0.01\""),
)]
pub struct Price {
    /// The currency of the amounts, by its code in ISO 4217, such as EUR.
    #[schemars(length(min = 3, max = 3))]
    pub currency: String,
    /// Of one CPU for one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub cpu_hour: Option<String>,
    /// Of one GiB of memory for one hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub memory_gib_hour: Option<String>,
    /// Of one GiB that is read from or written to a disk. Charged by usage only: nothing reserves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    pub io_gib: Option<String>,
}
