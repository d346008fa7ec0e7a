//! Replica counts follow load, metrics and time, for both hulls.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    kubevirt::Knobs,
    metrics_adapter::{CustomVersions, MetricsAdapter},
    usage::{
        simulator::{Faults, Settings, UsageSimulator},
        world::Load,
    },
    wait::eventually,
    workloads::{WITHIN, patch, wait_for, wait_ready},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::support::{Ground, NAMESPACE, web, web_machines};

/// Values of the chart with the usage intake.
pub(crate) fn with_usage() -> Value {
    json!({"usage": {"enabled": true, "certificateSecret": "usage-tls"}})
}

pub(crate) fn simulator(ground: &Ground) -> Result<UsageSimulator> {
    let usage = ground.operator.usage().context("the operator takes usage")?;
    let settings = Settings::new(vec![usage.address], &usage.server_name, usage.ca_file.clone());
    UsageSimulator::start(ground.client.clone(), settings)
}

/// A workload whose spec has this scaling in place of a count.
fn scaled(workload: &str, scaling: &str) -> String {
    workload.replace("  replicas: 0\n", &format!("  scaling: {{{scaling}}}\n"))
}

pub(crate) fn containers(scaling: &str) -> String {
    scaled(&web("registry.test/web:1", 0, ""), scaling)
}

pub(crate) fn machines(scaling: &str) -> String {
    scaled(&web_machines("disk:1", 0, ""), scaling)
}

fn desired(workload: &ElasticWorkload) -> i32 {
    workload.status.as_ref().map_or(-1, |status| status.desired_replicas)
}

/// The status of a condition of scaling and its reason.
fn told(workload: &ElasticWorkload, type_: &str) -> (String, String) {
    let conditions = workload.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.into_iter().find(|condition| condition.type_ == type_);
    found.map(|condition| (condition.status.clone(), condition.reason.clone())).unwrap_or_default()
}

async fn wants(ground: &Ground, count: i32) -> Result<ElasticWorkload> {
    wait_for(&ground.client, NAMESPACE, "web", &format!("wants {count} replicas"), WITHIN, |workload| {
        desired(workload) == count
    })
    .await
}

pub(crate) async fn settled(ground: &Ground, count: i32) -> Result<ElasticWorkload> {
    wait_for(&ground.client, NAMESPACE, "web", &format!("has {count} replicas"), WITHIN, |workload| {
        let status = workload.status.clone().unwrap_or_default();
        status.desired_replicas == count && status.replicas == count && status.available_replicas == count
    })
    .await
}

/// The value of a metric of the operator, summed over its labels where they contain `labels`.
async fn metric(ground: &Ground, name: &str, labels: &str) -> Result<f64> {
    let text = ground.operator.metrics().await?;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.map(|line| Ok(line.rsplit(' ').next().context("a value")?.parse::<f64>()?)).sum()
}

/// Waits for so many more decisions.
pub(crate) async fn decisions(ground: &Ground, more: f64, labels: &str) -> Result<()> {
    let name = "catamaran_scaling_decisions_total";
    let before = metric(ground, name, labels).await?;
    eventually(&format!("{more} more decisions {labels}"), WITHIN, || async {
        Ok((metric(ground, name, labels).await? >= before + more).then_some(()))
    })
    .await
}

pub(crate) const CPU: &str =
    "metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 100}}}]";
/// Up at once; down when 5 s have asked for it: usage is an average of 3 s, so right after a scale-in it reads too low.
pub(crate) const AT_ONCE: &str = "behavior: {scaleUp: {policies: [{type: Pods, value: 100, periodSeconds: 1}]}, scaleDown: {stabilizationWindowSeconds: 5, policies: [{type: Pods, value: 100, periodSeconds: 1}]}}";

#[tokio::test(flavor = "multi_thread")]
async fn replicas_follow_the_usage_that_agents_push() -> Result<()> {
    let ground = Ground::start_with(with_usage()).await?;
    let simulator = simulator(&ground)?;
    let load = |cores: f64| Load { base_cores: 0.0, noise: 0.02, ..Load::cores(cores) };
    // 50m are asked for: 0.09 cores are two replicas at 90 %, whatever the noise.
    simulator.load(NAMESPACE, "web", load(0.09));
    ground.apply(&containers(&format!("minReplicas: 1, maxReplicas: 8, {CPU}, {AT_ONCE}"))).await?;
    settled(&ground, 2).await?;
    let changed = Instant::now();
    simulator.load(NAMESPACE, "web", load(0.29));
    let grown = wants(&ground, 6).await?;
    println!("from the step of the load to the written status: {:.1} s", changed.elapsed().as_secs_f64());
    let decision = grown.status.clone().and_then(|status| status.scaling?.last_decision).context("a decision")?;
    ensure!(decision.to == 6 && decision.metrics.len() == 1, "{decision:?}");
    ensure!(told(&grown, "ScalingActive") == ("True".into(), "ValidMetricFound".into()), "{:?}", grown.status);
    settled(&ground, 6).await?;
    // A constant load, noise and all, writes nothing, while decisions go on.
    // Right after the step the average of 3 s still holds the load of fewer replicas, and may ask for one too many.
    eventually("nothing is written over four decisions", WITHIN, || async {
        let from = Timestamp::now();
        decisions(&ground, 4.0, "").await?;
        let to = Timestamp::now();
        Ok(ground.quiet_between(from + Duration::from_secs(1), to).await.is_ok().then_some(()))
    })
    .await?;
    settled(&ground, 6).await?;
    simulator.load(NAMESPACE, "web", load(0.09));
    settled(&ground, 2).await?;
    // kubectl scale changes nothing in mode Auto.
    patch(&ground.client, NAMESPACE, "web", &json!({"spec": {"replicas": 7}})).await?;
    decisions(&ground, 2.0, "").await?;
    settled(&ground, 2).await?;
    ground.quiet().await
}

/// Gives each of ten replicas other work, scales in by four, and returns the names that are left with their work.
async fn victims_of(mut ground: Ground, manifest: fn(&str) -> String, kill: bool) -> Result<()> {
    let simulator = simulator(&ground)?;
    simulator.load(NAMESPACE, "web", Load { base_cores: 0.01, noise: 0.0, ..Load::cores(0.0) });
    let bounds =
        |max: u32| manifest(&format!("minReplicas: {max}, maxReplicas: {max}, {CPU}, {AT_ONCE}, victims: LeastBusy"));
    ground.apply(&bounds(10)).await?;
    settled(&ground, 10).await?;
    let pods: Api<Pod> = Api::namespaced(ground.client.clone(), NAMESPACE);
    let mut names: Vec<String> = live(&pods).await?;
    ensure!(names.len() == 10, "{names:?}");
    // Neither by name nor by age.
    let order = [3, 7, 1, 9, 5, 0, 8, 2, 6, 4];
    for (work, index) in order.iter().enumerate() {
        simulator.own_work(&names[*index], 0.02 + 0.04 * work as f64);
    }
    let mut idle: Vec<String> = order[..4].iter().map(|index| names[*index].clone()).collect();
    // The window of usage is 3 s; after so many decisions it holds the new work alone.
    decisions(&ground, 6.0, "").await?;
    ground.apply(&bounds(6)).await?;
    if kill {
        let marked = ListParams::default().labels("catamaran.dev/workload=web");
        eventually("the scale-in has begun", WITHIN, || async {
            let begun = pods.list(&marked).await?.iter().any(|pod| {
                pod.annotations().contains_key("controller.kubernetes.io/pod-deletion-cost")
                    || pod.metadata.deletion_timestamp.is_some()
            });
            Ok(begun.then_some(()))
        })
        .await?;
        ground.operator.kill()?;
        ground.operator = ground.installation.start(&ground.control_plane, "operator-b").await?;
    }
    settled(&ground, 6).await?;
    let left = eventually("six are left", WITHIN, || async {
        let left = live(&pods).await?;
        Ok((left.len() == 6).then_some(left))
    })
    .await?;
    names.retain(|name| !left.contains(name));
    names.sort();
    idle.sort();
    ensure!(names == idle, "{names:?} went, {idle:?} were the least busy");
    ground.quiet().await
}

async fn live(pods: &Api<Pod>) -> Result<Vec<String>> {
    let pods = pods.list(&ListParams::default().labels("catamaran.dev/workload=web")).await?;
    Ok(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_busy_containers_go() -> Result<()> {
    victims_of(Ground::start_with(with_usage()).await?, containers, false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_busy_containers_go_even_if_the_operator_is_killed() -> Result<()> {
    victims_of(Ground::start_with(with_usage()).await?, containers, true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_busy_virtual_machines_go() -> Result<()> {
    let mut ground = Ground::start_with(with_usage()).await?;
    ground.start_kubevirt(Knobs::default()).await?;
    victims_of(ground, machines, false).await
}

const QUEUE: &str = "metrics: [{type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 10}}, activation: 2}]";

/// 0 -> 1 -> N -> 0 by an External metric.
async fn to_zero_and_back(ground: Ground, manifest: fn(&str) -> String) -> Result<()> {
    let adapter = MetricsAdapter::start(&ground.control_plane, CustomVersions::Both).await?;
    adapter.set_external(NAMESPACE, "queue", &[], "0");
    ground.apply(&manifest(&format!("minReplicas: 0, maxReplicas: 5, {QUEUE}, {AT_ONCE}"))).await?;
    settled(&ground, 0).await?;
    // Up to the activation it sleeps on.
    adapter.set_external(NAMESPACE, "queue", &[], "2");
    decisions(&ground, 2.0, "outcome=\"stay\"").await?;
    settled(&ground, 0).await?;
    adapter.set_external(NAMESPACE, "queue", &[], "3");
    settled(&ground, 1).await?;
    adapter.set_external(NAMESPACE, "queue", &[], "40");
    settled(&ground, 4).await?;
    adapter.set_external(NAMESPACE, "queue", &[], "0");
    settled(&ground, 0).await?;
    ground.quiet().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_go_to_zero_and_come_back() -> Result<()> {
    to_zero_and_back(Ground::start().await?, containers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_machines_go_to_zero_and_come_back() -> Result<()> {
    let ground = Ground::with_kubevirt(Knobs::default()).await?;
    to_zero_and_back(ground, machines).await
}

async fn follows_schedules(ground: Ground, manifest: fn(&str) -> String) -> Result<()> {
    // From the first minute of the hour to a 29 February, so always; and the other way round.
    let always = "schedules: [{name: always, start: \"* * * * *\", end: \"0 0 29 2 *\", minReplicas: 3}]";
    let never = "schedules: [{name: never, start: \"0 0 29 2 *\", end: \"* * * * *\", minReplicas: 3}]";
    ground.apply(&manifest(&format!("minReplicas: 0, maxReplicas: 5, {always}, {AT_ONCE}"))).await?;
    let busy = settled(&ground, 3).await?;
    let decision = busy.status.and_then(|status| status.scaling?.last_decision).context("a decision")?;
    ensure!(decision.to == 3, "{decision:?}");
    ground.apply(&manifest(&format!("minReplicas: 0, maxReplicas: 5, {never}, {AT_ONCE}"))).await?;
    settled(&ground, 0).await?;
    ground.quiet().await
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_move_the_bounds_of_containers() -> Result<()> {
    follows_schedules(Ground::start().await?, containers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_move_the_bounds_of_virtual_machines() -> Result<()> {
    follows_schedules(Ground::with_kubevirt(Knobs::default()).await?, machines).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_cuts_no_window_short() -> Result<()> {
    let mut ground = Ground::start().await?;
    let adapter = MetricsAdapter::start(&ground.control_plane, CustomVersions::Both).await?;
    adapter.set_external(NAMESPACE, "queue", &[], "40");
    let window = "behavior: {scaleDown: {stabilizationWindowSeconds: 3600}}";
    ground
        .apply(&containers(&format!(
            "minReplicas: 1, maxReplicas: 5, {}, {window}",
            QUEUE.replace(", activation: 2", "")
        )))
        .await?;
    settled(&ground, 4).await?;
    adapter.set_external(NAMESPACE, "queue", &[], "10");
    wait_for(&ground.client, NAMESPACE, "web", "is held by its window", WITHIN, |workload| {
        told(workload, "AbleToScale").1 == "ScaleDownStabilized"
    })
    .await?;
    ground.operator.kill()?;
    ground.operator = ground.installation.start(&ground.control_plane, "operator-b").await?;
    decisions(&ground, 3.0, "reason=\"Stabilized\"").await?;
    settled(&ground, 4).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_metrics_hold_then_fall_back_and_come_back() -> Result<()> {
    let ground = Ground::start_with(with_usage()).await?;
    let simulator = simulator(&ground)?;
    simulator.load(NAMESPACE, "web", Load { base_cores: 0.0, noise: 0.0, ..Load::cores(0.09) });
    let fallback = "fallback: {afterSeconds: 8, replicas: 5, behavior: CurrentReplicasIfHigher}";
    ground.apply(&containers(&format!("minReplicas: 1, maxReplicas: 8, {CPU}, {AT_ONCE}, {fallback}"))).await?;
    settled(&ground, 2).await?;
    for node in 0..4 {
        simulator.faults(&format!("node-{node}"), Faults { stopped: true, ..Faults::default() });
    }
    let lost = wait_for(&ground.client, NAMESPACE, "web", "says that metrics are lost", WITHIN, |workload| {
        told(workload, "ScalingActive").0 == "False"
    })
    .await?;
    ensure!(desired(&lost) == 2 || desired(&lost) == 5, "missing data removes nothing: {}", desired(&lost));
    let fallen = settled(&ground, 5).await?;
    let decision = fallen.status.and_then(|status| status.scaling?.last_decision).context("a decision")?;
    ensure!(decision.reason == "Fallback", "{decision:?}");
    for node in 0..4 {
        simulator.faults(&format!("node-{node}"), Faults::default());
    }
    let back = wait_for(&ground.client, NAMESPACE, "web", "has metrics again", WITHIN, |workload| {
        told(workload, "ScalingActive").0 == "True"
    })
    .await?;
    ensure!(desired(&back) >= 2, "{:?}", back.status);
    settled(&ground, 2).await?;
    ground.quiet().await
}

#[tokio::test(flavor = "multi_thread")]
async fn recommendations_are_shown_and_not_carried_out() -> Result<()> {
    let ground = Ground::start().await?;
    let adapter = MetricsAdapter::start(&ground.control_plane, CustomVersions::Both).await?;
    adapter.set_external(NAMESPACE, "queue", &[], "40");
    let queue = QUEUE.replace(", activation: 2", "");
    let manifest = containers(&format!("mode: Recommend, minReplicas: 1, maxReplicas: 5, {queue}"));
    ground.apply(&manifest.replace("  scaling:", "  replicas: 2\n  scaling:")).await?;
    let ready = wait_ready(&ground.client, NAMESPACE, "web").await?;
    ensure!(desired(&ready) == 2, "{:?}", ready.status);
    let shown = wait_for(&ground.client, NAMESPACE, "web", "recommends 4", WITHIN, |workload| {
        workload.status.as_ref().and_then(|status| status.scaling.as_ref()).is_some_and(|s| s.desired_replicas == 4)
    })
    .await?;
    ensure!(desired(&shown) == 2, "{:?}", shown.status);
    ground.quiet().await
}
