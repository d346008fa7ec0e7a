//! Load in a container that runs: one more process in its cgroup and namespaces, as by `kubectl exec`, but in its place at once and ended when it is told to.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;

use super::Node;

/// containerd keeps the name of a process that ended, so each gets another one.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A process that computes until it is ended.
#[derive(Debug)]
pub struct Burning {
    container: String,
    name: String,
}

impl Node {
    /// Starts a thread that computes in the only container of a pod, whose image has to be [`LOAD`](super::LOAD). Returns when it runs.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn burn(&self, pod: &Pod) -> Result<Burning> {
        let container = container(pod)?.to_owned();
        let name = format!("burn-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.shell(&format!("ctr -n k8s.io task exec --detach --exec-id {name} {container} /load cpu")).await?;
        Ok(Burning { container, name })
    }

    /// Ends that.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn end_burning(&self, burning: &Burning) -> Result<()> {
        let Burning { container, name } = burning;
        self.shell(&format!("ctr -n k8s.io task kill --signal SIGKILL --exec-id {name} {container}")).await.map(|_| ())
    }
}

/// The id of the only container of a pod.
fn container(pod: &Pod) -> Result<&str> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut ids = statuses.filter_map(|status| Some(status.container_id.as_deref()?.split_once("://")?.1));
    ids.next().context("the pod has a container that runs")
}
