//! What of a template can change without a restart, and a hash over the rest.

use catamaran_crds::names::NODE_QUOTA_ANNOTATION;
use catamaran_protocol::node_quota::NodeQuota;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use crate::goal::{quota::Quota, revision::Template};

/// The container of a launcher pod that runs the guest (KubeVirt).
pub const GUEST_CONTAINER: &str = "compute";

/// What of a template can change in place, and the rest of it as a hash.
#[derive(Clone, Debug, PartialEq)]
pub struct InPlace {
    /// A hash over what cannot: a replica set with the same one can become like this template.
    pub hash: String,
    /// The container of the quota.
    pub container: String,
    /// CPU and memory of that container as a pod has them, where those can change in place.
    pub resources: Option<Quota>,
    /// What the node agent holds.
    pub node_quota: Option<NodeQuota>,
}

impl InPlace {
    /// Of pods. CPU and memory change in place unless that restarts the container, or Kubernetes refuses it: in pods
    /// with resources of their own or for Windows.
    pub(crate) fn of_pod(
        template: &PodTemplateSpec,
        container: &str,
        quota: Quota,
        node_quota: Option<NodeQuota>,
    ) -> Self {
        let mut rest = template.clone();
        let mut class = "";
        let mut resources = None;
        let spec = rest.spec.get_or_insert_default();
        if !quota.is_empty() && spec.resources.is_none() && spec.os.as_ref().is_none_or(|os| os.name == "linux") {
            // A resize may not change it, so another one is another revision.
            class = quality_of_service(spec);
            let target = spec.containers.iter_mut().find(|target| target.name == container);
            if let Some(target) = target.filter(|target| !restarts(target)) {
                resources = Some(quota.with_defaults());
                if let Some(own) = &mut target.resources {
                    (own.requests, own.limits) = (None, None);
                }
            }
        }
        let hash = hash(Template::Container(Box::new(rest)), class);
        Self { hash, container: container.to_owned(), resources, node_quota }
    }

    /// Of virtual machines: what the node agent holds in the launcher pod.
    pub(crate) fn of_machine(template: &Template, node_quota: Option<NodeQuota>) -> Self {
        let hash = hash(template.clone(), "");
        Self { hash, container: GUEST_CONTAINER.to_owned(), resources: None, node_quota }
    }

    /// The text of the annotation.
    #[must_use]
    pub fn annotation(&self) -> Option<String> {
        self.node_quota.as_ref().map(NodeQuota::to_annotation)
    }
}

fn hash(mut rest: Template, class: &str) -> String {
    let metadata = rest.metadata_mut();
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(NODE_QUOTA_ANNOTATION);
        if annotations.is_empty() {
            metadata.annotations = None;
        }
    }
    rest.hash(class)
}

fn restarts(container: &Container) -> bool {
    container.resize_policy.iter().flatten().any(|policy| policy.restart_policy == "RestartContainer")
}

/// The pod's class (`GetPodQOS`, `pkg/apis/core/v1/helper/qos`), of which a resize may make no other.
pub(crate) fn quality_of_service(spec: &PodSpec) -> &'static str {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    // Zero counts as absent.
    let amount = |value: Option<u64>| value.filter(|value| *value > 0);
    let quotas: Vec<Quota> = all
        .map(|container| container.resources.as_ref().map(Quota::of_container).unwrap_or_default().with_defaults())
        .collect();
    let guaranteed = |quota: &Quota| {
        amount(quota.cpu_limit).is_some()
            && amount(quota.memory_limit).is_some()
            && quota.cpu_request == quota.cpu_limit
            && quota.memory_request == quota.memory_limit
    };
    let nothing = |quota: &Quota| {
        [quota.cpu_request, quota.cpu_limit, quota.memory_request, quota.memory_limit]
            .into_iter()
            .all(|value| amount(value).is_none())
    };
    if quotas.iter().all(nothing) {
        "BestEffort"
    } else if quotas.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
