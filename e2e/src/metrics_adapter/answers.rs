//! The bodies of answers.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{CUSTOM, EXTERNAL, values::Labels};

/// An answer as JSON.
pub(super) fn ok(body: &Value) -> Response {
    with(StatusCode::OK, body)
}

fn with(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// An error as the API machinery forms it.
pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    with(
        code,
        &json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code.as_u16(),
        }),
    )
}

/// The error for a metric that nothing has.
pub(super) fn no_metric(metric: &str, resource: &str) -> Response {
    let message = format!("the server could not find the metric {metric} for {resource}");
    status(StatusCode::NOT_FOUND, "NotFound", &message)
}

/// The error for a metric that one object does not have.
pub(super) fn no_metric_for(metric: &str, resource: &str, name: &str) -> Response {
    no_metric(metric, &format!("{resource} {name}"))
}

/// What discovery tells of a group.
pub(super) fn group(name: &str, versions: &[&str]) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions.iter().map(|v| version(v)).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(|v| version(v)),
    })
}

/// What discovery tells of the resources of a version.
pub(super) fn resources(group: &str, version: &str, names: &[String]) -> Value {
    let kind = if group == EXTERNAL { "ExternalMetricValueList" } else { "MetricValueList" };
    let resource =
        |name: &String| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"]});
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{group}/{version}"),
        "resources": names.iter().map(resource).collect::<Vec<_>>(),
    })
}

/// A value of an object in custom.metrics.k8s.io.
pub(super) struct ObjectValue<'a> {
    pub(super) namespace: &'a str,
    pub(super) resource: &'a str,
    pub(super) name: &'a str,
    pub(super) metric: &'a str,
    /// The text of the metric selector that was asked with.
    pub(super) selector: &'a str,
    pub(super) quantity: &'a str,
}

impl ObjectValue<'_> {
    fn json(&self, version: &str) -> Value {
        let (kind, api_version) = match self.resource {
            "pods" => ("Pod", "/v1"),
            "services" => ("Service", "/v1"),
            "namespaces" => ("Namespace", "/v1"),
            "deployments.apps" => ("Deployment", "apps/v1"),
            "ingresses.networking.k8s.io" => ("Ingress", "networking.k8s.io/v1"),
            other => (other, "v1"),
        };
        let mut described = json!({"kind": kind, "name": self.name, "apiVersion": api_version});
        if self.resource != "namespaces" {
            described["namespace"] = json!(self.namespace);
        }
        let selector = selector(self.selector);
        let (now, value) = (now(), self.quantity);
        if version == "v1beta1" {
            json!({
                "describedObject": described, "metricName": self.metric, "selector": selector,
                "timestamp": now, "value": value,
            })
        } else {
            let metric = json!({"name": self.metric, "selector": selector});
            json!({"describedObject": described, "metric": metric, "timestamp": now, "value": value})
        }
    }
}

/// An answer of custom.metrics.k8s.io.
pub(super) fn custom_list(version: &str, values: &[ObjectValue<'_>]) -> Value {
    json!({
        "kind": "MetricValueList",
        "apiVersion": format!("{CUSTOM}/{version}"),
        "metadata": {},
        "items": values.iter().map(|value| value.json(version)).collect::<Vec<_>>(),
    })
}

/// An answer of external.metrics.k8s.io.
pub(super) fn external_list(metric: &str, series: &[(&Labels, &String)]) -> Value {
    let item = |(labels, quantity): &(&Labels, &String)| json!({"metricName": metric, "metricLabels": labels, "timestamp": now(), "value": quantity});
    json!({
        "kind": "ExternalMetricValueList",
        "apiVersion": format!("{EXTERNAL}/v1beta1"),
        "metadata": {},
        "items": series.iter().map(item).collect::<Vec<_>>(),
    })
}

/// The selector that was asked with, as far as it is of equalities, as adapters repeat it.
fn selector(text: &str) -> Value {
    let labels: serde_json::Map<String, Value> = text
        .split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    if labels.is_empty() { Value::Null } else { json!({"matchLabels": labels}) }
}

/// In whole seconds, as Kubernetes writes times.
fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string()
}
