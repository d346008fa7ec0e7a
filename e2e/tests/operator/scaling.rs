//! Replica counts follow load, metrics and time, for both hulls.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    fake_clock::FakeClock,
    faults::Proxy,
    history::History,
    kubevirt::Knobs,
    metrics_adapter::{CustomVersions, MetricsAdapter},
    usage::{
        simulator::{Faults, UsageSimulator},
        world::Load,
    },
    wait::eventually,
    workloads::{WITHIN, web},
};
use catamaran_protocol::usage::UsageList;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::support::{Ground, random, web_machines, with_usage};

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
    ground.wait_for("web", &format!("wants {count} replicas"), WITHIN, |workload| desired(workload) == count).await
}

pub(crate) async fn settled(ground: &Ground, count: i32) -> Result<ElasticWorkload> {
    ground
        .wait_for("web", &format!("has {count} replicas"), WITHIN, |workload| {
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

/// Waits for so many more decisions of an operator that has one workload alone.
async fn decisions(ground: &Ground, more: f64, labels: &str) -> Result<()> {
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

pub(crate) async fn replicas_follow_the_usage_that_agents_push() -> Result<()> {
    let ground = Ground::start_with(with_usage()).await?;
    let simulator = ground.simulate()?;
    let load = |cores: f64| Load { base_cores: 0.0, noise: 0.02, ..Load::cores(cores) };
    // 50m are asked for: 0.09 cores are two replicas at 90 %, whatever the noise.
    simulator.load(&ground.namespace, "web", load(0.09));
    ground.apply(&containers(&format!("minReplicas: 1, maxReplicas: 8, {CPU}, {AT_ONCE}"))).await?;
    settled(&ground, 2).await?;
    let changed = Instant::now();
    simulator.load(&ground.namespace, "web", load(0.29));
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
    simulator.load(&ground.namespace, "web", load(0.09));
    settled(&ground, 2).await?;
    for (outcome, least) in [("up", 1.0), ("down", 1.0), ("unchanged", 4.0)] {
        let counted = metric(&ground, "catamaran_scaling_decisions_total", &format!("outcome=\"{outcome}\"")).await?;
        ensure!(counted >= least, "{counted} decisions are {outcome}");
    }
    let held_back = metric(&ground, "catamaran_scaling_decisions_total", "limit=\"scaleDownWindow\"").await?;
    ensure!(held_back > 0.0, "the window held nothing back");
    // Counts of usage alone: two steps of the load at least, each written soon after the report that showed it.
    for (time, least) in [("sample_to_decision", 10.0), ("sample_to_write", 2.0), ("reaction", 2.0)] {
        let name = |part| format!("catamaran_scaling_{time}_seconds_{part}");
        let (count, sum) = (metric(&ground, &name("count"), "").await?, metric(&ground, &name("sum"), "").await?);
        ensure!(count >= least && sum / count < 2.0, "{time}: {count} in {sum} s");
        println!("{time}: {:.3} s on average", sum / count);
    }
    // kubectl scale changes nothing in mode Auto.
    ground.patch("web", &json!({"spec": {"replicas": 7}})).await?;
    decisions(&ground, 2.0, "").await?;
    settled(&ground, 2).await?;
    ground.quiet().await
}

/// Gives each of ten replicas other work, and scales in by four.
async fn victims_of(ground: Ground, manifest: fn(&str) -> String) -> Result<()> {
    let recorder = ground.record("web").await?;
    let simulator = ground.usage()?;
    simulator.load(&ground.namespace, "web", Load { base_cores: 0.01, noise: 0.0, ..Load::cores(0.0) });
    let bounds =
        |max: u32| manifest(&format!("minReplicas: {max}, maxReplicas: {max}, {CPU}, {AT_ONCE}, victims: LeastBusy"));
    ground.apply(&bounds(10)).await?;
    settled(&ground, 10).await?;
    let pods: Api<Pod> = ground.api();
    let ten = Ten::at_work(&ground, simulator, &pods).await?;
    ground.apply(&bounds(6)).await?;
    settled(&ground, 6).await?;
    ten.lost_the_least_busy(&pods).await?;
    between_six_and_ten(&recorder.history())?;
    ground.quiet().await
}

/// Ten pods, each with other work, and the four of them with the least; both by name.
struct Ten {
    names: Vec<String>,
    idle: Vec<String>,
}

impl Ten {
    /// Gives the pods their work, and waits until usage shows it.
    async fn at_work(ground: &Ground, simulator: &UsageSimulator, pods: &Api<Pod>) -> Result<Self> {
        let mut names = live(pods).await?;
        names.sort();
        ensure!(names.len() == 10, "{names:?}");
        // Neither by name nor by age.
        let order = [3, 7, 1, 9, 5, 0, 8, 2, 6, 4];
        for (work, index) in order.iter().enumerate() {
            simulator.own_work(&names[*index], 0.02 + 0.04 * work as f64);
        }
        let mut idle: Vec<String> = order[..4].iter().map(|index| names[*index].clone()).collect();
        idle.sort();
        // Usage is an average of 3 s: it is right when those hold the new work alone.
        eventually("usage shows the new work", WITHIN, || async {
            let (_, text) = ground.operator.probe(&format!("/usage/{}/web?replicas=true", ground.namespace)).await?;
            let list: UsageList = serde_json::from_str(&text)?;
            let [workload] = list.items.as_slice() else { bail!("{text}") };
            let mut shown: Vec<i64> = workload.each.iter().filter_map(|replica| replica.usage.cpu_millicores).collect();
            shown.sort_unstable();
            // With the base of each.
            let right = shown.iter().zip(0..).all(|(shown, work)| shown.abs_diff(30 + 40 * work) <= 5);
            ensure!(shown.len() == 10 && right, "{shown:?}");
            Ok(Some(()))
        })
        .await?;
        // Conditions alone are written every 15 s: what the new work asks for is written by then.
        ground
            .wait_for("web", "says that more would be right", WITHIN, |workload| {
                told(workload, "ScalingLimited").1 == "TooManyReplicas"
            })
            .await?;
        Ok(Self { names, idle })
    }

    /// Waits until six are left, which have to be the busy ones.
    async fn lost_the_least_busy(self, pods: &Api<Pod>) -> Result<()> {
        let Self { mut names, idle } = self;
        let left = eventually("six are left", WITHIN, || async {
            let left = live(pods).await?;
            Ok((left.len() == 6).then_some(left))
        })
        .await?;
        names.retain(|name| !left.contains(name));
        ensure!(names == idle, "{names:?} went, {idle:?} were the least busy");
        Ok(())
    }
}

/// At every event after there were ten replicas for the first time: at most ten, and at least six available.
fn between_six_and_ten(history: &History) -> Result<()> {
    let full = history.0.iter().position(|moment| moment.available() == 10).context("there were ten once")?;
    let broken = history.0[full..].iter().find(|moment| moment.available() < 6 || moment.total() > 10);
    ensure!(broken.is_none(), "{}", broken.map(ToString::to_string).unwrap_or_default());
    Ok(())
}

async fn live(pods: &Api<Pod>) -> Result<Vec<String>> {
    let pods = pods.list(&ListParams::default().labels("catamaran.dev/workload=web")).await?;
    Ok(pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect())
}

/// Scales in by four again and again, each time with the operator killed between another two of its writes, until a
/// scale-in has no further write. `CATAMARAN_EVERY_WRITE` takes each of them; else there are three by chance.
async fn victims_whenever_killed(mut ground: Ground, manifest: fn(&str) -> String) -> Result<()> {
    let proxy = Proxy::start(&ground.control_plane).await?;
    ground.alone()?.installation.by_way_of(&proxy.url())?;
    ground.kill()?;
    ground.replace_operator().await?;
    let recorder = ground.record("web").await?;
    let simulator = ground.simulate()?;
    simulator.load(&ground.namespace, "web", Load { base_cores: 0.01, noise: 0.0, ..Load::cores(0.0) });
    let bounds =
        |max: u32| manifest(&format!("minReplicas: {max}, maxReplicas: {max}, {CPU}, {AT_ONCE}, victims: LeastBusy"));
    let pods: Api<Pod> = ground.api();
    let mut moments: Vec<usize> = (1..=20).collect();
    if std::env::var_os("CATAMARAN_EVERY_WRITE").is_none() {
        let mut random = random()?;
        // The first seven writes are there in any case: four victims, and at least a pause or a scale and two statuses.
        moments = rand::seq::index::sample(&mut random, 7, 3).into_iter().map(|index| index + 1).collect();
    }
    let mut killed = 0;
    for moment in moments {
        ground.apply(&bounds(10)).await?;
        settled(&ground, 10).await?;
        let ten = Ten::at_work(&ground, &simulator, &pods).await?;
        ground.quiet().await?;
        let shut = proxy.shut_after(moment);
        ground.apply(&bounds(6)).await?;
        let through = async {
            settled(&ground, 6).await?;
            ground.quiet().await
        };
        let was_killed = tokio::select! {
            () = shut.hit() => true,
            through = through => {
                through?;
                false
            }
        };
        if was_killed {
            println!("killed after write {moment}");
            killed += 1;
            ground.kill()?;
            proxy.clear(&shut);
            ground.replace_operator().await?;
            settled(&ground, 6).await?;
        }
        proxy.clear(&shut);
        ten.lost_the_least_busy(&pods).await.with_context(|| format!("after write {moment}"))?;
        if !was_killed {
            break;
        }
    }
    ensure!(killed >= 3, "killed {killed} times");
    between_six_and_ten(&recorder.history())?;
    ground.quiet().await
}

pub(crate) async fn the_least_busy_containers_go_whenever_the_operator_is_killed() -> Result<()> {
    victims_whenever_killed(Ground::start_with(with_usage()).await?, containers).await
}

pub(crate) async fn the_least_busy_virtual_machines_go_whenever_the_operator_is_killed() -> Result<()> {
    let mut ground = Ground::start_with(with_usage()).await?;
    ground.start_kubevirt(Knobs::default()).await?;
    victims_whenever_killed(ground, machines).await
}

pub(crate) async fn the_least_busy_containers_go(ground: Ground) -> Result<()> {
    victims_of(ground, containers).await
}

pub(crate) async fn the_least_busy_virtual_machines_go(ground: Ground) -> Result<()> {
    victims_of(ground, machines).await
}

const QUEUE: &str = "metrics: [{type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 10}}, activation: 2}]";

/// 0 -> 1 -> N -> 0 by an External metric.
async fn to_zero_and_back(ground: Ground, manifest: fn(&str) -> String) -> Result<()> {
    let adapter = ground.metrics()?;
    adapter.set_external(&ground.namespace, "queue", &[], "0");
    ground.apply(&manifest(&format!("minReplicas: 0, maxReplicas: 5, {QUEUE}, {AT_ONCE}"))).await?;
    settled(&ground, 0).await?;
    // Up to the activation it sleeps on.
    adapter.set_external(&ground.namespace, "queue", &[], "2");
    let path = format!("/explain/{}/web", ground.namespace);
    eventually("it is decided on that", WITHIN, || async {
        let (_, text) = ground.operator.probe(&path).await?;
        ensure!(text.contains("queue: 2 in all"), "{text}");
        Ok(Some(()))
    })
    .await?;
    settled(&ground, 0).await?;
    adapter.set_external(&ground.namespace, "queue", &[], "3");
    settled(&ground, 1).await?;
    adapter.set_external(&ground.namespace, "queue", &[], "40");
    settled(&ground, 4).await?;
    adapter.set_external(&ground.namespace, "queue", &[], "0");
    settled(&ground, 0).await?;
    ground.quiet().await
}

pub(crate) async fn containers_go_to_zero_and_come_back(ground: Ground) -> Result<()> {
    to_zero_and_back(ground, containers).await
}

pub(crate) async fn virtual_machines_go_to_zero_and_come_back(ground: Ground) -> Result<()> {
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

pub(crate) async fn schedules_move_the_bounds_of_containers(ground: Ground) -> Result<()> {
    follows_schedules(ground, containers).await
}

pub(crate) async fn schedules_move_the_bounds_of_virtual_machines(ground: Ground) -> Result<()> {
    follows_schedules(ground, machines).await
}

pub(crate) async fn a_restart_cuts_no_window_short() -> Result<()> {
    let mut ground = Ground::start().await?;
    let adapter = MetricsAdapter::start(&ground.control_plane, CustomVersions::Both).await?;
    adapter.set_external(&ground.namespace, "queue", &[], "40");
    let window = "behavior: {scaleDown: {stabilizationWindowSeconds: 3600}}";
    ground
        .apply(&containers(&format!(
            "minReplicas: 1, maxReplicas: 5, {}, {window}",
            QUEUE.replace(", activation: 2", "")
        )))
        .await?;
    settled(&ground, 4).await?;
    adapter.set_external(&ground.namespace, "queue", &[], "10");
    ground
        .wait_for("web", "is held by its window", WITHIN, |workload| {
            told(workload, "AbleToScale").1 == "ScaleDownStabilized"
        })
        .await?;
    ground.kill_operator(Duration::ZERO, &mut random()?, "operator-b").await?;
    decisions(&ground, 3.0, "limit=\"scaleDownWindow\"").await?;
    settled(&ground, 4).await?;
    Ok(())
}

pub(crate) async fn lost_metrics_hold_then_fall_back_and_come_back() -> Result<()> {
    let ground = Ground::start_with(with_usage()).await?;
    let simulator = ground.simulate()?;
    simulator.load(&ground.namespace, "web", Load { base_cores: 0.0, noise: 0.0, ..Load::cores(0.09) });
    let fallback = "fallback: {afterSeconds: 8, replicas: 5, behavior: CurrentReplicasIfHigher}";
    ground.apply(&containers(&format!("minReplicas: 1, maxReplicas: 8, {CPU}, {AT_ONCE}, {fallback}"))).await?;
    settled(&ground, 2).await?;
    for node in 0..4 {
        simulator.faults(&format!("node-{node}"), Faults { stopped: true, ..Faults::default() });
    }
    let lost = ground
        .wait_for("web", "says that metrics are lost", WITHIN, |workload| told(workload, "ScalingActive").0 == "False")
        .await?;
    ensure!(desired(&lost) == 2 || desired(&lost) == 5, "missing data removes nothing: {}", desired(&lost));
    let fallen = settled(&ground, 5).await?;
    let decision = fallen.status.and_then(|status| status.scaling?.last_decision).context("a decision")?;
    ensure!(decision.reason == "Fallback", "{decision:?}");
    // However long it lasts. `CATAMARAN_OUTAGE_SECONDS=600` is the long form of this test.
    let outage = std::env::var("CATAMARAN_OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(5);
    let from = Timestamp::now() + Duration::from_secs(3);
    ground.quiet_between(from, from + Duration::from_secs(outage)).await?;
    settled(&ground, 5).await?;
    for node in 0..4 {
        simulator.faults(&format!("node-{node}"), Faults::default());
    }
    let back = ground
        .wait_for("web", "has metrics again", WITHIN, |workload| told(workload, "ScalingActive").0 == "True")
        .await?;
    ensure!(desired(&back) >= 2, "{:?}", back.status);
    settled(&ground, 2).await?;
    ground.quiet().await
}

pub(crate) async fn a_clock_that_is_set_by_an_hour_moves_nothing() -> Result<()> {
    let mut ground = Ground::start_with(with_usage()).await?;
    let clock = FakeClock::new()?;
    ground.alone()?.installation.set_environment(clock.environment());
    ground.kill()?;
    ground.replace_operator().await?;
    let simulator = ground.simulate()?;
    simulator.load(&ground.namespace, "web", Load { base_cores: 0.0, noise: 0.0, ..Load::cores(0.24) });
    let fallback = "fallback: {afterSeconds: 600, replicas: 1}";
    let window = "behavior: {scaleDown: {stabilizationWindowSeconds: 600}}";
    ground.apply(&containers(&format!("minReplicas: 1, maxReplicas: 8, {CPU}, {window}, {fallback}"))).await?;
    settled(&ground, 5).await?;
    // Two replicas would do, but the window of ten minutes is young; after a jump of an hour it still is.
    simulator.load(&ground.namespace, "web", Load { base_cores: 0.0, noise: 0.0, ..Load::cores(0.09) });
    for hours in [1, 0, -1, 0] {
        clock.set(SignedDuration::from_hours(hours))?;
        decisions(&ground, 5.0, "").await?;
        let workload = ground.api::<ElasticWorkload>().get("web").await?;
        ensure!(desired(&workload) == 5, "{hours} h: {:?}", workload.status);
    }
    settled(&ground, 5).await?;
    ground.quiet().await
}

pub(crate) async fn recommendations_are_shown_and_not_carried_out(ground: Ground) -> Result<()> {
    ground.metrics()?.set_external(&ground.namespace, "queue", &[], "40");
    let queue = QUEUE.replace(", activation: 2", "");
    let manifest = containers(&format!("mode: Recommend, minReplicas: 1, maxReplicas: 5, {queue}"));
    ground.apply(&manifest.replace("  scaling:", "  replicas: 2\n  scaling:")).await?;
    let ready = ground.wait_ready("web").await?;
    ensure!(desired(&ready) == 2, "{:?}", ready.status);
    let shown = ground
        .wait_for("web", "recommends 4", WITHIN, |workload| {
            workload.status.as_ref().and_then(|status| status.scaling.as_ref()).is_some_and(|s| s.desired_replicas == 4)
        })
        .await?;
    ensure!(desired(&shown) == 2, "{:?}", shown.status);
    ground.quiet().await
}
