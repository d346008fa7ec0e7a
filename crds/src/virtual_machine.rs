//! The virtual machine hull.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;

/// Replicas are KubeVirt VirtualMachineInstances. Either the short form (`image`, a containerDisk, with virtio devices
/// and masquerade networking), or the long form `template`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.image) != has(self.template)")
        .message("virtualMachine: set exactly one of image (short form, a containerDisk) and template (long form, a VirtualMachineInstance template)"),
    validation = Rule::new("!has(self.template) || !(has(self.cloudInit) || has(self.readinessProbe) || has(self.livenessProbe) || has(self.terminationGracePeriodSeconds))")
        .message("virtualMachine: with template, the fields of the short form must be left out; move them into template.spec"),
)]
pub struct VirtualMachineHull {
    /// The containerDisk image that the guest boots from (short form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub image: Option<String>,
    /// What cloud-init gets in the guest (a cloudInitNoCloud volume).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// When the replica may get traffic: a KubeVirt probe (httpGet, tcpSocket, exec or guestAgentPing).
    /// initialDelaySeconds means what it says, 1 when absent: the 10 s that KubeVirt adds to it are taken off (in the
    /// long form they are not).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "probe")]
    pub readiness_probe: Option<Map<String, Value>>,
    /// When the guest has to be replaced: a KubeVirt probe. initialDelaySeconds means what it says, 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "probe")]
    pub liveness_probe: Option<Map<String, Value>>,
    /// How long the guest may take to shut down, in seconds. 30 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub termination_grace_period_seconds: Option<i64>,
    /// The whole VirtualMachineInstance template (long form), as in a VirtualMachineInstanceReplicaSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<VirtualMachineTemplate>,
}

/// What cloud-init gets in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.userData) != has(self.userDataSecretRef)")
        .message("cloudInit: set exactly one of userData and userDataSecretRef"),
)]
pub struct CloudInit {
    /// User data in plain text, at most 2048 bytes; for more, or for anything secret, use userDataSecretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub user_data: Option<String>,
    /// A Secret of the same namespace with the key `userdata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_secret_ref: Option<SecretReference>,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A VirtualMachineInstance template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineTemplate {
    /// Labels and annotations of each VirtualMachineInstance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// The body of a VirtualMachineInstance; KubeVirt defines and checks its fields. Where spec.quota or spec.className
    /// is set, domain.cpu, domain.memory and domain.resources come from there and have to be left out.
    #[schemars(schema_with = "schema::vmi_spec")]
    pub spec: Map<String, Value>,
}

/// Labels and annotations of the replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A KubeVirt probe: exactly what a misspelt handler would silently lose is declared, the rest KubeVirt checks.
fn probe(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "httpGet": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "tcpSocket": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "exec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "guestAgentPing": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "initialDelaySeconds": { "type": "integer", "format": "int32", "minimum": 0 },
            "timeoutSeconds": { "type": "integer", "format": "int32", "minimum": 0 },
            "periodSeconds": { "type": "integer", "format": "int32", "minimum": 0 },
            "successThreshold": { "type": "integer", "format": "int32", "minimum": 0 },
            "failureThreshold": { "type": "integer", "format": "int32", "minimum": 0 }
        },
        "x-kubernetes-validations": [{
            "rule": "[has(self.httpGet), has(self.tcpSocket), has(self.exec), has(self.guestAgentPing)].exists_one(x, x)",
            "message": "a probe needs exactly one of httpGet, tcpSocket, exec and guestAgentPing"
        }]
    })
}
