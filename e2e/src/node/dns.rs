//! The cluster's DNS, in a pod of the node.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;

use crate::{control_plane::ControlPlane, wait::eventually, workloads::apply};

const NAMESPACE: &str = "kube-system";
const MANIFEST: &str = include_str!("dns.yaml");
const READY_WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn serve(control_plane: &ControlPlane) -> Result<()> {
    let client = control_plane.client();
    apply(&client, NAMESPACE, MANIFEST).await?;
    let deployments: Api<Deployment> = Api::namespaced(client, NAMESPACE);
    let deployments = &deployments;
    eventually("the cluster's DNS is ready", READY_WITHIN, || async move {
        let status = deployments.get("coredns").await?.status;
        Ok((status.and_then(|status| status.ready_replicas) == Some(1)).then_some(()))
    })
    .await
}
