//! What launcher pods need on a real node: what virt-handler would write on it, and an image.

use anyhow::Result;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::launcher;
use crate::node::{LOAD, Node};

/// As many guests as KubeVirt lets a node have.
const DEVICES: &str = "1000";

/// Makes launcher pods run on a real node. A kubelet that starts anew may take the devices away.
///
/// What differs from a node of KubeVirt's:
/// - the devices are numbers in the node's status. No device plugin gives them, so containers get none, and there is no
///   KVM;
/// - the launcher's image is our load program under another name: `compute` has no virt-launcher, libvirt and QEMU in
///   it, but one process that waits. `kubectl exec POD -c compute -- /load cpu` makes it work;
/// - a pause is told by the VMI and the pod's readiness gate alone. KubeVirt stops the guest's virtual CPUs, and there
///   are none;
/// - the disk's image has to be on the node too. It is an image volume that no container mounts.
///
/// # Errors
/// When the API server or containerd refuses something.
pub async fn make_schedulable(client: &Client, node: &Node) -> Result<()> {
    let image = format!("docker.io/library/{}", launcher::IMAGE);
    node.shell(&format!("ctr -n k8s.io images tag --force {LOAD} {image}")).await?;
    let nodes: Api<NodeObject> = Api::all(client.clone());
    let labels = json!({"kubevirt.io/schedulable": "true", "machine-type.node.kubevirt.io/q35": "true"});
    nodes.patch(node.name(), &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": labels}}))).await?;
    let devices: serde_json::Map<_, _> =
        launcher::DEVICES.iter().map(|device| (format!("devices.kubevirt.io/{device}"), json!(DEVICES))).collect();
    let status = json!({"status": {"capacity": devices, "allocatable": devices}});
    nodes.patch_status(node.name(), &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}
