//! The conformance format: what a case is made of.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec};
use serde::{Deserialize, Serialize};

/// The age that stands for a time that is not set.
pub(super) const UNSET: i64 = 315_360_000;

/// One decision for one workload at one instant: all that the autoscaler sees. Ages are in seconds before now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// The seed and the number of the case.
    pub name: String,
    /// What occurs in it.
    pub tags: BTreeSet<&'static str>,
    /// `scale.spec.replicas`.
    pub current_replicas: i32,
    /// `scale.status.replicas`.
    pub status_replicas: i32,
    /// `spec.minReplicas`.
    pub min: Option<i32>,
    /// `spec.maxReplicas`.
    pub max: i32,
    /// `spec.metrics`.
    pub metrics: Vec<MetricSpec>,
    /// What the metrics API answers for each metric.
    pub samples: Vec<Sample>,
    /// `spec.behavior` as the user wrote it.
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
    /// Every pod that the target's selector matches.
    pub pods: Vec<Pod>,
    /// Earlier recommendations; nothing: the controller has just started.
    pub recommendations: Option<Vec<Recommendation>>,
    /// Earlier events of scaling up.
    pub scale_up_events: Vec<ScaleEvent>,
    /// Earlier events of scaling down.
    pub scale_down_events: Vec<ScaleEvent>,
    /// `status.conditions` before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initial_conditions: Vec<Condition>,
    /// The flags and feature gates of the controller manager.
    pub settings: Settings,
}

/// What the metrics API answers for one metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Sample {
    /// The fetch fails.
    Failed {
        /// With this text.
        error: String,
    },
    /// The answer is empty.
    Empty {},
    /// For Resource and ContainerResource.
    Usage {
        /// By name of the pod.
        pods: BTreeMap<String, PodUsage>,
    },
    /// For Pods.
    Pods {
        /// By name of the pod.
        pods: BTreeMap<String, PodValue>,
    },
    /// For Object.
    Object {
        /// In thousandths.
        value_milli: i64,
    },
    /// For External.
    External {
        /// In thousandths, one for each series.
        values_milli: Vec<i64>,
    },
}

/// The usage of one resource by one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodUsage {
    /// By name of the container, in thousandths; nothing: no value of this resource.
    pub containers: BTreeMap<String, Option<i64>>,
    /// When it was measured.
    pub age_seconds: i64,
    /// Over which time.
    pub window_seconds: i64,
}

/// The value of a metric for one pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodValue {
    /// In thousandths.
    pub value_milli: i64,
    /// When it was measured.
    pub age_seconds: i64,
    /// Over which time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<i64>,
}

/// A pod of the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// `status.phase`.
    pub phase: &'static str,
    /// The status of its condition Ready; nothing: it has none.
    pub ready: Option<bool>,
    /// Since when.
    pub ready_transition_age_seconds: Option<i64>,
    /// `status.startTime`.
    pub start_age_seconds: Option<i64>,
    /// Whether it has a deletionTimestamp.
    pub deleted: bool,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its init containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<InitContainer>,
    /// What it requests as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_requests: Option<Requests>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it requests.
    #[serde(flatten)]
    pub requests: Requests,
}

/// An init container.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InitContainer {
    /// As of any container.
    #[serde(flatten)]
    pub container: Container,
    /// Whether it goes on to run beside the containers.
    pub restart_always: bool,
}

/// What is requested; nothing: no request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// In thousandths of a core.
    pub cpu_request_milli: Option<i64>,
    /// In bytes.
    pub memory_request_bytes: Option<i64>,
}

/// An earlier recommendation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// How many replicas.
    pub replicas: i32,
    /// When.
    pub age_seconds: i64,
}

/// An earlier change of the count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleEvent {
    /// By how many replicas.
    pub change: i32,
    /// When.
    pub age_seconds: i64,
}

/// A condition of the autoscaler.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why.
    pub reason: String,
}

/// The flags and feature gates of the controller manager.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// How far a ratio may be from 1.
    pub tolerance: f64,
    /// How long after its start the cpu usage of a pod counts only when it is ready.
    pub cpu_initialization_period_seconds: i64,
    /// How long after its start a pod that is not ready counts as never having been so.
    pub initial_readiness_delay_seconds: i64,
    /// The window for scaling down where the workload names none.
    pub downscale_stabilization_seconds: i64,
    /// Feature gates that differ from their defaults.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<&'static str, bool>,
}

impl Case {
    /// Labels the case.
    pub(super) fn tag(&mut self, tag: &'static str) {
        self.tags.insert(tag);
    }
}
