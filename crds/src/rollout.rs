//! How a new revision replaces the old one.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// How a new revision replaces the old one: the rules of a Deployment's RollingUpdate, for both hulls and from one to
/// the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxSurge) || !has(self.maxUnavailable) || !string(self.maxSurge).matches('^0+%?$') || !string(self.maxUnavailable).matches('^0+%?$')")
        .message("rollout.maxSurge and rollout.maxUnavailable must not both be 0, or no replica could ever be replaced; raise one of them"),
    validation = Rule::new("(has(self.progressDeadlineSeconds) ? self.progressDeadlineSeconds : 600) > (has(self.minReadySeconds) ? self.minReadySeconds : 0)")
        .message("rollout.progressDeadlineSeconds (600 when absent) must be above rollout.minReadySeconds; raise the deadline or lower minReadySeconds"),
)]
pub struct Rollout {
    /// How many replicas above the wanted count a rollout may run: a count, or a percentage rounded up. 25% when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count_or_any_percentage")]
    pub max_surge: Option<IntOrString>,
    /// How many of the wanted replicas may be unavailable in a rollout: a count, or a percentage rounded down. 25% when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count_or_percentage")]
    pub max_unavailable: Option<IntOrString>,
    /// How long a replica has to be ready before it counts as available, in seconds. 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_ready_seconds: Option<i32>,
    /// After how many seconds without progress a rollout counts as failed. 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub progress_deadline_seconds: Option<i32>,
    /// How many old revisions without replicas are kept, to go back to. 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision_history_limit: Option<i32>,
    /// While true no revision is made or changed over to; the count of replicas is still kept. False when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// What happens when the progress deadline passes. Hold when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// What happens when a rollout passes its progress deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Stop where it is, keep what is available, and say so in the condition Stalled.
    #[default]
    Hold,
    /// Return to the last revision that was fully available, and say so in the condition Stalled.
    Rollback,
}
