//! Whether two templates mean the same: as the API server gives them back, with its defaults filled in and its
//! quantities in one form. A Deployment compares them so, too (`EqualIgnoreHash` in
//! `pkg/controller/deployment/util/deployment_util.go`).
//!
//! Beyond that, the order of lists that are keyed by a name does not matter, and virtual machines' quantities, which no
//! API server reads, are compared as numbers.

use catamaran_autoscale::quantity;
use catamaran_crds::names::{NODE_QUOTA_ANNOTATION, REVISION_LABEL, TEMPLATE_QUOTA_ANNOTATION};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};

use crate::goal::{InPlace, in_place::quality_of_service, revision::Template};

/// Whether nothing but what can change in place differs.
#[must_use]
pub fn is_alike(in_place: &InPlace, a: &Template, b: &Template) -> bool {
    class(a) == class(b) && canonical(in_place, a) == canonical(in_place, b)
}

/// The QoS class of a pod, which a resize may not change.
fn class(template: &Template) -> Option<&'static str> {
    match template {
        Template::Container(pod) => Some(pod.spec.as_ref().map_or("", quality_of_service)),
        Template::VirtualMachine(_) => None,
    }
}

fn canonical(in_place: &InPlace, template: &Template) -> Value {
    let mut template = template.clone();
    let metadata = template.metadata_mut();
    metadata.creation_timestamp = None;
    if let Some(labels) = &mut metadata.labels {
        labels.remove(REVISION_LABEL);
    }
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(NODE_QUOTA_ANNOTATION);
        annotations.remove(TEMPLATE_QUOTA_ANNOTATION);
    }
    metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
    let value = match &template {
        Template::Container(pod) => serde_json::to_value(pod),
        Template::VirtualMachine(machine) => serde_json::to_value(machine),
    };
    // The types hold string keys and plain values only.
    let mut value = value.unwrap_or_default();
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        of_pod(in_place, spec);
    }
    amounts(&mut value);
    value
}

/// The parts of a pod's spec that are taken for the same.
fn of_pod(in_place: &InPlace, spec: &mut Map<String, Value>) {
    by_key(spec, "volumes", "name");
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            by_key(container, "volumeMounts", "mountPath");
            by_key(container, "ports", "containerPort");
            // What a value refers to has to stand before it.
            if !container.get("env").is_some_and(|env| env.to_string().contains("$(")) {
                by_key(container, "env", "name");
            }
            let changes = in_place.resources.is_some()
                && container.get("name").and_then(Value::as_str) == Some(in_place.container.as_str());
            if let Some(resources) = container
                .get_mut("resources")
                .and_then(Value::as_object_mut)
                .filter(|_| list == "containers" && changes)
            {
                resources.remove("requests");
                resources.remove("limits");
            }
        }
    }
}

/// Sorts a list by a key that no two of its items share.
fn by_key(owner: &mut Map<String, Value>, list: &str, key: &str) {
    let Some(items) = owner.get_mut(list).and_then(Value::as_array_mut) else { return };
    let name = |item: &Value| item.get(key).map(Value::to_string).unwrap_or_default();
    let mut sorted = items.clone();
    sorted.sort_by_key(name);
    if sorted.windows(2).all(|pair| name(&pair[0]) != name(&pair[1])) {
        *items = sorted;
    }
}

/// Puts quantities into one form, where the field's name says that it is one.
fn amounts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("requests" | "limits" | "overhead", Value::Object(amounts)) => {
                        amounts.values_mut().for_each(amount);
                    }
                    ("guest" | "maxGuest" | "capacity" | "sizeLimit", value) if !value.is_object() => amount(value),
                    (_, value) => amounts(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(amounts),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn amount(value: &mut Value) {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return,
    };
    if let Ok(thousandths) = quantity::milli(&Quantity(text)) {
        *value = Value::from(thousandths);
    }
}
