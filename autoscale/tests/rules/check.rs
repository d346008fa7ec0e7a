//! What a policy may not say, and how that is told.

use catamaran_autoscale::{
    Behavior, Metric, Policy, Schedule,
    behavior::{Rate, Unit},
    fallback::{Fallback, FallbackBehavior},
    policy::{FromZero, Kind, PressureResource, Resource, ResourceTarget, Stall, Tolerance, ValueTarget},
    v2,
};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricSpec};
use serde_json::{Value, json};

use crate::kit::{cpu, policy, queue};

fn changed(change: impl FnOnce(&mut Policy)) -> Result<(), String> {
    let mut policy = policy(vec![cpu(50)]);
    change(&mut policy);
    policy.check().map_err(|error| error.to_string())
}

fn behavior(change: impl FnOnce(&mut Behavior)) -> Result<(), String> {
    changed(|policy| change(policy.behavior.as_mut().expect("there is one")))
}

fn metric(metric: Metric) -> Result<(), String> {
    changed(|policy| policy.metrics = vec![metric])
}

fn schedule(name: &str, min: i32) -> Schedule {
    Schedule::new(name, "UTC", "0 8 * * *", "0 9 * * *", Some(min), None).expect("a schedule")
}

#[test]
fn what_makes_sense_passes() {
    for result in [
        changed(|_| {}),
        changed(|policy| policy.behavior = None),
        changed(|policy| (policy.min, policy.metrics) = (0, vec![queue(10, Some(0))])),
        changed(|policy| (policy.min, policy.schedules) = (0, vec![schedule("a", 1)])),
        changed(|policy| (policy.min, policy.max) = (10, 10)),
        metric(Metric::Throttling { target: 100 }),
        metric(cpu(300)),
        behavior(|behavior| behavior.down.window = 3600),
    ] {
        assert_eq!(result, Ok(()));
    }
}

#[test]
fn what_does_not_is_told() {
    let share = |target| Metric::Pressure { resource: PressureResource::Memory, stall: Stall::Full, target };
    let mean = |target| Metric::Resource { resource: Resource::Memory, target: ResourceTarget::AverageValue(target) };
    for (result, wanted) in [
        (changed(|policy| policy.min = -1), "minReplicas -1 and maxReplicas 10"),
        (changed(|policy| policy.max = 0), "minReplicas 1 and maxReplicas 0"),
        (changed(|policy| policy.min = 11), "minReplicas 11 and maxReplicas 10"),
        (changed(|policy| policy.min = 0), "minReplicas 0 needs something that tells of demand"),
        (
            changed(|policy| {
                (policy.min, policy.schedules) = (0, vec![schedule("a", 1)]);
                policy.settings.from_zero = FromZero::IfScaledThere;
            }),
            "minReplicas 0 needs something that tells of demand",
        ),
        (metric(cpu(0)), "metric cpu: the target has to be above 0"),
        (metric(mean(-5)), "metric memory: the target has to be above 0"),
        (metric(queue(0, None)), "metric queue: the target has to be above 0"),
        (metric(share(0)), "metric memory pressure (full): the target has to be above 0"),
        (metric(share(101)), "metric memory pressure (full): averageUtilization is a share of the time"),
        (metric(Metric::Throttling { target: 101 }), "metric cpu throttling: averageUtilization is a share"),
        (
            metric(Metric::Prometheus { name: "p".into(), target: ValueTarget::Value(0), activation: None }),
            "metric p: the target has to be above 0",
        ),
        (metric(Metric::Invalid { kind: Kind::Pods, message: "why".into() }), "metric Pods: why"),
        (
            changed(|policy| policy.tolerance = Tolerance { up: -0.1, down: 0.1 }),
            "behavior.scaleUp.tolerance cannot be",
        ),
        (changed(|policy| policy.tolerance = Tolerance { up: 0.1, down: -0.1 }), "behavior.scaleDown.tolerance cannot"),
        (behavior(|behavior| behavior.up.window = 3601), "behavior.scaleUp.stabilizationWindowSeconds: at most 3600"),
        (behavior(|behavior| behavior.down.rates.clear()), "behavior.scaleDown.policies: leave it out"),
        (
            behavior(|behavior| behavior.up.rates.push(Rate { kind: Unit::Pods, value: 0, period: 15 })),
            "behavior.scaleUp.policies: value has to be above 0",
        ),
        (
            behavior(|behavior| behavior.down.rates.push(Rate { kind: Unit::Pods, value: 1, period: 1801 })),
            "behavior.scaleDown.policies: value has to be above 0, periodSeconds 1 to 1800",
        ),
        (changed(|policy| policy.schedules = vec![schedule("a", 1), schedule("a", 2)]), "schedules: a is there twice"),
        (
            changed(|policy| policy.schedules = vec![schedule("a", -1)]),
            "schedule a: minReplicas and maxReplicas cannot",
        ),
        (
            changed(|policy| policy.schedules = vec![schedule("a", 1), schedule("b", policy.max + 1)]),
            "schedule b: minReplicas",
        ),
        (
            changed(|policy| {
                policy.fallback = Some(Fallback { after: 0, replicas: -1, behavior: FallbackBehavior::Static });
            }),
            "fallback.replicas cannot be negative",
        ),
    ] {
        let error = result.expect_err(wanted);
        assert!(error.starts_with(wanted), "{error}");
    }
}

fn spec(value: Value) -> MetricSpec {
    serde_json::from_value(value).expect("a metric")
}

#[test]
fn metrics_of_autoscaling_v2_are_read() {
    let resource = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
    let object = |target: Value| {
        json!({"type": "Object", "object": {"metric": {"name": "rps"}, "target": target,
            "describedObject": {"kind": "Ingress", "name": "web"}}})
    };
    let external = |target: Value, selector: Value| json!({"type": "External", "external": {"metric": {"name": "queue", "selector": selector}, "target": target}});
    let invalid = |kind, message: &str| Metric::Invalid { kind, message: message.to_owned() };
    let cpu = |target| Metric::Resource { resource: Resource::Cpu, target };
    let rps = |target| Metric::Object { name: "rps".into(), object: "Ingress web".into(), target, activation: Some(7) };
    let queue = |target| Metric::External { name: "queue".into(), target, activation: Some(7) };
    for (value, wanted) in [
        (resource(json!({"type": "Utilization", "averageUtilization": 60})), cpu(ResourceTarget::Utilization(60))),
        (resource(json!({"type": "AverageValue", "averageValue": "250m"})), cpu(ResourceTarget::AverageValue(250))),
        (
            resource(json!({"type": "Utilization", "averageUtilization": 60, "averageValue": "1"})),
            cpu(ResourceTarget::AverageValue(1000)),
        ),
        (
            resource(json!({"type": "Utilization"})),
            invalid(Kind::Resource, "neither averageUtilization nor averageValue is set"),
        ),
        (
            json!({"type": "ContainerResource", "containerResource":
                {"name": "memory", "container": "app", "target": {"type": "AverageValue", "averageValue": "1Ki"}}}),
            Metric::ContainerResource {
                resource: Resource::Memory,
                container: "app".into(),
                target: ResourceTarget::AverageValue(1_024_000),
            },
        ),
        (
            json!({
                "type": "Pods",
                "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": 5}},
            }),
            Metric::Pods { name: "rps".into(), target: 5000 },
        ),
        (
            json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue"}}}),
            invalid(Kind::Pods, "averageValue is not set"),
        ),
        // For an object the type says which of the two counts; for an external metric the mean does.
        (object(json!({"type": "Value", "value": "5"})), rps(ValueTarget::Value(5000))),
        (object(json!({"type": "Value", "value": "5", "averageValue": "1"})), rps(ValueTarget::Value(5000))),
        (object(json!({"type": "AverageValue", "averageValue": "1"})), rps(ValueTarget::AverageValue(1000))),
        (
            object(json!({"type": "Value", "averageValue": "1"})),
            invalid(Kind::Object, "neither value nor averageValue is set, as the target's type says"),
        ),
        (external(json!({"type": "Value", "value": "5"}), json!(null)), queue(ValueTarget::Value(5000))),
        (
            external(json!({"type": "Value", "value": "5", "averageValue": "1"}), json!({})),
            queue(ValueTarget::AverageValue(1000)),
        ),
        (
            external(json!({"type": "Value"}), json!({})),
            invalid(Kind::External, "neither value nor averageValue is set"),
        ),
        (
            external(
                json!({"type": "Value", "value": "5"}),
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            ),
            invalid(Kind::External, "selector: In needs values"),
        ),
        (json!({"type": "External"}), invalid(Kind::External, "external is missing")),
        (json!({"type": "CheddarCheese"}), invalid(Kind::Unknown, "unknown metric source type \"CheddarCheese\"")),
    ] {
        assert_eq!(v2::metric(&spec(value.clone()), Some(7)), Ok(wanted), "{value}");
    }
    let broken = resource(json!({"type": "AverageValue", "averageValue": "a lot"}));
    assert!(v2::metric(&spec(broken), None).is_err());
}

#[test]
fn behavior_gets_the_defaults_of_the_api_server() {
    let read = |value: Value| {
        let spec: HorizontalPodAutoscalerBehavior = serde_json::from_value(value).expect("a behavior");
        v2::behavior(&spec, 120).map_err(|error| error.to_string())
    };
    let defaults = Behavior::with_defaults(120);
    assert_eq!(read(json!({})), Ok(defaults.clone()));
    assert_eq!(read(json!({"scaleUp": {}, "scaleDown": {}})), Ok(defaults.clone()));
    assert_eq!((defaults.up.window, defaults.down.window), (0, 120));
    let mut wanted = defaults.clone();
    wanted.up.rates = vec![Rate { kind: Unit::Percent, value: 10, period: 60 }];
    wanted.down.window = 0;
    assert_eq!(
        read(json!({
            "scaleUp": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0}})),
        Ok(wanted)
    );
    // An empty list is no list left out.
    assert_eq!(read(json!({"scaleUp": {"policies": []}})).expect("read").up.rates, []);
    for (value, error) in [
        (
            json!({"scaleUp": {"selectPolicy": "Most"}}),
            "selectPolicy is \"Most\"; it has to be one of Max, Min, Disabled",
        ),
        (
            json!({"scaleDown": {"stabilizationWindowSeconds": -1}}),
            "stabilizationWindowSeconds is -1; it cannot be negative",
        ),
        (
            json!({"scaleDown": {"policies": [{"type": "Nodes", "value": 1, "periodSeconds": 1}]}}),
            "policies.type is \"Nodes\"; it has to be one of Pods, Percent",
        ),
    ] {
        assert_eq!(read(value), Err(error.to_owned()));
    }
}

#[test]
fn tolerances_are_by_direction() {
    let spec: HorizontalPodAutoscalerBehavior =
        serde_json::from_value(json!({"scaleUp": {"tolerance": "50m"}, "scaleDown": {}})).expect("a behavior");
    assert_eq!(v2::tolerance(Some(&spec), Tolerance::both(0.1)), Ok(Tolerance { up: 0.05, down: 0.1 }));
    assert_eq!(v2::tolerance(None, Tolerance::both(0.2)), Ok(Tolerance::both(0.2)));
}
