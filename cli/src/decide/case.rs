//! The format of a case, and what the autoscaler sees of it. Ages become times before a frozen now.

use std::{collections::BTreeMap, fmt};

use catamaran_autoscale::{
    Bounds, History, Metric, Observed, Pod, Policy,
    fallback::Fallback,
    history::Recommendation,
    pods::{ConditionStatus, Container, InitContainer, Phase, Readiness, Requests},
    policy::{FromZero, Kind, Mode, Settings, Tolerance},
    samples::{NoSamples, PodSample, ResourceSample, Samples},
    v2,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec};
use serde::{Deserialize, Deserializer, de};

/// One case, as far as it is read. Members that only an HPA with a scaleTargetRef could use are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// Unique within a file.
    pub name: String,
    current_replicas: i32,
    status_replicas: i32,
    min: Option<i32>,
    max: i32,
    metrics: Vec<MetricSpec>,
    #[serde(default)]
    samples: Vec<Answer>,
    behavior: Option<HorizontalPodAutoscalerBehavior>,
    #[serde(default)]
    pods: Vec<CasePod>,
    recommendations: Option<Vec<CaseRecommendation>>,
    #[serde(default)]
    scale_up_events: Vec<CaseEvent>,
    #[serde(default)]
    scale_down_events: Vec<CaseEvent>,
    /// `status.conditions` before.
    #[serde(default)]
    pub initial_conditions: Vec<CaseCondition>,
    settings: CaseSettings,
}

/// A condition.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
pub struct CaseCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, as one word.
    #[serde(default)]
    pub reason: String,
}

/// What the metrics API answers for one metric.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    pods: Option<BTreeMap<String, CaseSample>>,
    value_milli: Option<i64>,
    values_milli: Option<Vec<i64>>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseSample {
    #[serde(default)]
    containers: BTreeMap<String, Option<i64>>,
    #[serde(default)]
    value_milli: i64,
    #[serde(default)]
    age_seconds: Seconds,
    window_seconds: Option<Seconds>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CasePod {
    name: String,
    #[serde(default)]
    phase: String,
    ready: Option<bool>,
    #[serde(default)]
    ready_transition_age_seconds: Option<Seconds>,
    start_age_seconds: Option<Seconds>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    containers: Vec<CaseContainer>,
    #[serde(default)]
    init_containers: Vec<CaseContainer>,
    pod_requests: Option<CaseRequests>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseContainer {
    name: String,
    #[serde(flatten)]
    requests: CaseRequests,
    #[serde(default)]
    restart_always: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseRequests {
    cpu_request_milli: Option<i64>,
    memory_request_bytes: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseRecommendation {
    replicas: i32,
    age_seconds: Seconds,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseEvent {
    change: i32,
    age_seconds: Seconds,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseSettings {
    tolerance: f64,
    cpu_initialization_period_seconds: Seconds,
    initial_readiness_delay_seconds: Seconds,
    downscale_stabilization_seconds: u32,
    #[serde(default)]
    feature_gates: Gates,
}

/// Feature gates, with the defaults of v1.37.2.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Gates {
    #[serde(rename = "HPAScaleToZero")]
    scale_to_zero: bool,
    #[serde(rename = "PodLevelResources")]
    pod_level_resources: bool,
}

impl Default for Gates {
    fn default() -> Self {
        Self { scale_to_zero: true, pod_level_resources: true }
    }
}

/// A number of seconds, whole or not.
#[derive(Clone, Copy, Debug, Default)]
struct Seconds(SignedDuration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Seconds, E> {
                Ok(Seconds(SignedDuration::from_secs(seconds)))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                Ok(Seconds(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX))))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Seconds, E> {
                SignedDuration::try_from_secs_f64(seconds).map(Seconds).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The frozen now of every case. Any will do.
fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// The time so long before now.
fn ago(age: Seconds) -> Timestamp {
    now().checked_sub(age.0).unwrap_or(if age.0.is_negative() { Timestamp::MAX } else { Timestamp::MIN })
}

/// What the autoscaler sees.
pub struct Situation {
    /// How the workload is scaled.
    pub policy: Policy,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// What is remembered of it.
    pub history: History,
    /// The moment.
    pub now: Timestamp,
    bounds: Bounds,
    samples: Vec<Result<Samples, NoSamples>>,
    replicas: i32,
    status_replicas: i32,
    scaled_to_zero: bool,
}

impl Situation {
    /// What the decision looks at.
    pub fn observed<'a>(&'a self, pods: &'a [&'a Pod]) -> Observed<'a> {
        Observed {
            replicas: self.replicas,
            status_replicas: self.status_replicas,
            bounds: &self.bounds,
            pods,
            samples: &self.samples,
            taken: &[],
            scaled_to_zero: self.scaled_to_zero,
        }
    }
}

/// A default of the API server where none is given.
const DEFAULT_MIN: i32 = 1;
/// The window of a custom metric that names none, in seconds (`metricServerDefaultMetricWindow`).
const DEFAULT_WINDOW: i64 = 60;

impl Case {
    /// What the autoscaler sees of this case.
    ///
    /// # Errors
    /// When a quantity or a word of the spec cannot be read.
    pub fn situation(&self) -> Result<Situation, v2::InvalidSpec> {
        let settings = &self.settings;
        let gates = &settings.feature_gates;
        let default_tolerance = Tolerance::both(settings.tolerance);
        let behavior = self.behavior.as_ref();
        let metrics = if self.metrics.is_empty() {
            vec![v2::default_metric()]
        } else {
            self.metrics.iter().map(|spec| v2::metric(spec, None)).collect::<Result<_, _>>()?
        };
        let min = self.min.unwrap_or(DEFAULT_MIN);
        let policy = Policy {
            mode: Mode::Auto,
            min,
            max: self.max,
            tolerance: v2::tolerance(behavior, default_tolerance)?,
            behavior: behavior
                .map(|behavior| v2::behavior(behavior, settings.downscale_stabilization_seconds))
                .transpose()?,
            schedules: Vec::new(),
            fallback: None::<Fallback>,
            settings: Settings {
                cpu_initialization_period: settings.cpu_initialization_period_seconds.0,
                initial_readiness_delay: settings.initial_readiness_delay_seconds.0,
                downscale_stabilization: settings.downscale_stabilization_seconds,
                from_zero: if gates.scale_to_zero { FromZero::IfScaledThere } else { FromZero::Never },
            },
            metrics,
        };
        let samples = policy.metrics.iter().enumerate().map(|(index, metric)| match self.samples.get(index) {
            Some(answer) => answer.samples(metric),
            None => Err(NoSamples("no sample is given for this metric".to_owned())),
        });
        let scaled_to_zero = self.initial_conditions.iter().find(|condition| condition.kind == "ScaledToZero");
        Ok(Situation {
            samples: samples.collect(),
            pods: self.pods.iter().map(|pod| pod.pod(gates.pod_level_resources)).collect(),
            history: self.history(),
            now: now(),
            bounds: Bounds { min, max: self.max, min_by: None, max_by: None, until: None, unknown: None },
            replicas: self.current_replicas,
            status_replicas: self.status_replicas,
            scaled_to_zero: scaled_to_zero.is_some_and(|condition| condition.status == "True"),
            policy,
        })
    }

    fn history(&self) -> History {
        let Some(recommendations) = &self.recommendations else {
            let current = Recommendation { replicas: self.current_replicas, at: now() };
            return History::from_lists([current], self.ups(), self.downs());
        };
        let recommendations = recommendations.iter().map(|recommendation| Recommendation {
            replicas: recommendation.replicas,
            at: ago(recommendation.age_seconds),
        });
        History::from_lists(recommendations, self.ups(), self.downs())
    }

    fn ups(&self) -> impl Iterator<Item = (i32, Timestamp)> {
        self.scale_up_events.iter().map(CaseEvent::event)
    }

    fn downs(&self) -> impl Iterator<Item = (i32, Timestamp)> {
        self.scale_down_events.iter().map(CaseEvent::event)
    }
}

impl CaseEvent {
    fn event(&self) -> (i32, Timestamp) {
        (self.change, ago(self.age_seconds))
    }
}

impl Answer {
    /// The answer for a metric; one that is empty is none.
    fn samples(&self, metric: &Metric) -> Result<Samples, NoSamples> {
        if let Some(error) = &self.error {
            return Err(NoSamples(error.clone()));
        }
        let none = || NoSamples("no metrics returned".to_owned());
        let pods = || self.pods.as_ref().filter(|pods| !pods.is_empty()).ok_or_else(none);
        match metric.kind() {
            Kind::Resource | Kind::ContainerResource => {
                Ok(Samples::Resource(pods()?.iter().map(|(name, sample)| (name.clone(), sample.resource())).collect()))
            }
            Kind::Pods => {
                Ok(Samples::Pods(pods()?.iter().map(|(name, sample)| (name.clone(), sample.value())).collect()))
            }
            Kind::Object => self.value_milli.map(Samples::Value).ok_or_else(none),
            Kind::External => {
                let values = self.values_milli.as_ref().filter(|values| !values.is_empty()).ok_or_else(none)?;
                Ok(Samples::Series(values.clone()))
            }
            // These are not in autoscaling/v2, so no case has them.
            Kind::Prometheus | Kind::Pressure | Kind::Throttling | Kind::Unknown => Err(none()),
        }
    }
}

impl CaseSample {
    fn resource(&self) -> ResourceSample {
        ResourceSample { containers: self.containers.clone(), taken: ago(self.age_seconds), window: self.window() }
    }

    fn value(&self) -> PodSample {
        PodSample { value: self.value_milli, taken: ago(self.age_seconds), window: self.window() }
    }

    fn window(&self) -> SignedDuration {
        self.window_seconds.map_or(SignedDuration::from_secs(DEFAULT_WINDOW), |seconds| seconds.0)
    }
}

impl CasePod {
    fn pod(&self, pod_level_resources: bool) -> Pod {
        Pod {
            name: self.name.clone(),
            phase: match self.phase.as_str() {
                "Pending" => Phase::Pending,
                "Running" => Phase::Running,
                "Succeeded" => Phase::Succeeded,
                "Failed" => Phase::Failed,
                _ => Phase::Unknown,
            },
            deleted: self.deleted,
            started: self.start_age_seconds.map(ago),
            ready: self.ready.map(|ready| Readiness {
                status: if ready { ConditionStatus::True } else { ConditionStatus::False },
                // An unset time is long ago.
                since: self.ready_transition_age_seconds.map_or(Timestamp::MIN, ago),
            }),
            containers: self.containers.iter().map(CaseContainer::container).collect(),
            init_containers: self.init_containers.iter().map(CaseContainer::init_container).collect(),
            requests: self.pod_requests.filter(|_| pod_level_resources).map(CaseRequests::requests).unwrap_or_default(),
            overhead: Requests::default(),
        }
    }
}

impl CaseContainer {
    fn container(&self) -> Container {
        Container { name: self.name.clone(), requests: self.requests.requests() }
    }

    fn init_container(&self) -> InitContainer {
        InitContainer { restart_always: self.restart_always, container: self.container() }
    }
}

impl CaseRequests {
    fn requests(self) -> Requests {
        Requests { cpu: self.cpu_request_milli, memory: self.memory_request_bytes }
    }
}
