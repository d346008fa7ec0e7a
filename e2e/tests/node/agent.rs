//! The node agent, as the chart runs it, under a real kernel: every knob takes effect, is held, and goes with its
//! cause.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_crds::names::{NODE_QUOTA_ANNOTATION, WORKLOAD_LABEL};
use catamaran_e2e::{
    cluster::metric,
    installation::{SYSTEM, binary},
    node::{
        BUSYBOX, LOAD, Node,
        product::{Program, for_tests},
    },
    wait::eventually,
};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ground::{Ground, POD_WITHIN};

/// The agent looks each second; a busy machine gets more.
const HELD_WITHIN: Duration = Duration::from_secs(20);

/// What a container's files say that is held to a value in each of them.
pub(crate) const HELD: [(&str, &str); 6] = [
    ("cpu.max.burst", "20000"),
    ("cpu.weight", "300"),
    ("memory.high", "50331648"),
    ("memory.swap.max", "0"),
    ("pids.max", "64"),
    ("io.max", "wbps=4194304"),
];
/// The same files of one that is not held. What weight and swap were the runtime says.
pub(crate) const UNHELD: [(&str, &str); 4] =
    [("cpu.max.burst", "0"), ("memory.high", "max"), ("pids.max", "max"), ("io.max", "")];

/// Imports an image with the agent that was built last.
pub(crate) async fn import(node: &Node) -> Result<()> {
    let image = for_tests(Program::Agent, &binary(Program::Agent.name())?)?;
    node.import(&image.archive()?).await
}

/// Makes a pod of a workload with a quota for its container `main`.
async fn run(ground: &Ground, name: &str, containers: Value, quota: &Value) -> Result<Pod> {
    let mut containers = containers;
    for container in containers.as_array_mut().into_iter().flatten() {
        container["imagePullPolicy"] = json!("Never");
    }
    let pod = json!({
        "metadata": {
            "name": name,
            "labels": {WORKLOAD_LABEL: name},
            "annotations": {NODE_QUOTA_ANNOTATION: quota.to_string()},
        },
        "spec": {
            "containers": containers,
            "volumes": [{"name": "data", "hostPath": {"path": "/data"}}],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
        },
    });
    ground.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    ground
        .wait_for(name, "runs", |pod| {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let mut states = statuses.map(|status| status.state.as_ref().is_some_and(|state| state.waiting.is_none()));
            states.clone().count() > 0 && states.all(|started| started)
        })
        .await
}

/// Gives a pod another quota, or none.
async fn set_quota(ground: &Ground, name: &str, quota: Option<&Value>) -> Result<()> {
    let quota = quota.map(ToString::to_string);
    let patch = json!({"metadata": {"annotations": {NODE_QUOTA_ANNOTATION: quota}}});
    ground.pods().patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Waits until files of a cgroup say what they should.
pub(crate) async fn says(ground: &Ground, cgroup: &str, wanted: &[(&str, &str)]) -> Result<()> {
    eventually(&format!("{cgroup} has {wanted:?}"), HELD_WITHIN, || async {
        for (file, value) in wanted {
            let found = ground.read(cgroup, file).await?;
            // A value is a whole file, a line of it (cgroup.events) or a word of it (io.max names the device first).
            let mut parts = found.lines().chain(found.split_whitespace());
            let said = found == *value || parts.any(|part| part == *value);
            ensure!(said, "{file} says {found:?}");
        }
        Ok(Some(()))
    })
    .await
}

/// Microseconds of CPU time.
pub(crate) async fn used(ground: &Ground, cgroup: &str) -> Result<f64> {
    let stat = ground.read(cgroup, "cpu.stat").await?;
    Ok(stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("usage_usec")?.trim().parse()?)
}

/// Microseconds in which something in a cgroup waited for a disk.
async fn stalled(ground: &Ground, cgroup: &str) -> Result<u64> {
    let pressure = ground.read(cgroup, "io.pressure").await?;
    let some = pressure.lines().find(|line| line.starts_with("some ")).context("a line of some")?;
    let total = some.split(' ').find_map(|word| word.strip_prefix("total=")).context("a total")?;
    Ok(total.trim().parse()?)
}

/// What somebody else may write in the place of [`HELD`].
async fn foreign(ground: &Ground, cgroup: &str) -> Result<[(&'static str, String); HELD.len()]> {
    let device = ground.read(cgroup, "io.max").await?;
    let device = device.split(' ').next().context("io.max names a device")?;
    Ok([
        ("cpu.max.burst", "1000".to_owned()),
        ("cpu.weight", "77".to_owned()),
        ("memory.high", "max".to_owned()),
        ("memory.swap.max", "4096".to_owned()),
        ("pids.max", "max".to_owned()),
        ("io.max", format!("{device} wbps=max")),
    ])
}

/// A command of the node that writes all of that.
pub(crate) async fn overwrite(ground: &Ground, cgroup: &str) -> Result<String> {
    let foreign = foreign(ground, cgroup).await?;
    let writes = foreign.map(|(file, value)| format!("echo '{value}' > '{cgroup}/{file}'"));
    Ok(writes.join(" && "))
}

fn idle() -> Value {
    let resources = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    json!([{"name": "main", "image": BUSYBOX, "command": ["sleep", "100000"], "resources": resources}])
}

pub(crate) async fn knobs_are_held_and_go_with_the_quota(ground: &Ground) -> Result<()> {
    let quota = json!({
        "container": "main", "cpuBurstUsec": 20_000, "cpuWeight": 300, "memoryHighBytes": 48 << 20,
        "memorySwapMaxBytes": 0, "pidsMax": 64, "io": [{"device": "vdb", "wbps": 4 << 20}],
    });
    let pod = run(ground, "held", idle(), &quota).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    says(ground, &cgroup, &HELD).await?;
    // Somebody else writes each of them.
    let foreign = foreign(ground, &cgroup).await?;
    let mut longest = Duration::ZERO;
    for ((file, wanted), (same, value)) in HELD.iter().zip(&foreign) {
        ensure!(file == same);
        ground.node.shell(&format!("echo '{value}' > '{cgroup}/{file}'")).await?;
        let written = Instant::now();
        says(ground, &cgroup, &[(file, wanted)]).await?;
        longest = longest.max(written.elapsed());
    }
    println!("foreign writes were set back within {:.1} s", longest.as_secs_f64());
    // A part of it goes, then the rest; what the kubelet owns was never touched.
    set_quota(ground, "held", Some(&json!({"container": "main", "pidsMax": 32}))).await?;
    says(ground, &cgroup, &[("pids.max", "32"), ("memory.high", "max"), ("cpu.max.burst", "0")]).await?;
    set_quota(ground, "held", None).await?;
    says(ground, &cgroup, &UNHELD).await?;
    says(ground, &cgroup, &[("cpu.max", "20000 100000"), ("memory.max", "67108864")]).await?;
    // A hostile annotation changes nothing.
    set_quota(
        ground,
        "held",
        Some(&json!({"container": "main", "pidsMax": 5, "io": [{"device": "../sda", "wbps": 1}]})),
    )
    .await?;
    agent_metric(ground, "catamaran_agent_refused_annotations", |value| value >= 1.0).await?;
    says(ground, &cgroup, &UNHELD).await?;
    ground.delete("held").await
}

pub(crate) async fn forks_are_refused(ground: &Ground) -> Result<()> {
    let container = json!([{"name": "main", "image": LOAD, "args": ["serve"]}]);
    let pod = run(ground, "forks", container, &json!({"container": "main", "pidsMax": 40})).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    says(ground, &cgroup, &[("pids.max", "40")]).await?;
    // The load runs in the container that is held already.
    let text = ground.kubectl(&["exec", "forks", "--", "/load", "fork", "--count", "100"]).await?;
    let done: Value = serde_json::from_str(text.lines().last().context("one line")?)?;
    let started = done["started"].as_u64().context("started")?;
    ensure!(started < 40 && done["refused"].as_str().is_some_and(|why| !why.is_empty()), "{done}");
    ground.delete("forks").await
}

pub(crate) async fn writes_are_slowed_to_the_limit(ground: &Ground) -> Result<()> {
    const LIMIT: f64 = 4.0 * 1024.0 * 1024.0;
    let container = json!([{
        "name": "main", "image": LOAD, "args": ["serve"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }]);
    let quota = json!({"container": "main", "io": [{"device": "*", "wbps": 4 << 20}]});
    let pod = run(ground, "writes", container, &quota).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    says(ground, &cgroup, &[("io.max", "wbps=4194304")]).await?;
    let before = stalled(ground, &cgroup).await?;
    let text = ground.kubectl(&["exec", "writes", "--", "/load", "write", "--for", "10s"]).await?;
    let done: Value = serde_json::from_str(text.lines().last().context("one line")?)?;
    let rate = done["bytesPerSecond"].as_f64().context("bytesPerSecond")?;
    println!("written with {:.0} % of io.max", rate / LIMIT * 100.0);
    // A busy host may make them slower still, but never faster.
    ensure!(rate > 0.0 && rate < LIMIT * 1.1, "{done}");
    ensure!(stalled(ground, &cgroup).await? > before, "the kernel lets it wait for its writes");
    ground.delete("writes").await
}

pub(crate) async fn weights_order_the_cpu(ground: &Ground) -> Result<()> {
    let load = |name: &str| json!({"name": name, "image": LOAD, "args": ["cpu", "--threads", "4"], "resources": {"requests": {"cpu": "100m"}}});
    let pod = run(ground, "weights", json!([load("main"), load("other")]), &json!({"container": "main"})).await?;
    let (main, other) = (ground.node.cgroup_of(&pod, "main").await?, ground.node.cgroup_of(&pod, "other").await?);
    let weight: u64 = ground.read(&other, "cpu.weight").await?.parse()?;
    set_quota(ground, "weights", Some(&json!({"container": "main", "cpuWeight": weight * 3}))).await?;
    says(ground, &main, &[("cpu.weight", &(weight * 3).to_string())]).await?;
    let before = (used(ground, &main).await?, used(ground, &other).await?);
    let (main, other) = (&main, &other);
    eventually("both have used CPU time", HELD_WITHIN, || async move {
        let (of_main, of_other) = (used(ground, main).await? - before.0, used(ground, other).await? - before.1);
        println!("weights 3 : 1 gave {:.2} : 1", of_main / of_other);
        // Who gets more is the weights' doing; how much more depends on what the host leaves to the guest.
        ensure!(of_main > of_other, "{of_main} {of_other}");
        Ok((of_main.min(of_other) > 1e6).then_some(()))
    })
    .await?;
    ground.delete("weights").await
}

/// The chart's agent is taken off the node and put back.
pub(crate) async fn an_agent_that_another_one_follows_keeps_what_it_held(ground: &Ground) -> Result<()> {
    let pod = run(ground, "left", idle(), &json!({"container": "main", "pidsMax": 64, "cpuWeight": 500})).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    says(ground, &cgroup, &[("pids.max", "64"), ("cpu.weight", "500")]).await?;
    let agents: Api<DaemonSet> = Api::namespaced(ground.client.clone(), SYSTEM);
    let on = |node: Option<&str>| json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": node}}}}});
    agents.patch("catamaran-agent", &PatchParams::default(), &Patch::Merge(on(Some("to-be-found")))).await?;
    let pods: Api<Pod> = Api::namespaced(ground.client.clone(), SYSTEM);
    let here = ListParams::default().fields(&format!("spec.nodeName={}", ground.node.name()));
    eventually("the agent is gone", POD_WITHIN, || async {
        let all = pods.list(&here).await?;
        Ok((!all.iter().any(|pod| pod.name_any().starts_with("catamaran-agent"))).then_some(()))
    })
    .await?;
    // Its DaemonSet is there, so another agent may follow. What an uninstall sets back is in chart.rs.
    says(ground, &cgroup, &[("pids.max", "64"), ("cpu.weight", "500")]).await?;
    agents.patch("catamaran-agent", &PatchParams::default(), &Patch::Merge(on(None))).await?;
    ready(ground).await?;
    says(ground, &cgroup, &[("pids.max", "64"), ("cpu.weight", "500")]).await?;
    ground.delete("left").await
}

/// Waits for a value of the agent's metrics.
pub(crate) async fn agent_metric(ground: &Ground, name: &str, wanted: impl Fn(f64) -> bool) -> Result<()> {
    let wanted = &wanted;
    eventually(&format!("{name} of the agent"), HELD_WITHIN, || async move {
        let text = ground.node.metrics(&ground.agent().await?, 8081).await?;
        let value = metric(&text, name).context("the metric")?;
        Ok(wanted(value).then_some(()))
    })
    .await
}

/// The agent's pod is ready: as uid 0 without capabilities, with a read-only root.
pub(crate) async fn ready(ground: &Ground) -> Result<()> {
    let agents: Api<DaemonSet> = Api::namespaced(ground.client.clone(), SYSTEM);
    let outcome = eventually("the agent is ready", POD_WITHIN, || async {
        let status = agents.get("catamaran-agent").await?.status;
        Ok(status.filter(|status| status.number_ready == 1).map(|_| ()))
    })
    .await;
    if let Err(error) = outcome {
        let pods: Api<Pod> = Api::namespaced(ground.client.clone(), SYSTEM);
        let all = pods.list(&Default::default()).await?;
        let states: Vec<_> = all.items.into_iter().map(|pod| pod.status).collect();
        return Err(error.context(serde_json::to_string_pretty(&states)?));
    }
    Ok(())
}
