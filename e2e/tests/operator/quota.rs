//! Quotas that change while replicas run: nothing restarts, and what cannot be done in place rolls.
//!
//! Pods are resized by a kubelet that is simulated (`e2e/kwok/pod.yaml`): it reports the new limits half a second after
//! it was asked.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use catamaran_crds::{kubevirt::VirtualMachineInstance, names::NODE_QUOTA_ANNOTATION};
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, condition, restarts, web},
};
use catamaran_protocol::node_quota::NodeQuota;
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Pod, ResourceRequirements},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::support::{Ground, web_machines};

async fn live(ground: &Ground) -> Result<Vec<Pod>> {
    ground.staying_pods("web").await
}

async fn uids(ground: &Ground) -> Result<BTreeSet<String>> {
    Ok(live(ground).await?.iter().filter_map(ResourceExt::uid).collect())
}

fn node_quota(pod: &Pod) -> Result<Option<NodeQuota>> {
    pod.annotations().get(NODE_QUOTA_ANNOTATION).map(|text| Ok(NodeQuota::parse(text)?)).transpose()
}

/// CPU and memory limits, as the spec asks and as the kubelet reports them.
fn limits(pod: &Pod) -> Result<[BTreeMap<String, String>; 2]> {
    let of = |resources: Option<&ResourceRequirements>| {
        let limits = resources.and_then(|resources| resources.limits.clone()).unwrap_or_default();
        limits.into_iter().map(|(name, quantity)| (name, quantity.0)).collect()
    };
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("a container")?;
    let status = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).next();
    Ok([of(container.resources.as_ref()), of(status.and_then(|status| status.resources.as_ref()))])
}

/// Changes the quota and waits until the operator says that it is in effect.
async fn change(ground: &Ground, quota: &Value) -> Result<catamaran_crds::ElasticWorkload> {
    ground.patch("web", &json!({"spec": {"quota": quota}})).await?;
    ground.wait_ready("web").await
}

fn revision(workload: &catamaran_crds::ElasticWorkload) -> Option<&str> {
    workload.status.as_ref()?.update_revision.as_deref()
}

pub(crate) async fn a_changed_quota_restarts_nothing(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 4, "")).await?;
    let first = ground.wait_ready("web").await?;
    let before = uids(&ground).await?;
    // Up, down with a burst that has to go down first, and the knobs of the node agent alone.
    for (quota, limit, burst) in [
        (json!({"cpu": {"limit": 1, "burst": "800m"}}), "1", Some(80_000)),
        (json!({"cpu": {"limit": "200m", "burst": "100m"}, "memory": {"limit": "48Mi"}}), "200m", Some(10_000)),
        (json!({"cpu": {"burst": "150m", "weight": 300}, "pids": 64}), "200m", Some(15_000)),
        (json!({"cpu": {"burst": null, "weight": null}, "pids": null}), "200m", None),
    ] {
        let changed = change(&ground, &quota).await?;
        ensure!(revision(&changed) == revision(&first), "{quota} makes no revision");
        ensure!(uids(&ground).await? == before, "{quota}: the same pods");
        for pod in live(&ground).await? {
            let [asked, reported] = limits(&pod)?;
            ensure!(asked == reported && asked["cpu"] == limit, "{quota}: {asked:?} {reported:?}");
            let held = node_quota(&pod)?;
            ensure!(held.as_ref().and_then(|held| held.cpu_burst_usec) == burst, "{quota}: {held:?}");
            ensure!(restarts(&pod) == 0, "{quota}: restarts");
        }
        ground.quiet().await?;
    }
    // A pod to come has it from the start.
    ground.patch("web", &json!({"spec": {"replicas": 5}})).await?;
    ground.wait_ready("web").await?;
    for pod in live(&ground).await? {
        ensure!(limits(&pod)?[0]["memory"] == "48Mi", "{}", pod.name_any());
    }
    let sets: Api<ReplicaSet> = ground.api();
    ensure!(sets.list(&ListParams::default()).await?.items.len() == 1, "one replica set all along");
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

pub(crate) async fn what_a_node_cannot_do_and_what_kubernetes_refuses_rolls(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    let workload = web("registry.test/web:1", 3, "maxSurge: 1, maxUnavailable: 0")
        .replace("    ports:", "    env: [{name: KWOK_RESIZE, value: Infeasible}]\n    ports:");
    ground.apply(&workload).await?;
    let first = ground.wait_ready("web").await?;
    let infeasible = change(&ground, &json!({"cpu": {"limit": "700m"}})).await?;
    ensure!(revision(&infeasible) != revision(&first), "an infeasible resize rolls");
    for pod in live(&ground).await? {
        ensure!(limits(&pod)?[0]["cpu"] == "700m", "{}", pod.name_any());
    }
    // Without a limit, which no resize takes away.
    let removed = change(&ground, &json!({"cpu": {"limit": null}})).await?;
    ensure!(revision(&removed) != revision(&infeasible), "a limit that is taken away rolls");
    let history = recorder.finish(ground.quiet()).await?;
    ensure!(history.end()?.total() == 3 && history.end()?.available() == 3, "{}", history.end()?);
    Ok(())
}

pub(crate) async fn a_node_without_room_for_now_is_told_and_waited_for(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    let workload = web("registry.test/web:1", 2, "")
        .replace("    ports:", "    env: [{name: KWOK_RESIZE, value: Deferred}]\n    ports:");
    ground.apply(&workload).await?;
    ground.wait_ready("web").await?;
    let before = uids(&ground).await?;
    ground.patch("web", &json!({"spec": {"quota": {"cpu": {"limit": "700m"}}}})).await?;
    let told = ground
        .wait_for("web", "is told to wait for room", WITHIN, |workload| {
            condition(workload, "Reconciling").is_some_and(|reconciling| reconciling.reason == "ResizeDeferred")
        })
        .await?;
    let message = condition(&told, "Ready").map(|ready| ready.message.clone()).unwrap_or_default();
    ensure!(message.contains("Node didn't have enough capacity"), "{message}");
    ensure!(condition(&told, "Stalled").is_none() && uids(&ground).await? == before, "it goes on by itself");
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

pub(crate) async fn knobs_of_the_agent_reach_the_launcher_pods_of_guests_that_run(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web_machines("registry.test/disk:1", 2, "")).await?;
    let first = ground.wait_ready("web").await?;
    let before = uids(&ground).await?;
    let changed = change(&ground, &json!({"pids": 2000, "cpu": {"burst": "100m"}})).await?;
    ensure!(revision(&changed) == revision(&first), "no revision");
    let ground_ref = &ground;
    eventually("the launcher pods carry it", WITHIN, || async move {
        let held: Vec<_> = live(ground_ref).await?.iter().map(node_quota).collect::<Result<_>>()?;
        let told = |quota: &Option<NodeQuota>| {
            quota.as_ref().is_some_and(|quota| quota.container == "compute" && quota.pids_max == Some(2000))
        };
        Ok((held.len() == 2 && held.iter().all(told)).then_some(()))
    })
    .await?;
    ensure!(uids(&ground).await? == before, "the same launcher pods");
    // Taken off again, with nothing left for the agent, and back.
    let none = json!({"pids": null, "cpu": {"burst": null}});
    let bare = change(&ground, &none).await?;
    ensure!(revision(&bare) == revision(&first) && uids(&ground).await? == before, "in place");
    for pod in live(&ground).await? {
        ensure!(node_quota(&pod)?.is_none(), "{} keeps a quota", pod.name_any());
    }
    change(&ground, &json!({"pids": 2000})).await?;
    // A guest to come has it by its template.
    ground.patch("web", &json!({"spec": {"replicas": 3}})).await?;
    ground.wait_ready("web").await?;
    let instances: Api<VirtualMachineInstance> = ground.api();
    let annotated = instances.list(&ListParams::default()).await?;
    let annotated = annotated.iter().filter(|instance| instance.annotations().contains_key(NODE_QUOTA_ANNOTATION));
    ensure!(annotated.count() == 1, "the new one");
    recorder.finish(ground.quiet()).await?;
    Ok(())
}
