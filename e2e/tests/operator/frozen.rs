//! `spec.state: Frozen`: replicas stay, get no traffic and are told to freeze; scaling and rollouts wait; and back.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use catamaran_crds::{
    kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet},
    names::{FROZEN_ANNOTATION, NODE_QUOTA_ANNOTATION},
};
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, condition, pod_is_ready, web},
};
use catamaran_protocol::node_quota::NodeQuota;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::support::{Ground, web_machines};

fn uids<K: ResourceExt>(objects: &[K]) -> BTreeSet<String> {
    objects.iter().filter_map(ResourceExt::uid).collect()
}

fn is_told_to_freeze(pod: &Pod) -> bool {
    let quota = pod.annotations().get(NODE_QUOTA_ANNOTATION).and_then(|text| NodeQuota::parse(text).ok());
    quota.is_some_and(|quota| quota.frozen)
}

/// The addresses that the Service leads to.
async fn endpoints(ground: &Ground) -> Result<usize> {
    let slices: Api<EndpointSlice> = ground.api();
    let list = slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await?;
    Ok(list.items.iter().flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.addresses.len()).sum())
}

async fn lead_to(ground: &Ground, count: usize) -> Result<()> {
    eventually(&format!("the Service leads to {count}"), WITHIN, || async {
        Ok((endpoints(ground).await? == count).then_some(()))
    })
    .await
}

async fn set(ground: &Ground, spec: Value) -> Result<()> {
    ground.patch("web", &json!({"spec": spec})).await?;
    Ok(())
}

async fn wait_frozen(ground: &Ground, what: &str) -> Result<String> {
    let workload = ground
        .wait_for("web", "is frozen", WITHIN, |workload| {
            condition(workload, "Ready")
                .is_some_and(|ready| ready.status == "True" && ready.reason == "Frozen" && ready.message.contains(what))
        })
        .await?;
    Ok(condition(&workload, "Ready").context("Ready")?.message.clone())
}

pub(crate) async fn containers_stay_and_everything_waits(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 3, "")).await?;
    ground.wait_ready("web").await?;
    lead_to(&ground, 3).await?;
    let before = ground.staying_pods("web").await?;
    set(&ground, json!({"state": "Frozen"})).await?;
    wait_frozen(&ground, "all 3 replicas").await?;
    let frozen = ground.staying_pods("web").await?;
    ensure!(uids(&frozen) == uids(&before) && frozen.iter().all(is_told_to_freeze), "{frozen:?}");
    lead_to(&ground, 0).await?;
    ground.quiet().await?;

    // A change of the template, of the quota and of the count waits; the condition says so.
    let image = |tag: u32| json!({"container": {"image": format!("registry.test/web:{tag}")}});
    set(&ground, image(2)).await?;
    set(&ground, json!({"replicas": 5, "quota": {"cpu": {"limit": "700m"}}})).await?;
    wait_frozen(&ground, "waits for spec.state: Running").await?;
    // A replica that is lost is made up for, frozen from the start.
    let lost = before.first().context("a pod")?;
    let api: Api<Pod> = ground.api();
    api.delete(&lost.name_any(), &DeleteParams::default().grace_period(0)).await?;
    // Nothing freezes simulated pods, so it gets ready, and the status counts it: that is no write of a workload at
    // rest.
    let kept = eventually("another pod is ready", WITHIN, || async {
        let now = ground.staying_pods("web").await?;
        let others = now.len() == 3 && !uids(&now).contains(&lost.uid().unwrap_or_default());
        Ok((others && now.iter().all(pod_is_ready)).then_some(now))
    })
    .await?;
    ensure!(kept.iter().all(is_told_to_freeze), "{kept:?}");
    ground
        .wait_for("web", "has 3 ready replicas", WITHIN, |workload| {
            workload.status.as_ref().is_some_and(|status| status.ready_replicas == 3)
        })
        .await?;
    wait_frozen(&ground, "all 3 replicas").await?;
    let sets: Api<ReplicaSet> = ground.api();
    ensure!(sets.list(&ListParams::default()).await?.items.len() == 1, "no revision is made");
    ground.quiet().await?;

    // Back to what it was, and on: the same pods.
    set(&ground, image(1)).await?;
    set(&ground, json!({"replicas": 3, "quota": {"cpu": {"limit": "500m"}}})).await?;
    set(&ground, json!({"state": "Running"})).await?;
    ground.wait_ready("web").await?;
    lead_to(&ground, 3).await?;
    let now = ground.staying_pods("web").await?;
    ensure!(uids(&now) == uids(&kept) && !now.iter().any(is_told_to_freeze), "{now:?}");
    // The lower one was broken from outside, by the pod that was deleted.
    recorder.history().check_upper_bound()?;
    ground.quiet().await
}

pub(crate) async fn what_a_probe_would_kill_is_not_frozen(ground: Ground) -> Result<()> {
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    let probe = json!({"container": {"livenessProbe": {"tcpSocket": {"port": 80}}}});
    set(&ground, probe.clone()).await?;
    ground.wait_ready("web").await?;
    let before = ground.staying_pods("web").await?;
    set(&ground, json!({"state": "Frozen"})).await?;
    let refused = ground.wait_stalled("web", "InvalidSpec").await?;
    let message = &condition(&refused, "Stalled").context("Stalled")?.message;
    ensure!(message.contains("spec.state") && message.contains("the livenessProbe of container main"), "{message}");
    let now = ground.staying_pods("web").await?;
    ensure!(uids(&now) == uids(&before) && !now.iter().any(is_told_to_freeze), "nothing was touched");

    // The probe is taken out while it is to be frozen: the rollout to the template without goes first, then all are
    // frozen.
    set(&ground, json!({"container": {"livenessProbe": null}})).await?;
    wait_frozen(&ground, "all 2 replicas").await?;
    let now = ground.staying_pods("web").await?;
    ensure!(uids(&now).is_disjoint(&uids(&before)) && now.iter().all(is_told_to_freeze), "{now:?}");
    let probed =
        now.iter().any(|pod| serde_json::to_string(&pod.spec).is_ok_and(|spec| spec.contains("livenessProbe")));
    ensure!(!probed, "none of them has the probe");
    set(&ground, json!({"state": "Stopped"})).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

pub(crate) async fn virtual_machines_are_paused_and_go_on(ground: Ground) -> Result<()> {
    ground.apply(&web_machines("registry.test/disk:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    let api: Api<VirtualMachineInstance> = ground.api();
    let (api, ground) = (&api, &ground);
    let machines = || async { anyhow::Ok(api.list(&ListParams::default()).await?.items) };
    let paused = |machine: &VirtualMachineInstance| {
        let conditions = machine.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Paused" && condition.status == "True")
    };
    let paused_count = |count: usize| async move {
        eventually(&format!("{count} guests are paused"), WITHIN, || async {
            let now = api.list(&ListParams::default()).await?.items;
            Ok((now.iter().filter(|machine| paused(machine)).count() == count).then_some(()))
        })
        .await
    };
    let before = machines().await?;
    // What a user paused is left alone while nothing is frozen.
    let stand_in = ground.kubevirt.as_ref().context("KubeVirt")?;
    let first = before.first().context("a guest")?.name_any();
    stand_in.pause(&ground.namespace, &first, true).await?;
    paused_count(1).await?;
    ground.quiet().await?;
    ensure!(machines().await?.iter().filter(|machine| paused(machine)).count() == 1, "it stays paused");
    stand_in.pause(&ground.namespace, &first, false).await?;
    ground.wait_ready("web").await?;

    set(ground, json!({"state": "Frozen"})).await?;
    wait_frozen(ground, "all 2 replicas").await?;
    paused_count(2).await?;
    lead_to(ground, 0).await?;
    ground.quiet().await?;
    set(ground, json!({"state": "Running"})).await?;
    ground.wait_ready("web").await?;
    lead_to(ground, 2).await?;
    ensure!(uids(&machines().await?) == uids(&before), "the same guests");
    let sets: Api<VirtualMachineInstanceReplicaSet> = ground.api();
    let sets = &sets;
    eventually("nothing is noted any more", WITHIN, || async move {
        let all = sets.list(&ListParams::default()).await?.items;
        Ok(all.iter().all(|set| !set.annotations().contains_key(FROZEN_ANNOTATION)).then_some(()))
    })
    .await?;
    ground.quiet().await
}
