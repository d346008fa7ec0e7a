//! Services of the node restart, and containers. No other test runs meanwhile: it would meet a node that does not
//! answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{node::BUSYBOX, wait::eventually, workloads};
use kube::ResourceExt;
use serde_json::json;

use crate::{
    agent::{self, HELD, UNHELD, overwrite, says},
    ground::{Ground, NAMESPACE},
};

const NAME: &str = "restarted";

/// A workload that does nothing, with a quota that comes to [`HELD`].
fn workload() -> String {
    json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": {"name": NAME},
        "spec": {
            "container": {"image": BUSYBOX, "command": ["sh", "-c", "trap exit TERM; sleep 100000 & wait"]},
            "quota": {
                "cpu": {"request": "50m", "limit": "200m", "burst": "200m", "weight": 300},
                "memory": {"request": "32Mi", "limit": "64Mi", "high": "48Mi", "swap": 0},
                "pids": 64,
                "io": [{"device": "vdb", "writeBytesPerSecond": "4Mi"}],
            },
            "replicas": 1,
        },
    })
    .to_string()
}

/// The same processes run, and the node goes on with the pod: a command in it works. What somebody wrote meanwhile is
/// set back.
async fn unharmed(ground: &Ground, cgroup: &str, processes: &str) -> Result<()> {
    let pod = ground.pod_of(NAME).await?;
    ensure!(workloads::restarts(&pod) == 0);
    ensure!(ground.node.cgroup_of(&pod, "main").await? == cgroup);
    ensure!(ground.read(cgroup, "cgroup.procs").await? == processes);
    says(ground, cgroup, &HELD).await?;
    // The kubelet finds its pods again, and its way to containerd, only after it serves.
    eventually("a command runs in the pod", Duration::from_secs(60), || async {
        let words = ground.kubectl(&["exec", &pod.name_any(), "--", "sh", "-c", "echo here"]).await?;
        Ok((words == "here\n").then_some(()))
    })
    .await
}

pub(crate) async fn pods_stay_and_their_knobs_are_held(ground: &Ground) -> Result<()> {
    workloads::apply(&ground.client, NAMESPACE, &workload()).await?;
    ground.ready(NAME, "Available").await?;
    let cgroup = ground.node.cgroup_of(&ground.pod_of(NAME).await?, "main").await?;
    says(ground, &cgroup, &HELD).await?;
    let processes = ground.read(&cgroup, "cgroup.procs").await?;
    ensure!(!processes.is_empty());
    let foreign = overwrite(ground, &cgroup).await?;

    ground.node.restart_kubelet().await?;
    ground.node.shell(&foreign).await?;
    unharmed(ground, &cgroup, &processes).await.context("after a restart of the kubelet")?;

    ground.node.restart_containerd().await?;
    ground.node.shell(&foreign).await?;
    unharmed(ground, &cgroup, &processes).await.context("after a restart of containerd")?;

    let pod = ground.restart(NAME).await?;
    let next = ground.node.cgroup_of(&pod, "main").await?;
    ensure!(next != cgroup && workloads::restarts(&pod) == 1);
    says(ground, &next, &HELD).await.context("the container that was started next")?;

    // It has no time for a last word; the next one knows what was there before.
    let foreign = overwrite(ground, &next).await?;
    ground.node.shell(&format!("kill -9 $(pidof catamaran-agent) && {foreign}")).await?;
    says(ground, &next, &HELD).await.context("after a restart of the agent")?;
    agent::ready(ground).await?;

    // A pod that outlives its workload is held to nothing any more.
    ground.kubectl(&["delete", "elasticworkload", NAME, "--cascade=orphan"]).await?;
    says(ground, &next, &UNHELD).await.context("after the workload")?;
    ensure!(ground.pod_of(NAME).await?.uid() == pod.uid());
    ground.kubectl(&["delete", "replicaset", "--selector", &format!("catamaran.dev/workload={NAME}")]).await?;
    Ok(())
}
