//! The CustomResourceDefinitions: our own, with no more than Catamaran writes, or KubeVirt's.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::wait::eventually;

/// Installs the definitions and waits until they are served. `folder` holds KubeVirt's own as JSON files; without it,
/// ours are taken.
///
/// # Errors
/// When a file cannot be read or the API server refuses it.
pub(super) async fn install(client: &Client, folder: Option<&Path>) -> Result<()> {
    let definitions = match folder {
        Some(folder) => ["virtualmachineinstancereplicasets", "virtualmachineinstances"]
            .iter()
            .map(|name| {
                let path = folder.join(format!("{name}.json"));
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok(serde_json::from_str(&text)?)
            })
            .collect::<Result<Vec<CustomResourceDefinition>>>()?,
        None => vec![serde_json::from_value(replica_sets())?, serde_json::from_value(instances())?],
    };
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for mut definition in definitions {
        let name = definition.name_any();
        definition.metadata.managed_fields = None;
        definition.metadata.resource_version = None;
        definition.metadata.uid = None;
        definition.status = None;
        api.patch(&name, &PatchParams::apply("virt-operator").force(), &Patch::Apply(&definition)).await?;
        let api = &api;
        let name = &name;
        eventually(&format!("{name} is served"), Duration::from_secs(20), || async move {
            let conditions = api.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(()))
        })
        .await?;
    }
    Ok(())
}

fn definition(kind: &str, plural: &str, short: [&str; 2], version: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.kubevirt.io")},
        "spec": {
            "group": "kubevirt.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "shortNames": short, "categories": ["all"]},
            "versions": [version],
        },
    })
}

fn replica_sets() -> Value {
    let schema = object(&json!({
        "metadata": {"type": "object"},
        "spec": required(&["selector", "template"], &json!({
            "replicas": {"type": "integer", "format": "int32"},
            "paused": {"type": "boolean"},
            "selector": selector(),
            "template": object(&json!({
                // virt-api reads the template with Go's types, and a label has to be text.
                "metadata": {"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true},
                "spec": instance_spec(),
            })),
        })),
        "status": object(&json!({
            "replicas": {"type": "integer", "format": "int32"},
            "readyReplicas": {"type": "integer", "format": "int32"},
            "labelSelector": {"type": "string"},
            "conditions": conditions(),
        })),
    }));
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.labelSelector",
            },
        },
        "additionalPrinterColumns": [
            {"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Current", "type": "integer", "jsonPath": ".status.replicas"},
            {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    });
    definition("VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets", ["vmirs", "vmirss"], &version)
}

/// KubeVirt gives the VMI no status subresource.
fn instances() -> Value {
    let schema = object(&json!({
        "metadata": {"type": "object"},
        "spec": instance_spec(),
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "phase": {"type": "string"},
            "nodeName": {"type": "string"},
            "reason": {"type": "string"},
            "conditions": conditions(),
        }},
    }));
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            {"name": "NodeName", "type": "string", "jsonPath": ".status.nodeName"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
        ],
    });
    definition("VirtualMachineInstance", "virtualmachineinstances", ["vmi", "vmis"], &version)
}

/// The body of a VMI: strict in what Catamaran's short form and its quota write, open where only a long form goes.
fn instance_spec() -> Value {
    let quantities = json!({"type": "object", "additionalProperties": quantity()});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let open_list = json!({"type": "array", "items": open});
    required(
        &["domain"],
        &json!({
            "domain": required(&["devices"], &json!({
                "cpu": object(&json!({
                    "sockets": {"type": "integer"}, "cores": {"type": "integer"}, "threads": {"type": "integer"},
                    "maxSockets": {"type": "integer"}, "model": {"type": "string"}, "dedicatedCpuPlacement": {"type": "boolean"},
                })),
                "memory": object(&json!({"guest": quantity(), "maxGuest": quantity(), "hugepages": open})),
                "resources": object(&json!({"requests": quantities, "limits": quantities})),
                "devices": object(&json!({
                    "disks": list(&required(&["name"], &json!({
                        "name": {"type": "string"},
                        "disk": object(&json!({"bus": {"type": "string"}, "readonly": {"type": "boolean"}})),
                        "bootOrder": {"type": "integer"},
                    }))),
                    "interfaces": list(&required(&["name"], &json!({
                        "name": {"type": "string"}, "model": {"type": "string"},
                        "masquerade": object(&json!({})), "bridge": object(&json!({})), "ports": open_list,
                    }))),
                    "rng": object(&json!({})),
                    "autoattachGraphicsDevice": {"type": "boolean"},
                    "autoattachSerialConsole": {"type": "boolean"},
                })),
                "machine": object(&json!({"type": {"type": "string"}})),
                "firmware": open,
                "features": open,
                "clock": open,
            })),
            "networks": list(&required(&["name"], &json!({"name": {"type": "string"}, "pod": object(&json!({}))}))),
            "volumes": list(&required(&["name"], &json!({
                "name": {"type": "string"},
                "containerDisk": required(&["image"], &json!({
                    "image": {"type": "string"}, "imagePullPolicy": {"type": "string"}, "imagePullSecret": {"type": "string"}, "path": {"type": "string"},
                })),
                "cloudInitNoCloud": object(&json!({
                    "userData": {"type": "string"}, "userDataBase64": {"type": "string"},
                    "secretRef": object(&json!({"name": {"type": "string"}})),
                })),
                "emptyDisk": object(&json!({"capacity": quantity()})),
                "secret": open, "configMap": open, "persistentVolumeClaim": open,
            }))),
            "readinessProbe": probe(),
            "livenessProbe": probe(),
            "terminationGracePeriodSeconds": {"type": "integer", "format": "int64"},
            "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
            "affinity": open,
            "tolerations": open_list,
            "topologySpreadConstraints": open_list,
            "priorityClassName": {"type": "string"},
            "schedulerName": {"type": "string"},
            "hostname": {"type": "string"},
            "subdomain": {"type": "string"},
            "architecture": {"type": "string"},
            "evictionStrategy": {"type": "string"},
        }),
    )
}

fn probe() -> Value {
    let port = json!({"x-kubernetes-int-or-string": true});
    object(&json!({
        "httpGet": required(&["port"], &json!({
            "path": {"type": "string"}, "port": port, "host": {"type": "string"}, "scheme": {"type": "string"},
            "httpHeaders": list(&object(&json!({"name": {"type": "string"}, "value": {"type": "string"}}))),
        })),
        "tcpSocket": required(&["port"], &json!({"port": port, "host": {"type": "string"}})),
        "exec": object(&json!({"command": list(&json!({"type": "string"}))})),
        "guestAgentPing": object(&json!({})),
        "initialDelaySeconds": {"type": "integer"}, "timeoutSeconds": {"type": "integer"}, "periodSeconds": {"type": "integer"},
        "successThreshold": {"type": "integer"}, "failureThreshold": {"type": "integer"},
    }))
}

fn conditions() -> Value {
    let time = json!({"type": "string", "format": "date-time", "nullable": true});
    list(&required(
        &["type", "status"],
        &json!({
            "type": {"type": "string"}, "status": {"type": "string"}, "reason": {"type": "string"}, "message": {"type": "string"},
            "lastProbeTime": time, "lastTransitionTime": time,
        }),
    ))
}

fn selector() -> Value {
    object(&json!({
        "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
        "matchExpressions": list(&required(&["key", "operator"], &json!({
            "key": {"type": "string"}, "operator": {"type": "string"}, "values": list(&json!({"type": "string"})),
        }))),
    }))
}

fn object(properties: &Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn required(names: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": names, "properties": properties})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

fn quantity() -> Value {
    json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
}
