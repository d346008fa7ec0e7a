//! Helpers for the generated schema.

use k8s_openapi::{
    api::core::v1::PodTemplateSpec, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::CustomResourceExt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::{ElasticWorkload, WorkloadClass};

/// The CustomResourceDefinitions of our kinds, as they are installed.
///
/// # Panics
/// Never in a released build: the input is this crate's own types, and a test renders it.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [ElasticWorkload::crd(), WorkloadClass::crd()].map(|definition| {
        // An empty field (`service:`) is a slip of the pen that null would hide; it is refused by type instead.
        let mut value = serde_json::to_value(definition).expect("a CustomResourceDefinition is JSON");
        strip_nullable(&mut value);
        serde_json::from_value(value).expect("still a CustomResourceDefinition")
    })
}

fn strip_nullable(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(strip_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nullable),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The pattern of a Kubernetes quantity, as controller-gen writes it into CRDs.
pub(crate) const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// A quantity: a number, or text such as `250m` or `512Mi`.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "pattern": QUANTITY, "maxLength": 32 })
}

/// A count, or a percentage of the wanted replicas.
pub(crate) fn count_or_percentage(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "pattern": "^(100|[0-9]{1,2})%$", "maxLength": 4, "minimum": 0 })
}

/// A count, or a percentage of the wanted replicas that may be more than all of them, as of a Deployment's maxSurge.
pub(crate) fn count_or_any_percentage(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "pattern": "^[0-9]{1,6}%$", "maxLength": 7, "minimum": 0 })
}

/// A PodTemplateSpec without the descriptions that `kubectl explain deployment.spec.template` shows as well.
pub(crate) fn pod_template(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<PodTemplateSpec>().to_value();
    each_object(&mut schema, take_any_quantity);
    each_object(&mut schema, take_references_without_a_name);
    each_object(&mut schema, strip_descriptions);
    // Only what a ReplicaSet takes over into its pods.
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "properties": {
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            "annotations": { "type": "object", "additionalProperties": { "type": "string" } }
        }
    });
    schema.try_into().unwrap_or_default()
}

/// A Deployment takes `cpu: 0.5` as well, which int-or-string refuses; a schema without a type takes any value. What is
/// no quantity then makes the object unreadable, which the operator reports with the field's name.
fn take_any_quantity(fields: &mut Map<String, Value>) {
    // How Kubernetes' text on the type begins; the schema itself is that of an IntOrString.
    if is_described(fields, "Quantity is a fixed-point") {
        fields.clear();
        fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
    }
}

/// Kubernetes takes an empty text for the name that is left out, and a Deployment runs with `imagePullSecrets: [{}]`.
fn take_references_without_a_name(fields: &mut Map<String, Value>) {
    if is_described(fields, "LocalObjectReference contains") {
        fields.remove("required");
    }
}

/// Whether the text on a type begins so.
fn is_described(fields: &Map<String, Value>, text: &str) -> bool {
    fields.get("description").and_then(Value::as_str).is_some_and(|found| found.starts_with(text))
}

/// The schema of `T` without descriptions. Kubernetes' own texts would make our CRD larger than
/// `kubectl apply` can note in its last-applied annotation (262,144 bytes).
pub(crate) fn bare<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>().to_value();
    each_object(&mut schema, strip_descriptions);
    schema.try_into().unwrap_or_default()
}

/// `bare` for an optional field.
pub(crate) fn bare_option<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    bare::<T>(generator)
}

/// A JSON object whose fields the operator alone reads.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A JSON object whose fields KubeVirt checks; only what our rules look at is declared.
pub(crate) fn vmi_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["domain"],
        "properties": {
            "domain": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
        }
    })
}

fn strip_descriptions(fields: &mut Map<String, Value>) {
    // A property may itself be called `description`; only a text is documentation.
    if fields.get("description").is_some_and(Value::is_string) {
        fields.remove("description");
    }
}

/// Changes every object of a schema, from the outside in.
fn each_object(schema: &mut Value, change: fn(&mut Map<String, Value>)) {
    match schema {
        Value::Object(fields) => {
            change(fields);
            fields.values_mut().for_each(|value| each_object(value, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
