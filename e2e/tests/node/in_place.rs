//! Quotas that are edited while a load runs: the kernel gets what was asked, and nothing restarts.

use std::{
    collections::BTreeMap,
    env, fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    node::LOAD,
    wait::eventually,
    workloads::{self, condition},
};
use kube::ResourceExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ground::{Ground, NAMESPACE, POD_WITHIN};

/// How many sequences of edits are drawn.
const SEQUENCES: &str = "CATAMARAN_SEQUENCES";
/// Where they start from; drawn and printed when it is not set.
const SEED: &str = "CATAMARAN_SEED";
/// Edits of one sequence.
const EDITS: usize = 4;
/// 5 s are aimed at; the guest is emulated, and other tests run beside this one.
const IN_EFFECT_WITHIN: Duration = Duration::from_secs(40);

/// A quota with every field, in the units of the API.
#[derive(Clone, Debug, PartialEq)]
struct Drawn {
    cpu_request: u64,
    cpu_limit: u64,
    burst: Option<u64>,
    weight: Option<u64>,
    memory_request: u64,
    memory_limit: u64,
    high: Option<u64>,
    swap: Option<u64>,
    pids: Option<u64>,
    /// Reads and writes in MiB a second, then in operations a second.
    io: Option<[u64; 4]>,
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn maybe(random: &mut StdRng, from: u64, to: u64) -> Option<u64> {
    random.random_bool(0.7).then(|| random.random_range(from..=to))
}

impl Drawn {
    fn new(random: &mut StdRng) -> Self {
        let (cpu_limit, memory_limit) = (random.random_range(100..=600), random.random_range(64..=160));
        Self {
            cpu_request: random.random_range(10..=60),
            cpu_limit,
            burst: maybe(random, 1, cpu_limit),
            weight: maybe(random, 1, 10_000),
            memory_request: random.random_range(8..=24),
            memory_limit,
            high: maybe(random, 48, memory_limit),
            swap: maybe(random, 0, 64),
            pids: maybe(random, 50, 5000),
            io: random.random_bool(0.7).then(|| {
                let mut rate = |to: u64| random.random_range(1..=to);
                [rate(500), rate(500), rate(5000), rate(5000)]
            }),
        }
    }

    /// As `spec.quota`, with a null for what is absent: a merge patch takes it away.
    fn spec(&self) -> Value {
        let milli = |value: u64| format!("{value}m");
        let mebi = |value: u64| format!("{value}Mi");
        let io = self.io.map(|[read, write, reads, writes]| {
            json!([{
                "device": "vdb", "readBytesPerSecond": mebi(read), "writeBytesPerSecond": mebi(write),
                "readOperationsPerSecond": reads, "writeOperationsPerSecond": writes,
            }])
        });
        json!({
            "cpu": {
                "request": milli(self.cpu_request), "limit": milli(self.cpu_limit),
                "burst": self.burst.map(milli), "weight": self.weight,
            },
            "memory": {
                "request": mebi(self.memory_request), "limit": mebi(self.memory_limit),
                "high": self.high.map(mebi), "swap": self.swap.map(mebi),
            },
            "pids": self.pids,
            "io": io,
        })
    }

    /// What the files of the container's cgroup have to say, computed here anew: each file with the values that are
    /// right.
    fn files(&self, device: &str) -> Vec<(&'static str, Vec<String>)> {
        let max = || "max".to_owned();
        let bytes = |mebibytes: u64| (mebibytes << 20).to_string();
        let io = self.io.map_or_else(String::new, |[read, write, reads, writes]| {
            format!("{device} rbps={} wbps={} riops={reads} wiops={writes}", read << 20, write << 20)
        });
        vec![
            ("cpu.max", vec![format!("{} 100000", self.cpu_limit * 100)]),
            ("cpu.max.burst", vec![(self.burst.unwrap_or(0) * 100).to_string()]),
            ("cpu.weight", self.weight.map_or_else(|| runtime_weights(self.cpu_request), |w| vec![w.to_string()])),
            ("memory.max", vec![bytes(self.memory_limit)]),
            ("memory.high", vec![self.high.map_or_else(max, bytes)]),
            ("memory.swap.max", vec![bytes(self.swap.unwrap_or(0))]),
            ("pids.max", vec![self.pids.map_or_else(max, |pids| pids.to_string())]),
            ("io.max", vec![io]),
        ]
    }
}

/// What a runtime makes of a request: linear in the shares, or by the curve of runc 1.3.2 and crun 1.23 and later.
fn runtime_weights(millicores: u64) -> Vec<String> {
    let shares = (millicores * 1024 / 1000).max(2);
    let linear = 1 + (shares - 2) * 9999 / 262_142;
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let log = (shares as f64).log2();
    let curve = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil();
    vec![linear.to_string(), format!("{curve:.0}")]
}

/// The texts of files in a cgroup, by one command.
async fn texts(ground: &Ground, cgroup: &str, files: &[&str]) -> Result<Vec<String>> {
    let each = "for file in \"$@\"; do cat \"$file\" | tr '\\n' ';'; echo; done";
    let output = ground.node.shell(&format!("cd '{cgroup}' && set -- {} && {each}", files.join(" "))).await?;
    Ok(output.lines().map(|line| line.trim_end_matches(';').to_owned()).collect())
}

/// Waits until the kernel has all of a quota. Gives how long after `since` each file had it, in seconds.
async fn in_effect(
    ground: &Ground,
    cgroup: &str,
    device: &str,
    drawn: &Drawn,
    since: Instant,
) -> Result<BTreeMap<&'static str, f64>> {
    let expected = &drawn.files(device);
    let files: Vec<&str> = expected.iter().map(|(file, _)| *file).collect();
    let (files, right_since) = (&files, &Mutex::new(BTreeMap::new()));
    eventually(&format!("the kernel has {drawn:?}"), IN_EFFECT_WITHIN, || async move {
        let found = texts(ground, cgroup, files).await?;
        let now = since.elapsed().as_secs_f64();
        let mut right_since = right_since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wrong = Vec::new();
        for ((file, right), found) in expected.iter().zip(&found) {
            if right.contains(found) {
                right_since.entry(*file).or_insert(now);
            } else {
                right_since.remove(file);
                wrong.push(format!("{file} says {found:?}, right is {right:?}"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(Some(std::mem::take(&mut *right_since)))
    })
    .await
}

fn workload(name: &str, quota: &Value) -> String {
    json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": {"name": name},
        "spec": {
            "container": {"image": LOAD, "args": ["cpu", "--threads", "2"]},
            "quota": quota,
            "replicas": 1,
        },
    })
    .to_string()
}

pub(crate) async fn edits_under_load_restart_nothing(ground: &Ground) -> Result<()> {
    let seed = variable(SEED).unwrap_or_else(|| rand::rng().random());
    let sequences = variable(SEQUENCES).unwrap_or(2);
    println!("{SEED}={seed} {SEQUENCES}={sequences}");
    let device = ground.node.shell("cat /sys/block/vdb/dev").await?.trim().to_owned();
    let mut took = Vec::new();
    for sequence in 0..sequences {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(sequence));
        let first = Drawn::new(&mut random);
        let name = format!("edited-{sequence}");
        let mut spec = first.spec();
        // A manifest that is applied has no nulls.
        prune(&mut spec);
        workloads::apply(&ground.client, NAMESPACE, &workload(&name, &spec)).await?;
        ground.ready(&name, "Available").await?;
        let pod = ground.pod_of(&name).await?;
        let cgroup = ground.node.cgroup_of(&pod, "main").await?;
        in_effect(ground, &cgroup, &device, &first, Instant::now())
            .await
            .with_context(|| format!("{SEED}={seed} {sequence}"))?;
        let mut before = first;
        for edit in 0..EDITS {
            let drawn = Drawn::new(&mut random);
            let what = || format!("{SEED}={seed}, sequence {sequence}, edit {edit}: from {before:?} to {drawn:?}");
            let started = Instant::now();
            let patch = json!({"spec": {"quota": drawn.spec()}});
            workloads::patch(&ground.client, NAMESPACE, &name, &patch).await?;
            let files = in_effect(ground, &cgroup, &device, &drawn, started).await.with_context(what)?;
            took.push(started.elapsed());
            println!("{files:.1?}");
            ground.ready(&name, "Available").await.with_context(what)?;
            let now = ground.pod_of(&name).await?;
            ensure!(now.uid() == pod.uid() && workloads::restarts(&now) == 0, "{}: another pod, or a restart", what());
            let conditions = now.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let resizes: Vec<_> = conditions.filter(|condition| condition.type_.starts_with("PodResize")).collect();
            ensure!(resizes.is_empty(), "{}: {resizes:?}", what());
            before = drawn;
        }
        ground.kubectl(&["delete", "elasticworkload", &name]).await?;
    }
    took.sort();
    let at =
        |percent: usize| took.get((took.len() * percent / 100).min(took.len() - 1)).map_or(0.0, Duration::as_secs_f64);
    println!(
        "{} edits in the kernel after: median {:.1} s, p90 {:.1} s, longest {:.1} s",
        took.len(),
        at(50),
        at(90),
        at(100)
    );
    Ok(())
}

fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(prune);
    }
}

/// More than the node has: no resize can bring it, so a new revision does, and the plan says why.
pub(crate) async fn what_no_node_has_rolls_and_the_plan_says_so(ground: &Ground) -> Result<()> {
    let quota = json!({"cpu": {"request": "20m", "limit": "200m"}, "memory": {"request": "16Mi", "limit": "64Mi"}});
    workloads::apply(&ground.client, NAMESPACE, &workload("too-much", &quota)).await?;
    let first = ground.ready("too-much", "Available").await?;
    let revision = |workload: &ElasticWorkload| workload.status.as_ref().and_then(|s| s.update_revision.clone());
    let pod = ground.pod_of("too-much").await?;
    let patch = json!({"spec": {"quota": {"cpu": {"request": "90", "limit": "100"}}}});
    workloads::patch(&ground.client, NAMESPACE, "too-much", &patch).await?;
    let what = "rolls out";
    let rolling = workloads::wait_for(&ground.client, NAMESPACE, "too-much", what, POD_WITHIN, |workload| {
        condition(workload, "Reconciling").is_some_and(|reconciling| reconciling.reason == "RollingOut")
            && revision(workload) != revision(&first)
    })
    .await?;
    ensure!(rolling.status.is_some_and(|status| status.available_replicas == 1), "the old replica stays meanwhile");
    let log = fs::read_to_string(ground.operator.lock().await.log())?;
    let said = format!("Pod {} cannot be resized where it runs", pod.name_any());
    ensure!(log.contains(&said), "the operator's log does not have: {said}");
    // What the node has runs again.
    workloads::patch(&ground.client, NAMESPACE, "too-much", &json!({"spec": {"quota": quota}})).await?;
    ground.ready("too-much", "Available").await?;
    let now =
        eventually("one pod is left", POD_WITHIN, || async { Ok(Some(ground.pod_of("too-much").await?)) }).await?;
    ensure!(workloads::restarts(&now) == 0);
    ground.kubectl(&["delete", "elasticworkload", "too-much"]).await?;
    Ok(())
}
