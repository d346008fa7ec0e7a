//! Load in a container that runs: one more process in its cgroup and namespaces, as by `kubectl exec`, but in its place at once and ended when it is told to.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;

use super::Node;

/// The name that containerd knows the process by; one for each container.
const EXEC: &str = "burn";

impl Node {
    /// Starts a thread that computes in the container of a pod, whose image has to be [`LOAD`](super::LOAD). Returns when it runs.
    ///
    /// # Errors
    /// When the container does not run, or computes already.
    pub async fn burn(&self, pod: &Pod) -> Result<()> {
        let id = container(pod)?;
        self.shell(&format!("ctr -n k8s.io task exec --detach --exec-id {EXEC} {id} /load cpu")).await.map(|_| ())
    }

    /// Ends that.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn end_burning(&self, pod: &Pod) -> Result<()> {
        let id = container(pod)?;
        // Deleted as well, so that the name is free again. ctr ends with the status of the process, which was killed.
        let end = format!("ctr -n k8s.io task delete --force --exec-id {EXEC} {id} || [ $? -eq 137 ]");
        self.shell(&end).await.map(|_| ())
    }
}

/// The id of the only container of a pod.
fn container(pod: &Pod) -> Result<&str> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut ids = statuses.filter_map(|status| Some(status.container_id.as_deref()?.split_once("://")?.1));
    ids.next().context("the pod has a container that runs")
}
