//! The container hull.

use k8s_openapi::api::core::v1::{
    ContainerPort, EnvFromSource, EnvVar, Lifecycle, PodTemplateSpec, Probe, SecurityContext,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Replicas are pods. Either the short form (one container: `image` and the fields of a Kubernetes Container, without
/// resources, which are the quota's), or the long form `template`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.image) != has(self.template)")
        .message("container: set exactly one of image (short form, one container) and template (long form, a pod template)"),
    validation = Rule::new("!has(self.template) || !(has(self.imagePullPolicy) || has(self.command) || has(self.args) || has(self.workingDir) || has(self.ports) || has(self.env) || has(self.envFrom) || has(self.readinessProbe) || has(self.livenessProbe) || has(self.startupProbe) || has(self.lifecycle) || has(self.securityContext))")
        .message("container: with template, the fields of the short form must be left out; move them into template.spec.containers"),
    validation = Rule::new(
        "!has(self.template) || (has(self.template.spec) && size(self.template.spec.containers) > 0)"
    )
        .message("container.template.spec.containers needs at least one container"),
    validation = Rule::new("!has(self.template) || !has(self.template.spec) || !has(self.template.spec.restartPolicy) || self.template.spec.restartPolicy == 'Always'")
        .message("container.template.spec.restartPolicy must be Always or left out: a replica that ends is started again"),
)]
pub struct ContainerHull {
    /// The image of the container (short form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub image: Option<String>,
    /// When the image is pulled: Always, Never or IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pull_policy")]
    pub image_pull_policy: Option<String>,
    /// The entry point, instead of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments of the entry point, instead of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The working directory, instead of the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Ports that the container listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<ContainerPort>>")]
    pub ports: Vec<ContainerPort>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<EnvVar>>")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets of the same namespace whose entries become environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::bare::<Vec<EnvFromSource>>")]
    pub env_from: Vec<EnvFromSource>,
    /// When the replica may get traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<Probe>")]
    pub readiness_probe: Option<Box<Probe>>,
    /// When the container has to be restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<Probe>")]
    pub liveness_probe: Option<Box<Probe>>,
    /// When the container has started; the other probes wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<Probe>")]
    pub startup_probe: Option<Box<Probe>>,
    /// What runs after the start and before the end of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<Lifecycle>")]
    pub lifecycle: Option<Box<Lifecycle>>,
    /// Security options of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bare_option::<SecurityContext>")]
    pub security_context: Option<Box<SecurityContext>>,
    /// The whole pod, as in a Deployment (long form). The quota is that of its first container, or of the one named in
    /// the annotation kubectl.kubernetes.io/default-container; other containers keep the resources written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pod_template")]
    pub template: Option<Box<PodTemplateSpec>>,
}

fn pull_policy(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ["Always", "Never", "IfNotPresent"] })
}
