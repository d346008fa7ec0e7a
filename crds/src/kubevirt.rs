//! The two KubeVirt kinds that Catamaran writes or reads, as far as it does so.
//!
//! KubeVirt publishes no Rust types. These follow `staging/src/kubevirt.io/api/core/v1/types.go` of KubeVirt v1.9; what
//! Catamaran passes through untouched (the body of a VMI) stays JSON, so that nothing a user wrote is lost on the way.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Keeps the wanted number of equal VirtualMachineInstances running: what a ReplicaSet is for pods.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstanceReplicaSet",
    plural = "virtualmachineinstancereplicasets",
    namespaced,
    schema = "disabled",
    status = "VirtualMachineInstanceReplicaSetStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Keeps the wanted number of equal VirtualMachineInstances running."
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetSpec {
    /// How many VMIs are wanted; KubeVirt takes 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which VMIs count; has to match the template's labels.
    pub selector: LabelSelector,
    /// What new VMIs are made from; an edit touches no VMI that exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<VirtualMachineInstanceTemplate>,
    /// While true nothing is created or deleted; the status is still kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// Metadata and body of the VMIs of a replica set (`VirtualMachineInstanceTemplateSpec`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VirtualMachineInstanceTemplate {
    /// Labels and annotations that each VMI, and through it each launcher pod, gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ObjectMeta>,
    /// The body of a VirtualMachineInstance.
    pub spec: Map<String, Value>,
}

/// What virt-controller reports of a VMIRS. Zero counts are left out by it, and there is no observedGeneration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetStatus {
    /// VMIs that are neither final nor terminating, in virt-controller's cache at its last pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Those of them that are Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// The selector as text, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// `ReplicaPaused` and `ReplicaFailure`, each present only while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<KubeVirtCondition>>,
}

/// One running virtual machine: what a pod is for containers.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstance",
    plural = "virtualmachineinstances",
    namespaced,
    schema = "disabled",
    status = "VirtualMachineInstanceStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One running virtual machine."
)]
pub struct VirtualMachineInstanceSpec {
    /// The body, as KubeVirt defines it.
    #[serde(flatten)]
    pub body: Map<String, Value>,
}

/// What KubeVirt reports of a VMI; written on the main resource, since the CRD has no status subresource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceStatus {
    /// Where the VMI is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<VirtualMachineInstancePhase>,
    /// `Ready`, `Paused`, `PodScheduled`, `AgentConnected` and others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<KubeVirtCondition>>,
    /// The node the launcher pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Why the VMI is in its phase, when KubeVirt says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When each phase was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_transition_timestamps: Option<Vec<PhaseTransition>>,
    /// What this version of Catamaran does not read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// When a VMI entered a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTransition {
    /// The phase entered.
    pub phase: VirtualMachineInstancePhase,
    /// When it was entered.
    pub phase_transition_timestamp: Time,
}

/// The phases of a VMI: Pending, Scheduling, Scheduled, Running, and Succeeded or Failed at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtualMachineInstancePhase {
    /// Accepted, no launcher pod yet.
    #[default]
    Pending,
    /// The launcher pod exists and is not yet up.
    Scheduling,
    /// The launcher pod is up, virt-handler takes over.
    Scheduled,
    /// The guest runs.
    Running,
    /// The guest powered off by itself.
    Succeeded,
    /// The guest or its pod failed.
    Failed,
    /// Waiting for PersistentVolumeClaims, or any phase of a later KubeVirt.
    #[serde(other)]
    Unknown,
}

impl VirtualMachineInstancePhase {
    /// True once the VMI will never run again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed => true,
            Self::Pending | Self::Scheduling | Self::Scheduled | Self::Running | Self::Unknown => false,
        }
    }
}

/// A condition in KubeVirt's form: times may be null, and there is no observedGeneration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtCondition {
    /// For example `Ready` or `ReplicaPaused`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Last check.
    #[serde(default)]
    pub last_probe_time: Option<Time>,
    /// Last change of `status`.
    #[serde(default)]
    pub last_transition_time: Option<Time>,
}
