//! Simulated nodes: Node objects whose kubelet is KWOK with the stages in `e2e/kwok`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use futures::{TryStreamExt, stream};
use k8s_openapi::{api::core::v1::Node, jiff};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{control_plane::ControlPlane, wait::eventually};

/// The label by which KWOK knows its nodes.
const SIMULATED: &str = "kwok.catamaran.dev/simulated";
/// The same as a label selector.
pub(crate) const SIMULATED_SELECTOR: &str = "kwok.catamaran.dev/simulated=true";
/// The annotation of a pod that says how much CPU each of its containers uses, as a quantity.
pub const USAGE_CPU: &str = "kwok.x-k8s.io/usage-cpu";
/// The annotation of a pod that says how much memory each of its containers uses, as a quantity.
pub const USAGE_MEMORY: &str = "kwok.x-k8s.io/usage-memory";
/// Nodes are spread over so many zones.
const ZONES: u32 = 3;
/// How long a node may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a simulated node is like. By default it is a large server that can run VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTemplate {
    /// Labels in addition to the usual ones (hostname, os, arch, zone) and those of KubeVirt.
    pub labels: BTreeMap<String, String>,
    /// Capacity and allocatable: quantities by resource name.
    pub capacity: BTreeMap<String, String>,
}

impl Default for NodeTemplate {
    fn default() -> Self {
        let capacity = [
            ("cpu", "64"),
            ("memory", "256Gi"),
            ("ephemeral-storage", "1Ti"),
            ("pods", "500"),
            ("devices.kubevirt.io/kvm", "1000"),
            ("devices.kubevirt.io/tun", "1000"),
            ("devices.kubevirt.io/vhost-net", "1000"),
        ];
        Self { labels: BTreeMap::new(), capacity: capacity.map(|(k, v)| (k.to_owned(), v.to_owned())).into() }
    }
}

impl NodeTemplate {
    /// The same node with another quantity of a resource, such as `cpu` or `pods`.
    #[must_use]
    pub fn with(mut self, resource: &str, quantity: &str) -> Self {
        self.capacity.insert(resource.to_owned(), quantity.to_owned());
        self
    }

    /// `kubelet`: the port at which the usage of every node is served.
    fn node(&self, number: u32, kubelet: Option<u16>) -> Result<Node> {
        let name = format!("node-{number}");
        let mut labels = BTreeMap::from(
            [
                (SIMULATED, "true"),
                ("kubernetes.io/hostname", &name),
                ("kubernetes.io/os", "linux"),
                ("kubernetes.io/arch", "amd64"),
                ("topology.kubernetes.io/region", "region"),
                ("topology.kubernetes.io/zone", &format!("zone-{}", number % ZONES)),
                // What virt-handler writes on a node that can run VMs.
                ("kubevirt.io/schedulable", "true"),
                ("machine-type.node.kubevirt.io/q35", "true"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        labels.extend(self.labels.clone());
        // 198.18.0.0/15 is set aside for test networks.
        let address = format!("198.18.{}.{}", number / 250, number % 250 + 1);
        let mut addresses =
            vec![json!({"type": "InternalIP", "address": address}), json!({"type": "Hostname", "address": name})];
        let (mut annotations, mut endpoints) = (json!({}), json!({}));
        if let Some(port) = kubelet {
            // The only address that leads somewhere; the internal one, which pods' statuses show, is to differ between
            // nodes.
            addresses.push(json!({"type": "ExternalIP", "address": "127.0.0.1"}));
            endpoints = json!({"kubeletEndpoint": {"Port": port}});
            let path = format!("/metrics/nodes/{name}/metrics/resource");
            annotations = json!({"metrics.k8s.io/resource-metrics-path": path});
        }
        Ok(serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "status": {
                "capacity": self.capacity,
                "allocatable": self.capacity,
                "addresses": addresses,
                "daemonEndpoints": endpoints,
            },
        }))?)
    }
}

impl ControlPlane {
    /// Adds simulated nodes, waits until pods can run on them, and gives their names (`node-0`, `node-1` ...).
    pub async fn add_nodes(&self, count: u32) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(self.client());
        let names = self.node_numbers(count);
        let (template, kubelet) = (self.node_template(), self.kubelet());
        let nodes = &nodes;
        stream::iter(names.clone().map(Ok::<_, anyhow::Error>))
            .try_for_each_concurrent(16, |number| async move {
                let node = template.node(number, kubelet)?;
                nodes.create(&PostParams::default(), &node).await?;
                Ok(())
            })
            .await
            .context("cannot create the nodes")?;
        let names: Vec<String> = names.map(|number| format!("node-{number}")).collect();
        for name in &names {
            self.node_ready(name, READY_WITHIN).await?;
        }
        Ok(names)
    }

    /// The node is lost, as by a power cut: its heartbeats and everything on it stop, nothing on it reports any more.
    ///
    /// The controller manager would see that after its grace period (25 s here); the condition that it would then write
    /// is written at once. Its pods become not ready now, are evicted after
    /// [`crate::control_plane::Builder::eviction_after`], and stay `Terminating` until the node is deleted or comes
    /// back.
    pub async fn fail_node(&self, name: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        let unmanaged = json!({"metadata": {"labels": {SIMULATED: null}}});
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(unmanaged))
            .await
            .with_context(|| format!("cannot take the node {name} from KWOK"))?;
        let now = jiff::Timestamp::now().to_string();
        let lost = json!({"status": {"conditions": [{
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": now,
        }]}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(lost))
            .await
            .with_context(|| format!("cannot set the node {name} to Unknown"))?;
        Ok(())
    }

    /// A lost node comes back, and what is still bound to it runs again. Waits until it is ready.
    pub async fn restore_node(&self, name: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        let managed = json!({"metadata": {"labels": {SIMULATED: "true"}}});
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(managed))
            .await
            .with_context(|| format!("cannot give the node {name} back to KWOK"))?;
        self.node_ready(name, READY_WITHIN).await
    }

    /// Deletes the Node object, as a cloud does when the machine is gone. Its pods are garbage-collected by the
    /// controller manager 40 to 80 s later.
    pub async fn delete_node(&self, name: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        nodes.delete(name, &DeleteParams::default()).await.with_context(|| format!("cannot delete the node {name}"))?;
        Ok(())
    }

    /// Waits until a node is ready and pods may be scheduled to it.
    pub(crate) async fn node_ready(&self, name: &str, within: Duration) -> Result<()> {
        let untaints = self.has_controller_manager();
        let nodes: Api<Node> = Api::all(self.client());
        let nodes = &nodes;
        eventually(&format!("the node {name} is ready"), within, || async move {
            let node = nodes.get(name).await?;
            Ok((ready(&node) && !(untaints && tainted(&node))).then_some(()))
        })
        .await
    }
}

fn ready(node: &Node) -> bool {
    node.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the node has a taint that the controller manager takes off a node that has become ready.
fn tainted(node: &Node) -> bool {
    node.spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
        .any(|taint| taint.key.starts_with("node.kubernetes.io/"))
}
