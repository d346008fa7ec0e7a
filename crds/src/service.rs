//! The Service in front of the replicas.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// One Service, named like the workload, over the replicas of both hulls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.ports.size() == 1 || self.ports.all(p, has(p.name))")
        .message("service.ports[].name is required when there is more than one port"),
)]
pub struct Service {
    /// The ports of the Service.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(
        validation = Rule::new("self.all(p, !has(p.name) || self.exists_one(q, has(q.name) && q.name == p.name))")
            .message("service.ports[].name must be unique"),
        validation = Rule::new("self.all(p, self.exists_one(q, q.port == p.port && (has(q.protocol) ? q.protocol : 'TCP') == (has(p.protocol) ? p.protocol : 'TCP')))")
            .message("service.ports[].port must be unique within a protocol"),
    )]
    pub ports: Vec<ServicePort>,
}

/// A port of the Service, as in a Kubernetes Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The name of the port, a DNS label; required when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// The port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The port of the replica: a number or the name of a container port; the same as port when absent. A virtual
    /// machine has no named ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "target_port")]
    pub target_port: Option<IntOrString>,
    /// TCP, UDP or SCTP; TCP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "protocol")]
    pub protocol: Option<String>,
    /// The application protocol of the port, as in a Kubernetes Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub app_protocol: Option<String>,
}

/// A port number, or a port name: what a Service takes, said by schema, since CEL finds no bound for such a field.
fn target_port(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "maxLength": 15,
        "minimum": 1,
        "maximum": 65535
    })
}

fn protocol(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ["TCP", "UDP", "SCTP"] })
}
