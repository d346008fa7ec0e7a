//! `spec.state: Frozen` of containers: the kernel stops what runs, and lets it go on.

use std::time::Duration;

use anyhow::{Result, ensure};
use catamaran_e2e::{node::LOAD, wait::eventually, workloads};
use kube::ResourceExt;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    agent::{says, used},
    ground::{Ground, NAMESPACE, POD_WITHIN},
};

const NAME: &str = "frozen";

pub(crate) async fn containers_use_nothing_and_go_on(ground: &Ground) -> Result<()> {
    let workload = json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": {"name": NAME},
        "spec": {
            "container": {"image": LOAD, "args": ["cpu", "--threads", "2"]},
            "quota": {"cpu": {"request": "50m", "limit": "200m"}, "memory": {"request": "16Mi", "limit": "64Mi"}},
            "replicas": 1,
        },
    });
    workloads::apply(&ground.client, NAMESPACE, &workload.to_string()).await?;
    ground.ready(NAME, "Available").await?;
    let pod = ground.pod_of(NAME).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    let works =
        |before: f64| {
            let cgroup = &cgroup;
            eventually("it works", POD_WITHIN, move || async move {
                Ok((used(ground, cgroup).await? > before).then_some(()))
            })
        };
    works(used(ground, &cgroup).await?).await?;

    ground.set(NAME, json!({"state": "Frozen"})).await?;
    ground.ready(NAME, "Frozen").await?;
    says(ground, &cgroup, &[("cgroup.events", "frozen 1")]).await?;
    let before = used(ground, &cgroup).await?;
    // The time over which is measured.
    sleep(Duration::from_secs(3)).await;
    let during = used(ground, &cgroup).await? - before;
    ensure!(during.abs() < f64::EPSILON, "{during} us while frozen");

    ground.set(NAME, json!({"state": "Running"})).await?;
    ground.ready(NAME, "Available").await?;
    says(ground, &cgroup, &[("cgroup.events", "frozen 0")]).await?;
    works(before).await?;
    let now = ground.pod_of(NAME).await?;
    ensure!(now.uid() == pod.uid() && workloads::restarts(&now) == 0, "another pod, or a restart");
    ground.kubectl(&["delete", "elasticworkload", NAME]).await?;
    Ok(())
}
