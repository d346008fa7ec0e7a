//! WorkloadClass: a named quota, like a cloud's instance type.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::quota::Quota;

/// A named quota, like a cloud's instance type. An ElasticWorkload that names it takes from it what its own quota leaves out;
/// a change of the class reaches the workloads that use it, in place where the kernel and Kubernetes allow it.
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    doc = "A named quota, like a cloud's instance type. An ElasticWorkload that names it in spec.className takes from it what its own quota leaves out; a change of the class reaches the workloads that use it, in place where the kernel and Kubernetes allow it."
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadClassSpec {
    /// The quota of one replica.
    pub quota: Quota,
}
