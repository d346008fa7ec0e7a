//! Services of the node restart; containers go on. No other test runs meanwhile: it would meet a node that does not answer.

use std::time::Duration;

use anyhow::{Result, ensure};
use catamaran_e2e::{node::BUSYBOX, wait::eventually};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::ground::{Ground, restarts};

async fn sleeper(ground: &Ground, name: &str) -> Result<(Pod, String)> {
    let container = json!({"image": BUSYBOX, "command": ["sh", "-c", "trap exit TERM; sleep 100000 & wait"]});
    let pod = ground.run(name, container).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    let processes = ground.read(&cgroup, "cgroup.procs").await?;
    ensure!(!processes.is_empty());
    Ok((pod, processes))
}

/// The same processes run, and the node goes on with the pod: a command in it works.
async fn unharmed(ground: &Ground, name: &str, processes: &str) -> Result<()> {
    let pod = ground.pods().get(name).await?;
    ensure!(restarts(&pod) == 0);
    ensure!(ground.read(&ground.node.cgroup_of(&pod, "main").await?, "cgroup.procs").await? == processes);
    // The kubelet finds its pods again, and its way to containerd, only after it serves.
    eventually("a command runs in the pod", Duration::from_secs(60), || async {
        let words = ground.kubectl(&["exec", name, "--", "sh", "-c", "echo here"]).await?;
        Ok((words == "here\n").then_some(()))
    })
    .await?;
    ground.delete(name).await
}

pub(crate) async fn the_kubelet_restarts_and_pods_stay(ground: &Ground) -> Result<()> {
    let (_, processes) = sleeper(ground, "kubelet-restarts").await?;
    ground.node.restart_kubelet().await?;
    unharmed(ground, "kubelet-restarts", &processes).await
}

pub(crate) async fn containerd_restarts_and_pods_stay(ground: &Ground) -> Result<()> {
    let (_, processes) = sleeper(ground, "containerd-restarts").await?;
    ground.node.restart_containerd().await?;
    unharmed(ground, "containerd-restarts", &processes).await
}
