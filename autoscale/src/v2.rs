//! From `autoscaling/v2` as a user writes it to what a decision works with, with the API server's defaults.
//!
//! Source: `SetDefaults_HorizontalPodAutoscaler` in `pkg/apis/autoscaling/v2/defaults.go`. What the API server would
//! refuse (negative periods, unknown policies) is refused here. A metric that it accepts but the HPA cannot compute
//! becomes [`Metric::Invalid`], which fails at every decision as it does there.

use k8s_openapi::{
    api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior, MetricSpec, MetricTarget},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};

use super::{
    behavior::{Behavior, Rate, Rules, Select, Unit},
    policy::{Kind, Metric, Resource, ResourceTarget, Tolerance, ValueTarget},
    quantity::{float, milli},
};
use crate::quantity::NotAQuantity;

/// Why something of `autoscaling/v2` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// A quantity cannot be read.
    #[error(transparent)]
    Quantity(#[from] NotAQuantity),
    /// A number of seconds is negative.
    #[error("{field} is {value}; it cannot be negative")]
    Negative {
        /// The field.
        field: &'static str,
        /// What it is.
        value: i32,
    },
    /// A word is none of those that are known.
    #[error("{field} is {value:?}; it has to be one of {known}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        known: &'static str,
    },
}

/// The metric that the API server puts in where none is given: 80 % of the cpu that the pods ask for.
#[must_use]
pub fn default_metric() -> Metric {
    Metric::Resource { resource: Resource::Cpu, target: ResourceTarget::Utilization(80) }
}

/// Reads one of `spec.metrics`. The activation is ours and not part of autoscaling/v2; see [`super::activation`].
///
/// # Errors
/// When a quantity cannot be read.
pub fn metric(spec: &MetricSpec, activation: Option<i64>) -> Result<Metric, InvalidSpec> {
    let invalid = |kind, message: &str| Metric::Invalid { kind, message: message.to_owned() };
    Ok(match spec.type_.as_str() {
        "Resource" => match &spec.resource {
            None => invalid(Kind::Resource, "resource is missing"),
            Some(source) => match resource_target(&source.target)? {
                None => invalid(Kind::Resource, "neither averageUtilization nor averageValue is set"),
                Some(target) => Metric::Resource { resource: source.name.as_str().into(), target },
            },
        },
        "ContainerResource" => match &spec.container_resource {
            None => invalid(Kind::ContainerResource, "containerResource is missing"),
            Some(source) => match resource_target(&source.target)? {
                None => invalid(Kind::ContainerResource, "neither averageUtilization nor averageValue is set"),
                Some(target) => Metric::ContainerResource {
                    resource: source.name.as_str().into(),
                    container: source.container.clone(),
                    target,
                },
            },
        },
        "Pods" => match &spec.pods {
            None => invalid(Kind::Pods, "pods is missing"),
            Some(source) => match (selector(source.metric.selector.as_ref()), &source.target.average_value) {
                (Err(message), _) => invalid(Kind::Pods, &message),
                (Ok(()), None) => invalid(Kind::Pods, "averageValue is not set"),
                (Ok(()), Some(target)) => Metric::Pods { name: source.metric.name.clone(), target: milli(target)? },
            },
        },
        "Object" => match &spec.object {
            None => invalid(Kind::Object, "object is missing"),
            Some(source) => match (selector(source.metric.selector.as_ref()), object_target(&source.target)?) {
                (Err(message), _) => invalid(Kind::Object, &message),
                (Ok(()), None) => {
                    invalid(Kind::Object, "neither value nor averageValue is set, as the target's type says")
                }
                (Ok(()), Some(target)) => Metric::Object {
                    name: source.metric.name.clone(),
                    object: format!("{} {}", source.described_object.kind, source.described_object.name),
                    target,
                    activation,
                },
            },
        },
        "External" => match &spec.external {
            None => invalid(Kind::External, "external is missing"),
            Some(source) => match (selector(source.metric.selector.as_ref()), external_target(&source.target)?) {
                (Err(message), _) => invalid(Kind::External, &message),
                (Ok(()), None) => invalid(Kind::External, "neither value nor averageValue is set"),
                (Ok(()), Some(target)) => Metric::External { name: source.metric.name.clone(), target, activation },
            },
        },
        other => invalid(Kind::Unknown, &format!("unknown metric source type {other:?}")),
    })
}

/// A mean counts before a utilization, as in the HPA.
fn resource_target(target: &MetricTarget) -> Result<Option<ResourceTarget>, NotAQuantity> {
    Ok(match &target.average_value {
        Some(value) => Some(ResourceTarget::AverageValue(milli(value)?)),
        None => target.average_utilization.map(ResourceTarget::Utilization),
    })
}

/// The type says which of the two counts.
fn object_target(target: &MetricTarget) -> Result<Option<ValueTarget>, NotAQuantity> {
    value_target(
        target.value.as_ref().filter(|_| target.type_ == "Value"),
        target.average_value.as_ref().filter(|_| target.type_ == "AverageValue"),
    )
}

/// Whatever the type says, a mean counts before a value.
fn external_target(target: &MetricTarget) -> Result<Option<ValueTarget>, NotAQuantity> {
    value_target(target.value.as_ref(), target.average_value.as_ref())
}

fn value_target(value: Option<&Quantity>, average: Option<&Quantity>) -> Result<Option<ValueTarget>, NotAQuantity> {
    Ok(match (average, value) {
        (Some(average), _) => Some(ValueTarget::AverageValue(milli(average)?)),
        (None, Some(value)) => Some(ValueTarget::Value(milli(value)?)),
        (None, None) => None,
    })
}

/// Whether a label selector of a metric can be used.
fn selector(selector: Option<&LabelSelector>) -> Result<(), String> {
    let expressions = selector.and_then(|selector| selector.match_expressions.as_deref()).unwrap_or_default();
    for expression in expressions {
        let values = expression.values.as_deref().unwrap_or_default().len();
        match (expression.operator.as_str(), values) {
            ("In" | "NotIn", 1..) | ("Exists" | "DoesNotExist", 0) => {}
            ("In" | "NotIn", _) => return Err(format!("selector: {} needs values", expression.operator)),
            ("Exists" | "DoesNotExist", _) => return Err(format!("selector: {} takes no values", expression.operator)),
            (other, _) => return Err(format!("selector: {other:?} is no operator")),
        }
    }
    Ok(())
}

/// Reads `spec.behavior`. `downscale_stabilization` is what an unset window of `scaleDown` becomes, in seconds.
///
/// # Errors
/// When a period or window is negative, or a word is unknown.
pub fn behavior(spec: &HorizontalPodAutoscalerBehavior, downscale_stabilization: u32) -> Result<Behavior, InvalidSpec> {
    let defaults = Behavior::with_defaults(downscale_stabilization);
    Ok(Behavior {
        up: rules(spec.scale_up.as_ref(), defaults.up)?,
        down: rules(spec.scale_down.as_ref(), defaults.down)?,
    })
}

/// The tolerances of `spec.behavior`; `default` where it has none.
///
/// # Errors
/// When a quantity cannot be read.
pub fn tolerance(spec: Option<&HorizontalPodAutoscalerBehavior>, default: Tolerance) -> Result<Tolerance, InvalidSpec> {
    let of = |rules: Option<&HPAScalingRules>, default: f64| {
        rules.and_then(|rules| rules.tolerance.as_ref()).map_or(Ok(default), float)
    };
    Ok(Tolerance {
        up: of(spec.and_then(|spec| spec.scale_up.as_ref()), default.up)?,
        down: of(spec.and_then(|spec| spec.scale_down.as_ref()), default.down)?,
    })
}

fn rules(spec: Option<&HPAScalingRules>, defaults: Rules) -> Result<Rules, InvalidSpec> {
    let Some(spec) = spec else { return Ok(defaults) };
    Ok(Rules {
        window: match spec.stabilization_window_seconds {
            Some(window) => seconds("stabilizationWindowSeconds", window)?,
            None => defaults.window,
        },
        select: match spec.select_policy.as_deref() {
            None => defaults.select,
            Some("Max") => Select::Max,
            Some("Min") => Select::Min,
            Some("Disabled") => Select::Disabled,
            Some(other) => return Err(unknown("selectPolicy", other, "Max, Min, Disabled")),
        },
        rates: match &spec.policies {
            None => defaults.rates,
            Some(policies) => policies
                .iter()
                .map(|policy| {
                    let kind = match policy.type_.as_str() {
                        "Pods" => Unit::Pods,
                        "Percent" => Unit::Percent,
                        other => return Err(unknown("policies.type", other, "Pods, Percent")),
                    };
                    Ok(Rate {
                        kind,
                        value: policy.value,
                        period: seconds("policies.periodSeconds", policy.period_seconds)?,
                    })
                })
                .collect::<Result<_, _>>()?,
        },
    })
}

fn seconds(field: &'static str, value: i32) -> Result<u32, InvalidSpec> {
    u32::try_from(value).map_err(|_| InvalidSpec::Negative { field, value })
}

fn unknown(field: &'static str, value: &str, known: &'static str) -> InvalidSpec {
    InvalidSpec::Unknown { field, value: value.to_owned(), known }
}
