//! A pause of scaling is no outage, and a restart is asked for without a change of the spec.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_crds::{ElasticWorkload, names::RESTARTED_AT_ANNOTATION};
use catamaran_e2e::workloads::{condition, pod_is_ready};
use serde_json::{Value, json};

use crate::support::{Ground, web_machines};

const SOON: Duration = Duration::from_secs(60);

/// A workload whose scaling keeps four replicas at least. There are no figures, so nothing asks for more.
fn scaled(mode: &str) -> String {
    format!(
        "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {{name: web}}
spec:
  container: {{image: 'registry.test/web:1'}}
  scaling: {{mode: {mode}, minReplicas: 4, maxReplicas: 9, metrics: [{{type: Resource,
    resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 60}}}}}}]}}
  quota: {{cpu: {{request: 100m}}}}
"
    )
}

/// Waits until so many replicas are wanted and available.
async fn at(ground: &Ground, count: i32) -> Result<ElasticWorkload> {
    ground
        .wait_for("web", &format!("{count} replicas"), SOON, |workload| {
            let seen = |status: &catamaran_crds::ElasticWorkloadStatus| {
                status.observed_generation == workload.metadata.generation
                    && (status.desired_replicas, status.available_replicas, status.replicas) == (count, count, count)
            };
            workload.status.as_ref().is_some_and(seen)
        })
        .await
}

fn replicas(count: &Value) -> Value {
    json!({ "spec": { "replicas": count } })
}

pub(crate) async fn a_pause_of_scaling_keeps_the_count(ground: Ground) -> Result<()> {
    ground.apply(&scaled("Auto")).await?;
    at(&ground, 4).await?;
    // Off, without a count in the spec: it stays.
    ground.patch("web", &json!({ "spec": { "scaling": { "mode": "Off" } } })).await?;
    at(&ground, 4).await?;
    // No scaling at all, a stop, and a start.
    ground.patch("web", &json!({ "spec": { "scaling": null } })).await?;
    at(&ground, 4).await?;
    ground.patch("web", &json!({ "spec": { "state": "Stopped" } })).await?;
    at(&ground, 0).await?;
    ground.patch("web", &json!({ "spec": { "state": null } })).await?;
    at(&ground, 4).await?;
    // A count in the spec counts.
    ground.patch("web", &replicas(&json!(2))).await?;
    at(&ground, 2).await?;
    ground.quiet().await
}

pub(crate) async fn the_count_of_the_spec_is_reached_by_the_rates(ground: Ground) -> Result<()> {
    let rates = "{mode: Auto, behavior: {scaleDown: {policies: [{type: Pods, value: 1, periodSeconds: 5}]}},";
    ground.apply(&scaled("Auto").replace("{mode: Auto,", rates)).await?;
    at(&ground, 4).await?;
    ground.patch("web", &json!({ "spec": { "replicas": 2, "scaling": { "mode": "Off" } } })).await?;
    let moving = |workload: &ElasticWorkload| {
        let moving = workload.status.as_ref().and_then(|status| status.moving.as_ref());
        moving.is_some_and(|moving| moving.replicas == 3)
    };
    ground.wait_for("web", "is on its way", SOON, moving).await?;
    at(&ground, 2).await?;
    ground.quiet().await
}

pub(crate) async fn in_mode_hold_the_count_is_that_of_the_moment_or_of_the_user(ground: Ground) -> Result<()> {
    ground.apply(&scaled("Auto")).await?;
    at(&ground, 4).await?;
    ground.patch("web", &json!({ "spec": { "replicas": 1, "scaling": { "mode": "Hold" } } })).await?;
    at(&ground, 4).await?;
    // Conditions alone are written every 15 s at most.
    ground
        .wait_for("web", "says that it is held", SOON, |workload| {
            condition(workload, "AbleToScale").is_some_and(|found| found.reason == "Held")
        })
        .await?;
    at(&ground, 4).await?;
    // As `kubectl scale` writes it.
    ground.patch("web", &replicas(&json!(3))).await?;
    at(&ground, 3).await?;
    ground.patch("web", &replicas(&Value::Null)).await?;
    at(&ground, 3).await?;
    ground.patch("web", &json!({ "spec": { "scaling": { "mode": "Auto" } } })).await?;
    at(&ground, 4).await?;
    ground.quiet().await
}

/// Asks for a restart at this moment, or takes the annotation off.
async fn ask(ground: &Ground, time: Option<&str>) -> Result<()> {
    let annotations = json!({ RESTARTED_AT_ANNOTATION: time });
    ground.patch("web", &json!({ "metadata": { "annotations": annotations } })).await?;
    Ok(())
}

/// Waits until a restart is through: a full set of other pods.
async fn restarted(ground: &Ground, time: &str, before: &[String]) -> Result<Vec<String>> {
    ground
        .wait_for("web", "the restart is through", SOON, |workload| {
            let status = workload.status.clone().unwrap_or_default();
            let known = status.restarted_at.is_some_and(|known| known.0.to_string() == time);
            known && condition(workload, "Ready").is_some_and(|ready| ready.reason == "Available")
        })
        .await?;
    let now = names(ground).await?;
    ensure!(now.len() == before.len() && before.iter().all(|name| !now.contains(name)), "{before:?}, then {now:?}");
    Ok(now)
}

async fn names(ground: &Ground) -> Result<Vec<String>> {
    let pods = ground.staying_pods("web").await?;
    ensure!(pods.iter().all(pod_is_ready), "not all pods are ready");
    pods.into_iter().map(|pod| pod.metadata.name.context("a name")).collect()
}

pub(crate) async fn a_restart_replaces_every_replica_once(ground: Ground) -> Result<()> {
    ground.apply(&web_machines("registry.test/disk:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    let recorder = ground.record("web").await?;
    let first = names(&ground).await?;
    ask(&ground, Some("2026-03-01T10:00:00Z")).await?;
    let second = restarted(&ground, "2026-03-01T10:00:00Z", &first).await?;
    // A GitOps tool takes it off, and puts an older one back.
    ask(&ground, None).await?;
    ask(&ground, Some("2026-02-01T10:00:00Z")).await?;
    ground.quiet().await?;
    ensure!(names(&ground).await? == second, "nothing asked for another restart");
    ask(&ground, Some("2026-03-02T10:00:00Z")).await?;
    restarted(&ground, "2026-03-02T10:00:00Z", &second).await?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

pub(crate) async fn what_keeps_replicas_from_becoming_ready_is_told(ground: Ground) -> Result<()> {
    let mut text = scaled("'Off'").replace("cpu: {request: 100m}", "cpu: {request: '5000'}");
    text = text.replace("spec:\n", "spec:\n  replicas: 2\n");
    ground.apply(&text).await?;
    ground
        .wait_for("web", "the scheduler's words are in its conditions", SOON, |workload| {
            condition(workload, "Ready")
                .is_some_and(|ready| ready.message.contains("Pod web-") && ready.message.contains("Insufficient cpu"))
        })
        .await?;
    // KubeVirt tells it of the guest alone: its launcher pod runs.
    ground.apply(&GUESTS.replace("IMAGE", "registry.test/disk:nodisk")).await?;
    ground
        .wait_for("guests", "KubeVirt's words are in its conditions", SOON, |workload| {
            condition(workload, "Ready").is_some_and(|ready| {
                ready.message.contains("VirtualMachineInstance guests-")
                    && ready.message.contains("failed to find disk file from ImageVolume")
            })
        })
        .await?;
    ground.quiet().await
}

const GUESTS: &str = "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: guests}
spec:
  virtualMachine: {image: 'IMAGE'}
  quota: {memory: {request: 64Mi}}
";
