//! The virtual machine hull: KubeVirt is a stand-in and no guest runs, but launcher pods are real ones, and so are
//! their cgroups.

use anyhow::{Context, Result, ensure};
use catamaran_crds::kubevirt::VirtualMachineInstance;
use catamaran_e2e::{node::LOAD, wait::eventually, workloads};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::{
    agent::says,
    ground::{Ground, NAMESPACE, POD_WITHIN},
};

const NAME: &str = "guests";

fn workload() -> String {
    json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": {"name": NAME},
        "spec": {
            // The image of a disk: no guest reads it.
            "virtualMachine": {"image": LOAD, "terminationGracePeriodSeconds": 1},
            "quota": {
                "cpu": {"request": "50m", "limit": "400m", "burst": "200m", "weight": 300},
                "memory": {"request": "16Mi", "high": "300Mi", "swap": 0},
                "pids": 500,
                "io": [{"device": "vdb", "writeBytesPerSecond": "4Mi"}],
            },
            "replicas": 1,
        },
    })
    .to_string()
}

/// What a test looks at: nothing of it may change while the quota does, or while the guest is paused.
#[derive(Debug, PartialEq)]
struct Guest {
    instance: Option<String>,
    pod: Option<String>,
    restarts: i32,
    processes: String,
    revision: Option<String>,
}

async fn instance(ground: &Ground) -> Result<VirtualMachineInstance> {
    let instances: Api<VirtualMachineInstance> = Api::namespaced(ground.client.clone(), NAMESPACE);
    let mut all = instances.list(&ListParams::default()).await?.items;
    ensure!(all.len() == 1, "{} instances", all.len());
    all.pop().context("an instance")
}

async fn guest(ground: &Ground, cgroup: &str) -> Result<Guest> {
    let (instance, pod) = (instance(ground).await?, ground.pod_of(NAME).await?);
    let workload = workloads::workloads(&ground.client, NAMESPACE).get(NAME).await?;
    Ok(Guest {
        instance: instance.uid(),
        restarts: workloads::restarts(&pod),
        pod: pod.uid(),
        processes: ground.read(cgroup, "cgroup.procs").await?,
        revision: workload.status.and_then(|status| status.update_revision),
    })
}

async fn is_paused(ground: &Ground) -> Result<bool> {
    let instance = instance(ground).await?;
    let conditions = instance.status.iter().flat_map(|status| status.conditions.iter().flatten());
    Ok(conditions.into_iter().any(|condition| condition.type_ == "Paused" && condition.status == "True"))
}

pub(crate) async fn knobs_are_held_at_the_launcher_and_guests_are_paused(ground: &Ground) -> Result<()> {
    ground.start_kubevirt().await?;
    workloads::apply(&ground.client, NAMESPACE, &workload()).await?;
    ground.ready(NAME, "Available").await?;
    let pod = ground.pod_of(NAME).await?;
    let cgroup = ground.node.cgroup_of(&pod, "compute").await?;
    let held = [
        ("cpu.max", "40000 100000"),
        ("cpu.max.burst", "20000"),
        ("cpu.weight", "300"),
        ("memory.high", "314572800"),
        ("memory.swap.max", "0"),
        ("pids.max", "500"),
        ("io.max", "wbps=4194304"),
    ];
    says(ground, &cgroup, &held).await?;
    // The console's container and the sandbox are not the guest.
    let of_pod = ground.node.cgroup_of_pod(&pod).await?;
    let pids = ground.node.shell(&format!("cat '{of_pod}'/*/pids.max")).await?;
    ensure!(pids.lines().filter(|limit| *limit == "500").count() == 1 && pids.lines().count() == 3, "{pids}");
    let before = guest(ground, &cgroup).await?;
    ensure!(before.restarts == 0);

    // Changed where the guest runs, some of it taken away.
    ground.set(NAME, json!({"quota": {
            "cpu": {"burst": "100m", "weight": 50}, "memory": {"high": "320Mi", "swap": "8Mi"}, "pids": 400, "io": null,
        }}),
    )
    .await?;
    let changed = [
        ("cpu.max", "40000 100000"),
        ("cpu.max.burst", "10000"),
        ("cpu.weight", "50"),
        ("memory.high", "335544320"),
        ("memory.swap.max", "8388608"),
        ("pids.max", "400"),
        ("io.max", ""),
    ];
    says(ground, &cgroup, &changed).await?;
    ground.ready(NAME, "Available").await?;
    let now = guest(ground, &cgroup).await?;
    ensure!(now == before, "{now:?}, before {before:?}");

    // KubeVirt pauses the guest. What virt-handler watches, virt-launcher, is not frozen, and is held to its quota.
    ground.set(NAME, json!({"state": "Frozen"})).await?;
    ground.ready(NAME, "Frozen").await?;
    ensure!(is_paused(ground).await?);
    says(ground, &cgroup, &changed).await?;
    says(ground, &cgroup, &[("cgroup.events", "frozen 0")]).await?;
    ground.set(NAME, json!({"state": "Running"})).await?;
    ground.ready(NAME, "Available").await?;
    eventually("the guest goes on", POD_WITHIN, || async { Ok((!is_paused(ground).await?).then_some(())) }).await?;
    let now = guest(ground, &cgroup).await?;
    ensure!(now == before, "{now:?}, before {before:?}");

    ground.kubectl(&["delete", "elasticworkload", NAME]).await?;
    eventually("the kubelet has ended the launcher", POD_WITHIN, || async {
        Ok(workloads::pods(&ground.client, NAMESPACE, NAME).await?.is_empty().then_some(()))
    })
    .await?;
    ensure!(ground.node.run(&format!("test -e '{of_pod}'"), &[], POD_WITHIN).await?.code != 0, "its cgroup is gone");
    Ok(())
}
