//! What the operator reports of an ElasticWorkload.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::StoredHistory;

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
    /// The label selector of all replicas, for the scale subresource: with it a HorizontalPodAutoscaler finds the pods,
    /// of both hulls.
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
    /// The revision that passed its progress deadline and was rolled back from; cleared by the next change of the
    /// template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_revision: Option<String>,
    /// When the rollout last came further; the progress deadline counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
    /// The last restart that was asked for by the annotation catamaran.dev/restarted-at. It counts also after that is
    /// gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<Time>,
    /// While the spec makes no sense: the last one that did, which goes on running and scaling. Its form may change.
    #[serde(default, skip_serializing_if = "StoredHistory::is_empty")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub last_good_spec: StoredHistory,
    /// The count that stays where nothing decides it: in mode Hold, or without spec.replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldReplicas>,
    /// The count on its way to spec.replicas, after scaling had made another one and was switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<MovingReplicas>,
    /// What scaling decided; absent without spec.scaling and in mode Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// Ready; Reconciling and Stalled, which are present only while true (kstatus). With spec.scaling also
    /// ScalingActive, AbleToScale and ScalingLimited, with the reasons of a HorizontalPodAutoscaler. With a quota also
    /// QuotaEnforced, and OutOfMemory while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::bare::<Vec<Condition>>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A count that stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldReplicas {
    /// How many replicas stay.
    pub replicas: i32,
    /// spec.replicas when that was last looked at: once it is another one, it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<i32>,
}

/// A count that goes to spec.replicas by the rates of spec.scaling.behavior.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovingReplicas {
    /// How many replicas there are to be now.
    pub replicas: i32,
    /// The changes that the rates count. Its form may change.
    #[serde(default, skip_serializing_if = "StoredHistory::is_empty")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub history: StoredHistory,
}

/// What scaling decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// The count that scaling wants. In mode Recommend it is only shown.
    pub desired_replicas: i32,
    /// When the count last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// The last decision that changed the count, or what holds it. Decisions that change nothing are not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<DecisionStatus>,
    /// What an operator that starts anew has to know of the past, so that no window is cut short. Its form may change.
    #[serde(default, skip_serializing_if = "StoredHistory::is_empty")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub history: StoredHistory,
}

/// One decision, with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionStatus {
    /// When it was made.
    pub time: Time,
    /// The count before.
    pub from: i32,
    /// The count after.
    pub to: i32,
    /// One word for what decided.
    pub reason: String,
    /// The decision in a sentence.
    pub message: String,
    /// What each metric said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricStatus>,
    /// What kept the count from the highest proposal: a bound, a stabilization window, a rate policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limited_by: Vec<String>,
}

/// What one metric said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    /// Which metric: its type and name.
    pub name: String,
    /// Its value, in the form of the target; absent when it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Its target.
    pub target: String,
    /// The count that it asks for; absent when it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<i32>,
}
