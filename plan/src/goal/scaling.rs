//! From `spec.scaling` to the [`Policy`] that decisions are made by. What the schema and its rules let through and
//! still cannot be done is an [`Invalid`] that names the field.

use catamaran_crds as crds;
use crds::scaling::{PressureKind, PressureResource};
use k8s_openapi::{api::autoscaling::v2::MetricSpec, apimachinery::pkg::api::resource::Quantity};

use crate::goal::Invalid;
use catamaran_autoscale::{
    fallback::{Fallback, FallbackBehavior},
    policy::{self, Metric, Mode, Policy, Settings, Stall, Tolerance, ValueTarget},
    quantity::milli,
    schedule::Schedule,
    v2,
    victims::Victims,
};

/// Resolves `spec.scaling`.
///
/// # Errors
/// When a quantity, a time zone or a cron expression cannot be read.
pub fn resolve(scaling: &crds::Scaling, settings: Settings) -> Result<Policy, Invalid> {
    let metrics = scaling.metrics.iter().enumerate().map(|(index, metric)| resolve_metric(index, metric));
    let of_behavior = |error: v2::InvalidSpec| Invalid::field("spec.scaling.behavior", error.to_string());
    let policy = Policy {
        mode: match scaling.mode.unwrap_or_default() {
            crds::ScalingMode::Auto => Mode::Auto,
            crds::ScalingMode::Recommend => Mode::Recommend,
            crds::ScalingMode::Hold => Mode::Hold,
            crds::ScalingMode::Off => Mode::Off,
        },
        min: scaling.min_replicas.unwrap_or(1),
        max: scaling.max_replicas,
        metrics: metrics.collect::<Result<_, _>>()?,
        tolerance: v2::tolerance(scaling.behavior.as_ref(), Tolerance::default()).map_err(of_behavior)?,
        // Rates hold without `behavior`, too: "double at a decision" means little when there is one every second.
        behavior: Some(
            v2::behavior(&scaling.behavior.clone().unwrap_or_default(), settings.downscale_stabilization)
                .map_err(of_behavior)?,
        ),
        schedules: scaling.schedules.iter().enumerate().map(resolve_schedule).collect::<Result<_, _>>()?,
        fallback: scaling.fallback.as_ref().map(|fallback| Fallback {
            after: unsigned(fallback.after_seconds.unwrap_or(60)),
            replicas: fallback.replicas,
            behavior: match fallback.behavior.unwrap_or_default() {
                crds::FallbackBehavior::Static => FallbackBehavior::Static,
                crds::FallbackBehavior::CurrentReplicas => FallbackBehavior::CurrentReplicas,
                crds::FallbackBehavior::CurrentReplicasIfHigher => FallbackBehavior::CurrentReplicasIfHigher,
                crds::FallbackBehavior::CurrentReplicasIfLower => FallbackBehavior::CurrentReplicasIfLower,
            },
        }),
        settings,
    };
    policy.check().map_err(|error| Invalid::field("spec.scaling", error.to_string()))?;
    Ok(policy)
}

/// How victims are chosen.
#[must_use]
pub fn victims(scaling: Option<&crds::Scaling>) -> Victims {
    match scaling.and_then(|scaling| scaling.victims).unwrap_or_default() {
        crds::Victims::Default => Victims::Default,
        crds::Victims::LeastBusy => Victims::LeastBusy,
        crds::Victims::Newest => Victims::Newest,
    }
}

fn resolve_metric(index: usize, metric: &crds::ScalingMetric) -> Result<Metric, Invalid> {
    let at = |field: &str| format!("spec.scaling.metrics[{index}].{field}");
    // The schema's rules see to it that the field of the type is there.
    let missing = |field: &str| Invalid::field(&at(field), "is missing; a metric needs the field that its type names");
    let activation = metric.activation.as_ref().map(|quantity| thousandths(quantity, &at("activation"))).transpose()?;
    Ok(match metric.type_ {
        crds::MetricType::Resource
        | crds::MetricType::ContainerResource
        | crds::MetricType::Pods
        | crds::MetricType::Object
        | crds::MetricType::External => {
            let spec = MetricSpec {
                type_: format!("{:?}", metric.type_),
                resource: metric.resource.clone(),
                container_resource: metric.container_resource.as_deref().cloned(),
                pods: metric.pods.as_deref().cloned(),
                object: metric.object.as_deref().cloned(),
                external: metric.external.as_deref().cloned(),
            };
            v2::metric(&spec, activation)
                .map_err(|error| Invalid::field(&format!("spec.scaling.metrics[{index}]"), error.to_string()))?
        }
        crds::MetricType::Prometheus => {
            let source = metric.prometheus.as_ref().ok_or_else(|| missing("prometheus"))?;
            Metric::Prometheus {
                name: source.query.clone(),
                target: value_target(
                    source.target.value.as_ref(),
                    source.target.average_value.as_ref(),
                    &at("prometheus.target"),
                )?,
                activation,
            }
        }
        crds::MetricType::Pressure => {
            let source = metric.pressure.as_ref().ok_or_else(|| missing("pressure"))?;
            Metric::Pressure {
                resource: match source.resource {
                    PressureResource::Cpu => policy::PressureResource::Cpu,
                    PressureResource::Memory => policy::PressureResource::Memory,
                    PressureResource::Io => policy::PressureResource::Io,
                },
                stall: match source.kind.unwrap_or_default() {
                    PressureKind::Some => Stall::Some,
                    PressureKind::Full => Stall::Full,
                },
                target: source.target.average_utilization,
            }
        }
        crds::MetricType::Throttling => {
            let source = metric.throttling.as_ref().ok_or_else(|| missing("throttling"))?;
            Metric::Throttling { target: source.target.average_utilization }
        }
    })
}

fn value_target(value: Option<&Quantity>, average: Option<&Quantity>, field: &str) -> Result<ValueTarget, Invalid> {
    match (value, average) {
        (Some(value), None) => Ok(ValueTarget::Value(positive(value, &format!("{field}.value"))?)),
        (None, Some(value)) => Ok(ValueTarget::AverageValue(positive(value, &format!("{field}.averageValue"))?)),
        (None, None) | (Some(_), Some(_)) => Err(Invalid::field(field, "set exactly one of value and averageValue")),
    }
}

fn thousandths(quantity: &Quantity, field: &str) -> Result<i64, Invalid> {
    milli(quantity).map_err(|error| Invalid::field(field, error.to_string()))
}

/// As for a HorizontalPodAutoscaler, whose API server refuses targets of zero and less.
fn positive(quantity: &Quantity, field: &str) -> Result<i64, Invalid> {
    match thousandths(quantity, field)? {
        value if value > 0 => Ok(value),
        _ => Err(Invalid::field(field, "must be above 0")),
    }
}

fn unsigned(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn resolve_schedule((index, schedule): (usize, &crds::Schedule)) -> Result<Schedule, Invalid> {
    let zone = schedule.time_zone.as_deref().unwrap_or("UTC");
    Schedule::new(&schedule.name, zone, &schedule.start, &schedule.end, schedule.min_replicas, schedule.max_replicas)
        .map_err(|error| Invalid::field(&format!("spec.scaling.schedules[{index}]"), error.to_string()))
}
