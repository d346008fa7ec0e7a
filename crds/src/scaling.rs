//! How the replica count follows load and time.

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricSource, ExternalMetricSource, HorizontalPodAutoscalerBehavior, ObjectMetricSource,
        PodsMetricSource, ResourceMetricSource,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schema;

/// How the replica count follows load and time: the rules of a HorizontalPodAutoscaler, and more. While mode is Auto,
/// spec.replicas is only the count to start with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.minReplicas) ? self.minReplicas : 1) <= self.maxReplicas")
        .message("scaling.minReplicas (1 when absent) must not be above scaling.maxReplicas; lower the one or raise the other"),
    validation = Rule::new("(has(self.metrics) && self.metrics.size() > 0) || (has(self.schedules) && self.schedules.size() > 0)")
        .message("scaling needs something to follow: set at least one of scaling.metrics and scaling.schedules"),
    validation = Rule::new("!has(self.minReplicas) || self.minReplicas > 0 || !has(self.metrics) || self.metrics.size() == 0 || self.metrics.exists(m, m.type in ['Object', 'External', 'Prometheus'])")
        .message("scaling.minReplicas 0 needs a metric that exists without replicas: set one of type Object, External or Prometheus, or set minReplicas to 1"),
    validation = Rule::new("!has(self.schedules) || self.schedules.all(s, !has(s.minReplicas) || s.minReplicas <= self.maxReplicas || self.schedules.exists(other, has(other.maxReplicas) && s.minReplicas <= other.maxReplicas))")
        .message("scaling.schedules[].minReplicas must not be above scaling.maxReplicas, which would always lower it; raise scaling.maxReplicas or the schedule's"),
)]
pub struct Scaling {
    /// Whether decisions are carried out. Auto when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ScalingMode>,
    /// The lower bound of the replica count. 1 when absent. 0 needs a metric of type Object, External or Prometheus, or
    /// a schedule alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub min_replicas: Option<i32>,
    /// The upper bound of the replica count.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_replicas: i32,
    /// What the count follows: each metric proposes a count, the highest one counts. Without a metric the count is the
    /// lower bound, which schedules move.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub metrics: Vec<ScalingMetric>,
    /// How fast the count may change and how long it stays, as in autoscaling/v2: stabilization windows, rate policies,
    /// tolerance. When absent: up by 4 replicas or 100 % in 15 s, whichever is more; down by 100 % in 15 s, and never
    /// below what was proposed in the last 300 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "behavior")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
    /// Times at which the bounds are others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub schedules: Vec<Schedule>,
    /// Which replicas go first when the count falls. Default when absent. Those that are not ready always go before
    /// those that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victims: Option<Victims>,
    /// What to do when no metric has answered for a while. Without it the count stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// The count follows the decisions.
    #[default]
    Auto,
    /// Decisions are made and shown in the status; the count is spec.replicas, or stays where that is absent.
    Recommend,
    /// The same, but the count stays as it is, whatever spec.replicas says, until that is changed: by the scale
    /// subresource too.
    Hold,
    /// No decisions are made; the count is spec.replicas, or stays where that is absent.
    Off,
}

/// One metric. The types and fields of autoscaling/v2, and Pressure, Throttling and Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.resource) == (self.type == 'Resource') && has(self.containerResource) == (self.type == 'ContainerResource') && has(self.pods) == (self.type == 'Pods') && has(self.object) == (self.type == 'Object') && has(self.external) == (self.type == 'External') && has(self.pressure) == (self.type == 'Pressure') && has(self.throttling) == (self.type == 'Throttling') && has(self.prometheus) == (self.type == 'Prometheus')")
        .message("a metric must have the one field that its type names: resource, containerResource, pods, object, external, pressure, throttling or prometheus"),
    validation = Rule::new("[has(self.resource) ? self.resource.name : 'cpu', has(self.containerResource) ? self.containerResource.name : 'cpu'].all(name, name in ['cpu', 'memory'])")
        .message("the name of a resource must be cpu or memory"),
    validation = Rule::new("(!has(self.resource) || (self.resource.target.type == 'Utilization' ? has(self.resource.target.averageUtilization) && self.resource.target.averageUtilization > 0 && !has(self.resource.target.averageValue) : self.resource.target.type == 'AverageValue' && has(self.resource.target.averageValue) && !has(self.resource.target.averageUtilization))) && (!has(self.containerResource) || (self.containerResource.target.type == 'Utilization' ? has(self.containerResource.target.averageUtilization) && self.containerResource.target.averageUtilization > 0 && !has(self.containerResource.target.averageValue) : self.containerResource.target.type == 'AverageValue' && has(self.containerResource.target.averageValue) && !has(self.containerResource.target.averageUtilization)))")
        .message("the target of a resource must be of type Utilization with averageUtilization above 0, or of type AverageValue with averageValue"),
    validation = Rule::new("!has(self.pods) || (self.pods.target.type == 'AverageValue' && has(self.pods.target.averageValue))")
        .message("the target of a metric of type Pods must be of type AverageValue, with averageValue"),
    validation = Rule::new("(!has(self.object) || (self.object.target.type == 'Value' ? has(self.object.target.value) && !has(self.object.target.averageValue) : self.object.target.type == 'AverageValue' && has(self.object.target.averageValue) && !has(self.object.target.value))) && (!has(self.external) || (self.external.target.type == 'Value' ? has(self.external.target.value) && !has(self.external.target.averageValue) : self.external.target.type == 'AverageValue' && has(self.external.target.averageValue) && !has(self.external.target.value)))")
        .message("the target of a metric of type Object or External must be of type Value with value, or of type AverageValue with averageValue"),
    validation = Rule::new("!has(self.activation) || self.type in ['Object', 'External', 'Prometheus']")
        .message("activation needs a metric of type Object, External or Prometheus; leave it out"),
)]
pub struct ScalingMetric {
    // A metric has one of these and there is one metric in memory for each workload: boxes keep the room for the others
    // small.
    /// What kind of metric: the field of the same name describes it.
    #[serde(rename = "type")]
    pub type_: MetricType,
    /// CPU or memory of all containers of a replica, averaged over the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<ResourceMetricSource>")]
    pub resource: Option<ResourceMetricSource>,
    /// CPU or memory of one container of each replica, averaged over the replicas. A virtual machine's is called
    /// compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<ContainerResourceMetricSource>")]
    pub container_resource: Option<Box<ContainerResourceMetricSource>>,
    /// A metric of custom.metrics.k8s.io that each replica has, averaged over the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<PodsMetricSource>")]
    pub pods: Option<Box<PodsMetricSource>>,
    /// A metric of custom.metrics.k8s.io that describes one other object of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<ObjectMetricSource>")]
    pub object: Option<Box<ObjectMetricSource>>,
    /// A metric of external.metrics.k8s.io.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<ExternalMetricSource>")]
    pub external: Option<Box<ExternalMetricSource>>,
    /// The share of time in which tasks of a replica waited for a resource (pressure stall information, PSI), averaged
    /// over the replicas. Needs the node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<PressureMetricSource>,
    /// The share of CPU periods in which a replica was throttled by its limit, averaged over the replicas. Needs the
    /// node agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<ThrottlingMetricSource>,
    /// The answer of a Prometheus server to a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Box<PrometheusMetricSource>>,
    /// With minReplicas 0: no replica is needed while no metric is above its activation (strictly). When any metric has
    /// one, it is 0 for those without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub activation: Option<Quantity>,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetricType {
    /// CPU or memory of a replica.
    #[default]
    Resource,
    /// CPU or memory of one container of each replica.
    ContainerResource,
    /// A custom metric of each replica.
    Pods,
    /// A custom metric of another object.
    Object,
    /// A metric from outside the cluster.
    External,
    /// Pressure stall information.
    Pressure,
    /// Throttled CPU periods.
    Throttling,
    /// A Prometheus query.
    Prometheus,
}

/// Pressure stall information of a resource (kernel: Documentation/accounting/psi.rst).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PressureMetricSource {
    /// Of which resource.
    pub resource: PressureResource,
    /// Whether some or all tasks that are not idle waited. some when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PressureKind>,
    /// The wanted average share of time, in percent.
    pub target: ShareTarget,
}

/// The resources that the kernel accounts pressure of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PressureResource {
    /// cpu.pressure.
    #[default]
    Cpu,
    /// memory.pressure.
    Memory,
    /// io.pressure.
    Io,
}

/// Which tasks waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PressureKind {
    /// At least one task waited.
    #[default]
    Some,
    /// All tasks that were not idle waited.
    Full,
}

/// Throttled CPU periods (cpu.stat: nr_throttled / nr_periods).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThrottlingMetricSource {
    /// The wanted average share of periods, in percent.
    pub target: ShareTarget,
}

/// A wanted average share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareTarget {
    /// In percent.
    #[schemars(range(min = 1, max = 100))]
    pub average_utilization: i32,
}

/// The answer of a Prometheus server to an instant query: one value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("isURL(self.serverAddress) && url(self.serverAddress).getHostname() != ''")
        .message("prometheus.serverAddress must be an address with a host, for example http://prometheus.monitoring:9090"),
)]
pub struct PrometheusMetricSource {
    /// The server's address, for example http://prometheus.monitoring:9090.
    #[schemars(length(min = 8, max = 1024), regex(pattern = "^https?://"))]
    pub server_address: String,
    /// The query. It has to give a scalar or exactly one series: sum() does.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The wanted value.
    pub target: ValueTarget,
    /// The certificate authorities to trust, in PEM. Needed for https where the operator's image has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyReference>,
    /// A bearer token to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret_ref: Option<SecretKeyReference>,
}

/// A wanted value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.value) != has(self.averageValue)")
        .message("a target must have exactly one of value and averageValue"),
    validation = Rule::new("!has(self.value) || (isQuantity(string(self.value)) && quantity(string(self.value)).isGreaterThan(quantity('0')))")
        .message("target.value must be a quantity above 0, for example 100 or 500m"),
    validation = Rule::new("!has(self.averageValue) || (isQuantity(string(self.averageValue)) && quantity(string(self.averageValue)).isGreaterThan(quantity('0')))")
        .message("target.averageValue must be a quantity above 0, for example 100 or 500m"),
)]
pub struct ValueTarget {
    /// The wanted value as it is: the count grows by the ratio to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub value: Option<Quantity>,
    /// The wanted value for one replica: the count is the value divided by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub average_value: Option<Quantity>,
}

/// A key of a Secret of the same namespace. The operator needs to be allowed to get this Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyReference {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A time at which the bounds are others: from each firing of start to the next firing of end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.minReplicas) || has(self.maxReplicas)")
        .message("a schedule moves the bounds: set minReplicas, maxReplicas or both"),
    validation = Rule::new("!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas")
        .message("a schedule's minReplicas must not be above its maxReplicas"),
    validation = Rule::new("self.start.matches('^ *[0-9A-Za-z*/,#?+-]+( +[0-9A-Za-z*/,#?+-]+){4} *$')")
        .message("scaling.schedules[].start must be a cron expression of five fields (minute, hour, day of month, month, day of week), for example 0 8 * * MON-FRI"),
    validation = Rule::new("self.end.matches('^ *[0-9A-Za-z*/,#?+-]+( +[0-9A-Za-z*/,#?+-]+){4} *$')")
        .message("scaling.schedules[].end must be a cron expression of five fields (minute, hour, day of month, month, day of week), for example 0 18 * * MON-FRI"),
    validation = Rule::new("self.start != self.end")
        .message("scaling.schedules[].start and end must not be the same, or the schedule would always be active; write another end"),
    validation = Rule::new("!has(self.timeZone) || (self.timeZone.matches('^[A-Za-z][A-Za-z0-9_+/-]*$') && timestamp('2026-01-01T00:00:00Z').getHours(self.timeZone) >= 0)")
        .message(
            "scaling.schedules[].timeZone must be a name of the IANA time zone database, for example Europe/Paris"
        ),
)]
pub struct Schedule {
    /// What it is called in decisions.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The IANA time zone of start and end, for example Europe/Paris. UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// When it begins: minute, hour, day of month, month, day of week, as cron has them.
    #[schemars(length(min = 9, max = 128))]
    pub start: String,
    /// When it ends, in the same form.
    #[schemars(length(min = 9, max = 128))]
    pub end: String,
    /// The lower bound in that time, in place of scaling.minReplicas; of several, the highest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub min_replicas: Option<i32>,
    /// The upper bound in that time, in place of scaling.maxReplicas; of several, the lowest counts, also against
    /// minReplicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_replicas: Option<i32>,
}

/// Which replicas go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Victims {
    /// The ReplicaSet controller's rules, for both hulls.
    #[default]
    Default,
    /// Those that use the least CPU. What is not known counts as busy.
    LeastBusy,
    /// Those that were created last.
    Newest,
}

/// What to do when no metric has answered for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// For how long all metrics have to be without an answer, in seconds. 60 when absent; before that the count stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub after_seconds: Option<i32>,
    /// The count then. Bounds hold for it as well.
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: i32,
    /// How it goes together with the count of that moment. Static when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<FallbackBehavior>,
}

/// How the fallback goes together with the count at the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FallbackBehavior {
    /// The count of the fallback.
    #[default]
    Static,
    /// The count stays.
    CurrentReplicas,
    /// The higher of the two.
    CurrentReplicasIfHigher,
    /// The lower of the two.
    CurrentReplicasIfLower,
}

/// autoscaling/v2's behavior, with the ranges that the API server checks for a HorizontalPodAutoscaler
/// (`pkg/apis/autoscaling/validation`).
fn behavior(_: &mut SchemaGenerator) -> Schema {
    let rules = |direction: &str, window: &str| {
        json!({
            "type": "object",
            "description": format!("How the count may {direction}."),
            "properties": {
                "stabilizationWindowSeconds": {
                    "type": "integer", "format": "int32", "minimum": 0, "maximum": 3600,
                    "description": format!("For how long earlier proposals still count, in seconds. {window} when absent.")
                },
                "selectPolicy": {
                    "type": "string", "enum": ["Max", "Min", "Disabled"],
                    "description": "Which policy counts when several allow different changes; Disabled forbids the direction. Max when absent."
                },
                "policies": {
                    "type": "array", "minItems": 1, "maxItems": 10,
                    "description": "How much the count may change in a time.",
                    "items": {
                        "type": "object",
                        "required": ["type", "value", "periodSeconds"],
                        "properties": {
                            "type": {
                                "type": "string", "enum": ["Pods", "Percent"],
                                "description": "What value counts."
                            },
                            "value": { "type": "integer", "format": "int32", "minimum": 1, "description": "The most that may change." },
                            "periodSeconds": {
                                "type": "integer", "format": "int32", "minimum": 1, "maximum": 1800,
                                "description": "In which time, in seconds."
                            }
                        }
                    }
                },
                "tolerance": {
                    "x-kubernetes-int-or-string": true, "pattern": schema::QUANTITY, "maxLength": 32,
                    "description": "How far a metric may be off its target without a change, as a share: 0.05 is 5 %. 0.1 when absent."
                }
            }
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "scaleUp": rules("rise", "0"),
            "scaleDown": rules("fall", "300"),
        }
    })
}
