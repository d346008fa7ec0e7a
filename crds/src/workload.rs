//! ElasticWorkload: one workload, as containers or as virtual machines.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    container::ContainerHull, placement::Placement, quota::Quota, rollout::Rollout, scaling::Scaling, service::Service,
    status::ElasticWorkloadStatus, virtual_machine::VirtualMachineHull,
};

/// One workload, run as containers or as KubeVirt virtual machines, at the wanted count and within its quota.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "catamaran.dev",
    version = "v1alpha1",
    kind = "ElasticWorkload",
    plural = "elasticworkloads",
    shortname = "ew",
    category = "all",
    namespaced,
    status = "ElasticWorkloadStatus",
    derive = "PartialEq",
    derive = "Default",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Hull", type_ = "string", json_path = ".status.hull"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas", description = "Replicas that are ready"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas", description = "Replicas that are wanted"),
    printcolumn(name = "Up-to-date", type_ = "integer", json_path = ".status.updatedReplicas", description = "Replicas of the wanted revision"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.availableReplicas", priority = 1, description = "Replicas ready for minReadySeconds"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.updateRevision", priority = 1),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(
        name = "Scaling",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='ScalingActive')].reason",
        description = "How scaling knows the count, or why it does not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 46")
        .message("metadata.name must have at most 46 characters: the names of replicas add 17 and have to fit a DNS label of 63; choose a shorter name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label that starts with a letter (lower-case letters, digits and '-'), since it also names the Service; choose another name"),
    doc = "One workload, run as containers or as KubeVirt virtual machines, at the wanted count and within its quota."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.container) != has(self.virtualMachine)")
        .message("spec: set exactly one of container and virtualMachine; a patch that changes the hull sets the other one to null"),
    validation = Rule::new("!has(self.virtualMachine) || has(self.virtualMachine.template) || has(self.className) || (has(self.quota) && has(self.quota.memory) && (has(self.quota.memory.request) || has(self.quota.memory.limit)))")
        .message("a virtualMachine of the short form needs to know its guest memory: set quota.memory.request (or limit), or className"),
    validation = Rule::new("has(self.className) || !has(self.quota) || !has(self.quota.cpu) || !has(self.quota.cpu.burst) || has(self.quota.cpu.limit)")
        .message("quota.cpu.burst needs quota.cpu.limit, since it is saved up below the limit: set it, here or in a class"),
    validation = Rule::new("!has(self.virtualMachine) || !has(self.service) || self.service.ports.all(p, !has(p.targetPort) || type(p.targetPort) == int)")
        .message(
            "service.ports[].targetPort must be a number with virtualMachine: a virtual machine has no named ports"
        ),
)]
pub struct ElasticWorkloadSpec {
    /// The WorkloadClass that gives the quota where this spec is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Run as containers. Exactly one of container and virtualMachine is set; a change from one to the other is a
    /// rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerHull>,
    /// Run as virtual machines. Exactly one of container and virtualMachine is set; a change from one to the other is a
    /// rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine: Option<Box<VirtualMachineHull>>,
    /// What one replica may use; goes before the quota of the class, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// How many replicas are wanted: when absent, as many as there are, and 1 for a new workload. With spec.scaling in
    /// mode Auto, the count to start with. Neither the schema nor the operator ever fills it in, so that it can be left
    /// to kubectl scale or to a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: Option<i32>,
    /// Lets the replica count follow load and time. Without it the count is spec.replicas, or stays where that is
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Where replicas may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Box<Placement>>,
    /// How a new revision replaces the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// A Service in front of the replicas; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// Running, Frozen (replicas stay, use no CPU and get no traffic), or Stopped (no replicas, the spec stays).
    /// Running when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// Whether replicas run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// The wanted count of replicas runs.
    #[default]
    Running,
    /// Replicas stay where they are and do nothing: processes of containers are stopped by the kernel's freezer, which
    /// the node agent uses, and virtual machines are paused. The Service leads nowhere, scaling, rollouts and quota
    /// edits wait. Refused while the template has a liveness or startup probe, since the kubelet would kill what it
    /// finds frozen.
    Frozen,
    /// No replica runs; Service and history stay.
    Stopped,
}
