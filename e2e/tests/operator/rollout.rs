//! Rollouts of containers: the bounds hold at every watch event.

use anyhow::{Result, ensure};
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, condition, web},
};
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, PodSpec, Service},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::Ground;

fn revision(workload: &catamaran_crds::ElasticWorkload) -> String {
    workload.status.clone().unwrap_or_default().update_revision.unwrap_or_default()
}

pub(crate) async fn an_image_update_keeps_the_bounds(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 6, "")).await?;
    let first = ground.wait_ready("web").await?;
    ground.apply(&web("registry.test/web:2", 6, "")).await?;
    let second = ground.wait_ready("web").await?;
    ensure!(revision(&first) != revision(&second), "the image makes a revision");
    let history = recorder.finish(ground.quiet()).await?;
    let end = history.end()?;
    ensure!(end.of_revision(&revision(&second)) == 6 && end.total() == 6, "{end}");
    let services: Api<Service> = ground.api();
    ensure!(services.get_opt("web").await?.is_some(), "the Service is there");
    Ok(())
}

pub(crate) async fn the_way_back_uses_the_old_replica_set(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    for image in ["registry.test/web:1", "registry.test/web:2", "registry.test/web:1"] {
        ground.apply(&web(image, 3, "")).await?;
        ground.wait_ready("web").await?;
    }
    recorder.finish(ground.quiet()).await?;
    let sets: Api<ReplicaSet> = ground.api();
    let sets = sets.list(&Default::default()).await?.items;
    ensure!(sets.len() == 2, "{} replica sets for two templates", sets.len());
    let numbers: Vec<_> = sets.iter().map(|set| set.annotations()["catamaran.dev/revision-number"].clone()).collect();
    ensure!(numbers.contains(&"3".to_owned()), "the old set is the newest revision now: {numbers:?}");
    Ok(())
}

pub(crate) async fn scaling_and_changing_again_in_mid_rollout(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 8, "")).await?;
    ground.wait_ready("web").await?;
    let begun = |workload: &catamaran_crds::ElasticWorkload| {
        let status = workload.status.clone().unwrap_or_default();
        condition(workload, "Reconciling").is_some()
            && status.updated_replicas > 0
            && status.updated_replicas < status.replicas
    };
    ground.apply(&web("registry.test/web:2", 8, "")).await?;
    // With all that it may have: a replica that is asked for already may still come when the count is lowered.
    let full = |workload: &catamaran_crds::ElasticWorkload| {
        begun(workload) && workload.status.as_ref().is_some_and(|status| status.replicas == 10)
    };
    ground.wait_for("web", "is in mid-rollout", WITHIN, full).await?;
    ground.patch("web", &json!({"spec": {"replicas": 4}})).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web("registry.test/web:3", 6, "")).await?;
    ground.wait_for("web", "is in mid-rollout", WITHIN, begun).await?;
    ground.apply(&web("registry.test/web:4", 6, "")).await?;
    let end = ground.wait_ready("web").await?;
    let history = recorder.finish(ground.quiet()).await?;
    ensure!(history.end()?.of_revision(&revision(&end)) == 6, "{}", history.end()?);
    Ok(())
}

pub(crate) async fn a_paused_rollout_waits(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 4, "")).await?;
    let first = ground.wait_ready("web").await?;
    ground.apply(&web("registry.test/web:2", 5, "paused: true")).await?;
    let paused = ground
        .wait_for("web", "is paused at 5", WITHIN, |workload| {
            condition(workload, "Ready").is_some_and(|ready| ready.reason == "Paused")
                && workload.status.as_ref().is_some_and(|status| status.available_replicas == 5)
        })
        .await?;
    ensure!(paused.status.unwrap_or_default().updated_replicas == 0, "the new revision waits");
    ground.quiet().await?;
    ensure!(recorder.history().end()?.of_revision(&revision(&first)) == 5, "scaling goes on while paused");
    ground.apply(&web("registry.test/web:2", 5, "paused: false")).await?;
    let second = ground.wait_ready("web").await?;
    let history = recorder.finish(ground.quiet()).await?;
    ensure!(history.end()?.of_revision(&revision(&second)) == 5, "{}", history.end()?);
    Ok(())
}

pub(crate) async fn an_unavailable_revision_stops_and_is_told(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 4, "progressDeadlineSeconds: 4")).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web("registry.test/web:broken", 4, "progressDeadlineSeconds: 4")).await?;
    let stalled = ground.wait_stalled("web", "ProgressDeadlineExceeded").await?;
    ensure!(condition(&stalled, "Reconciling").is_none(), "kstatus: stalled, not reconciling");
    let history = recorder.finish(ground.quiet()).await?;
    ensure!(history.end()?.available() >= 3, "{}", history.end()?);
    // The way out that the condition names.
    ground.apply(&web("registry.test/web:1", 4, "progressDeadlineSeconds: 4")).await?;
    ground.wait_ready("web").await?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

pub(crate) async fn on_failure_rollback_returns(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    let rollout = "progressDeadlineSeconds: 4, onFailure: Rollback";
    ground.apply(&web("registry.test/web:1", 4, rollout)).await?;
    let first = ground.wait_ready("web").await?;
    ground.apply(&web("registry.test/web:broken", 4, rollout)).await?;
    ground.wait_stalled("web", "RolledBack").await?;
    let history = recorder.finish(ground.quiet()).await?;
    let end = history.end()?;
    ensure!(end.of_revision(&revision(&first)) == 4 && end.available() == 4 && end.total() == 4, "{end}");
    ground.apply(&web("registry.test/web:3", 4, rollout)).await?;
    let third = ground.wait_ready("web").await?;
    ensure!(third.status.unwrap_or_default().failed_revision.is_none(), "a new template is a new try");
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

pub(crate) async fn a_lost_node_is_made_up_for() -> Result<()> {
    let ground = Ground::start().await?;
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 6, "")).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web("registry.test/web:2", 6, "")).await?;
    ground.control_plane.delete_node("node-0").await?;
    let end = ground.wait_ready("web").await?;
    let history = recorder.history();
    history.check_upper_bound()?;
    ensure!(history.end()?.of_revision(&revision(&end)) == 6, "{}", history.end()?);
    ground.quiet().await
}

pub(crate) async fn a_stopped_workload_keeps_its_service_and_starts_again(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 3, "")).await?;
    ground.wait_ready("web").await?;
    ground.patch("web", &json!({"spec": {"state": "Stopped"}})).await?;
    ground
        .wait_for("web", "is stopped", WITHIN, |workload| {
            condition(workload, "Ready").is_some_and(|ready| ready.status == "True" && ready.reason == "Stopped")
        })
        .await?;
    ensure!(recorder.history().end()?.total() == 0, "no replica runs");
    let services: Api<Service> = ground.api();
    ensure!(services.get_opt("web").await?.is_some(), "the Service stays");
    ground.patch("web", &json!({"spec": {"state": "Running"}})).await?;
    ground.wait_ready("web").await?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

pub(crate) async fn a_class_reaches_its_workloads_and_a_missing_one_is_told(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    // Classes have no namespace.
    let class_name = &ground.namespace;
    let workload = web("registry.test/web:1", 2, "")
        .replace("spec:\n", &format!("spec:\n  className: {class_name}\n"))
        .replace("  quota: {cpu: {request: 50m, limit: 500m}, memory: {request: 32Mi, limit: 64Mi}}\n", "");
    ground.apply(&workload).await?;
    let stalled = ground.wait_stalled("web", "WorkloadClassNotFound").await?;
    ensure!(condition(&stalled, "Stalled").is_some_and(|stalled| stalled.message.contains("spec.className")));
    let class = |limit: &str| {
        format!(
            "apiVersion: catamaran.dev/v1alpha1\nkind: WorkloadClass\nmetadata: {{name: {class_name}}}\nspec: {{quota: {{cpu: {{limit: {limit}}}, memory: {{limit: 64Mi}}}}}}\n"
        )
    };
    ground.apply(&class("250m")).await?;
    let first = ground.wait_ready("web").await?;
    ground.apply(&class("500m")).await?;
    let pods: Api<Pod> = ground.api();
    let cpu = |pod: Option<PodSpec>| {
        let resources = pod.and_then(|pod| pod.containers.into_iter().next()).and_then(|container| container.resources);
        resources.and_then(|resources| resources.limits).and_then(|limits| limits.get("cpu").cloned())
    };
    let half = Some(Quantity("500m".to_owned()));
    let (pods, half) = (&pods, &half);
    eventually("the pods follow the class", WITHIN, || async move {
        let pods = pods.list(&Default::default()).await?.items;
        Ok((pods.len() == 2 && pods.into_iter().all(|pod| cpu(pod.spec) == *half)).then_some(()))
    })
    .await?;
    let changed = ground.wait_ready("web").await?;
    ensure!(revision(&changed) == revision(&first), "in place");
    let sets: Api<ReplicaSet> = ground.api();
    let set = sets.get(&format!("web-{}", revision(&changed))).await?;
    let template = set.spec.and_then(|spec| spec.template).and_then(|template| template.spec);
    ensure!(cpu(template) == *half, "pods to come, too");
    recorder.finish(ground.quiet()).await?;
    Ok(())
}
