//! What the operator reports of an ElasticWorkload.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What replicas are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Hull {
    /// Pods, by a ReplicaSet.
    Container,
    /// KubeVirt VirtualMachineInstances, by a VirtualMachineInstanceReplicaSet.
    VirtualMachine,
}

impl Hull {
    /// As spelt in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VirtualMachine => "virtualMachine",
        }
    }
}

impl std::fmt::Display for Hull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the operator reports of an ElasticWorkload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ElasticWorkloadStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What replicas of the wanted revision are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hull: Option<Hull>,
    /// The label selector of all replicas, for the scale subresource: with it a HorizontalPodAutoscaler finds the pods, of both
    /// hulls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How many replicas are wanted.
    #[serde(default)]
    pub desired_replicas: i32,
    /// How many replicas exist, of all revisions, without those that are terminating or have ended.
    #[serde(default)]
    pub replicas: i32,
    /// How many of them are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// How many of them have been ready for rollout.minReadySeconds.
    #[serde(default)]
    pub available_replicas: i32,
    /// How many of them are of the wanted revision.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The last revision that was fully available: where rollout.onFailure Rollback returns to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// The revision that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
    /// The revision that passed its progress deadline and was rolled back from; cleared by the next change of the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_revision: Option<String>,
    /// When the rollout last came further; the progress deadline counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
    /// Ready; Reconciling and Stalled, which are present only while true (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::bare::<Vec<Condition>>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
