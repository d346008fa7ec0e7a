//! The cluster's DNS, in a pod of the node.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use tokio::task::spawn_blocking;

use super::{Node, image::Image};
use crate::{
    control_plane::ControlPlane,
    tools::{Tool, Tools},
    wait::eventually,
    workloads::apply,
};

const NAMESPACE: &str = "kube-system";
/// The image that the manifest names.
const IMAGE: &str = "catamaran.test/coredns:1";
const MANIFEST: &str = include_str!("dns.yaml");
const READY_WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn serve(node: &Node, control_plane: &ControlPlane) -> Result<()> {
    let tools = spawn_blocking(|| Tools::prepare(&Tool::CLUSTER)).await??;
    let image = Image::new(IMAGE).program("coredns", tools.path(Tool::CoreDns)?)?.entrypoint(&["/coredns"]);
    node.import(&image.archive()?).await?;
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
