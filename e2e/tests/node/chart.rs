//! The chart for real: on a node of its own, operator and agent run as pods, and nothing outside of the cluster but
//! kubectl and Helm has a part in it.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    cluster::{Cluster, Settled},
    counts::Counts,
    installation::{RELEASE, SYSTEM, chart},
    node::LOAD,
    plugin::Plugin,
    wait::eventually,
    workloads,
};
use futures::future::try_join_all;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Pod, Secret},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::ground::POD_WITHIN;

const NAMESPACE: &str = "shop";
const WORKLOAD: &str = "burner";
/// From the start of a load to the write of the replica set. It takes 2 s; a busy machine gets more.
const REACTS_WITHIN: Duration = Duration::from_secs(60);

/// Two replicas at their limit ask for four; one does not ask for more than two.
fn manifest() -> String {
    json!({
        "apiVersion": "catamaran.dev/v1alpha1",
        "kind": "ElasticWorkload",
        "metadata": {"name": WORKLOAD},
        "spec": {
            "container": {"image": LOAD, "args": ["serve"]},
            "quota": {
                "cpu": {"request": "100m", "limit": "200m"},
                "memory": {"request": "16Mi", "limit": "64Mi"},
                "pids": 64,
            },
            "scaling": {
                "minReplicas": 2, "maxReplicas": 4, "victims": "LeastBusy",
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "100m"}}}],
                "behavior": {"scaleDown": {
                    "stabilizationWindowSeconds": 3,
                    "policies": [{"type": "Pods", "value": 10, "periodSeconds": 1}],
                }},
            },
        },
    })
    .to_string()
}

fn values(log_level: &str) -> Value {
    json!({"usage": {"enabled": true}, "agent": {"enabled": true}, "log": {"level": log_level}})
}

pub(crate) async fn runs_the_product() -> Result<()> {
    let mut clock = Clock(Instant::now());
    let cluster = Cluster::start().await?;
    println!("the node was Ready {:.1} s after the start of QEMU", cluster.node.took().as_secs_f64());
    clock.tell("control plane, node, DNS and images");
    cluster.install(&values("info")).await?;
    let first = cluster.settled(2).await?;
    clock.tell("helm install");
    runs_as_the_chart_says(&cluster, &first).await?;
    clock.tell("looked at processes, lease, policy and budget");

    let shop = Shop::open(&cluster).await?;
    clock.tell("an ElasticWorkload runs");
    shop.scales_by_load().await?;
    clock.tell("scaled out and in");
    shop.is_billed().await?;
    clock.tell("billed");

    let secrets: Api<Secret> = Api::namespaced(cluster.control_plane.client(), SYSTEM);
    let certificate = secrets.get(&format!("{RELEASE}-usage-tls")).await?.data;
    let before = shop.replicas().await?;
    let helm = cluster.control_plane.helm()?;
    helm.upgrade(RELEASE, &chart(), SYSTEM, &values("debug")).await?;
    let second = cluster.settled(2).await?;
    differ(&first, &second)?;
    ensure!(shop.replicas().await? == before, "the upgrade disturbed replicas");
    clock.tell("helm upgrade");

    helm.run(["rollback", RELEASE, "1"], &["--namespace", SYSTEM], None).await?;
    let third = cluster.settled(2).await?;
    differ(&second, &third)?;
    ensure!(shop.replicas().await? == before, "the rollback disturbed replicas");
    ensure!(secrets.get(&format!("{RELEASE}-usage-tls")).await?.data == certificate, "agents would have to trust anew");
    clock.tell("helm rollback");
    // What leads now works.
    shop.kubectl(&[
        "patch",
        "elasticworkload",
        WORKLOAD,
        "--type=merge",
        "-p",
        r#"{"spec":{"scaling":{"minReplicas":3}}}"#,
    ])
    .await?;
    let before = shop.running(3).await?;

    helm.uninstall(RELEASE, SYSTEM).await?;
    eventually("the product's pods are gone", POD_WITHIN, || async {
        let left = (cluster.pods("operator").await?.len(), cluster.pods("agent").await?.len());
        ensure!(left == (0, 0), "{left:?}");
        Ok(Some(()))
    })
    .await?;
    ensure!(shop.replicas().await? == before, "the uninstall disturbed replicas");
    for pod in shop.pods().await? {
        let cgroup = cluster.node.cgroup_of(&pod, "main").await?;
        let pids = cluster.node.shell(&format!("cat '{cgroup}/pids.max'")).await?;
        ensure!(pids.trim() == "max", "the agent left pids.max at {pids}");
    }
    shop.kubectl(&["get", "elasticworkload", WORKLOAD]).await?;
    shop.kubectl(&["get", "crd", "elasticworkloads.catamaran.dev", "workloadclasses.catamaran.dev"]).await?;
    clock.tell("helm uninstall");
    Ok(())
}

/// Says how long each part took.
struct Clock(Instant);

impl Clock {
    fn tell(&mut self, what: &str) {
        println!("{:6.1} s  {what}", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

/// All pods of the product were replaced.
fn differ(before: &Settled, after: &Settled) -> Result<()> {
    let uids = |settled: &Settled| -> BTreeSet<_> {
        settled.operators.iter().chain([&settled.agent]).filter_map(ResourceExt::uid).collect()
    };
    ensure!(uids(before).is_disjoint(&uids(after)), "pods of before are still there");
    Ok(())
}

/// What the chart promises, as the kernel and the API server see it.
async fn runs_as_the_chart_says(cluster: &Cluster, settled: &Settled) -> Result<()> {
    for (pod, container, uid) in
        settled.operators.iter().map(|pod| (pod, "operator", 65532)).chain([(&settled.agent, "agent", 0)])
    {
        ensure!(workloads::restarts(pod) == 0, "{} was restarted", pod.name_any());
        let cgroup = cluster.node.cgroup_of(pod, container).await?;
        let process = cluster.node.shell(&format!("head -n 1 '{cgroup}/cgroup.procs'")).await?.trim().to_owned();
        let status = cluster.node.shell(&format!("cat /proc/{process}/status")).await?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).map(|value| value.split('\t').collect::<Vec<_>>().join(" "))
        };
        let id = format!("{uid} {uid} {uid} {uid}");
        for (name, wanted) in [
            ("Uid", &*id),
            ("Gid", &*id),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            ensure!(of(name).as_deref() == Some(wanted), "{container}: {name} is {:?}", of(name));
        }
        let root = cluster.node.shell(&format!("awk '$2 == \"/\" {{ print $4 }}' /proc/{process}/mounts")).await?;
        ensure!(root.split(',').next() == Some("ro"), "{container}: / is mounted {root}");
    }
    let client = cluster.control_plane.client();
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM);
    let holder = leases.get(RELEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    ensure!(holder.starts_with(&format!("{}_", settled.leader)), "{holder} holds the lease, {} leads", settled.leader);
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), SYSTEM);
    policies.get(RELEASE).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, SYSTEM);
    eventually("the budget covers both operators", POD_WITHIN, || async {
        let status = budgets.get(RELEASE).await?.status.context("a status")?;
        Ok(((status.current_healthy, status.disruptions_allowed) == (2, 1)).then_some(()))
    })
    .await
}

/// The user's side: a namespace with the workload.
struct Shop<'a> {
    cluster: &'a Cluster,
    counts: Counts,
}

impl<'a> Shop<'a> {
    async fn open(cluster: &'a Cluster) -> Result<Self> {
        cluster.control_plane.create_namespace(NAMESPACE).await?;
        let counts = Counts::watch(&cluster.control_plane.client(), NAMESPACE, [WORKLOAD.to_owned()]);
        let shop = Self { cluster, counts };
        let file = cluster.control_plane.dir().join("burner.json");
        fs::write(&file, manifest())?;
        shop.kubectl(&["apply", "--filename", &file.display().to_string()]).await?;
        shop.running(2).await?;
        // The agent holds what only it can hold.
        for pod in shop.pods().await? {
            let cgroup = cluster.node.cgroup_of(&pod, "main").await?;
            eventually("the quota of processes is held", REACTS_WITHIN, || async {
                let pids = cluster.node.shell(&format!("cat '{cgroup}/pids.max'")).await?;
                Ok((pids.trim() == "64").then_some(()))
            })
            .await?;
        }
        Ok(shop)
    }

    /// kubectl, as the user `admin`.
    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.control_plane.run_kubectl(NAMESPACE, arguments).await
    }

    /// `kubectl catamaran bill` has a row for the workload, with the CPU time of its load.
    async fn is_billed(&self) -> Result<()> {
        let plugin = Plugin::start(&self.cluster.control_plane).await?;
        let plugin = &plugin;
        let hours = eventually("the workload is billed", REACTS_WITHIN, || async move {
            let text =
                plugin.run(&self.cluster.control_plane, NAMESPACE, &["bill", "--last", "2h", "--output", "json"]);
            let hours: Vec<Value> = serde_json::from_str(&text.await?)?;
            let cpu =
                hours.iter().filter(|hour| hour["workload"] == WORKLOAD).filter_map(|hour| hour["cpuHours"].as_str());
            let used = cpu.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
            ensure!(used > 0.0, "{hours:?}");
            Ok(Some(used))
        })
        .await?;
        let table = plugin.run(&self.cluster.control_plane, NAMESPACE, &["bill", WORKLOAD, "--last", "2h"]).await?;
        ensure!(table.lines().any(|line| line.starts_with(WORKLOAD)), "{table}");
        println!("billed are {:.2} CPU-seconds:\n{table}", hours * 3600.0);
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        workloads::pods(&self.cluster.control_plane.client(), NAMESPACE, WORKLOAD).await
    }

    /// Uid and restarts of each replica.
    async fn replicas(&self) -> Result<BTreeSet<(String, i32)>> {
        Ok(self.pods().await?.iter().map(|pod| (pod.uid().unwrap_or_default(), workloads::restarts(pod))).collect())
    }

    /// Waits until there are so many pods, and all are ready; no other is on its way out.
    async fn running(&self, count: usize) -> Result<BTreeSet<(String, i32)>> {
        let client = self.cluster.control_plane.client();
        let ready = i32::try_from(count)?;
        workloads::wait_for(&client, NAMESPACE, WORKLOAD, &format!("has {count} ready"), POD_WITHIN, |workload| {
            workload.status.as_ref().is_some_and(|status| status.ready_replicas == ready && status.replicas == ready)
        })
        .await?;
        eventually(&format!("{count} pods are there"), POD_WITHIN, || async {
            Ok(Some(self.replicas().await?).filter(|pods| pods.len() == count))
        })
        .await
    }

    /// Real load in containers: out within seconds of its start; in, at its end, without the replica that is still
    /// busy.
    async fn scales_by_load(&self) -> Result<()> {
        let resting = self.pods().await?;
        ensure!(resting.len() == 2);
        let started = Instant::now();
        let node = &self.cluster.node;
        try_join_all(resting.iter().map(|pod| node.burn(pod))).await?;
        let raised = timeout(REACTS_WITHIN, self.counts.rises(WORKLOAD, 2))
            .await
            .context("the workload does not scale out")??;
        println!("scaled out {:.2} s after the start of the load", raised.duration_since(started).as_secs_f64());
        // One of the new replicas is busy, and goes on when the first two have done their work.
        let busy = eventually("a new replica is ready", POD_WITHIN, || async {
            let pods = self.pods().await?;
            Ok(pods
                .into_iter()
                .find(|pod| resting.iter().all(|old| old.uid() != pod.uid()) && workloads::pod_is_ready(pod)))
        })
        .await?;
        node.burn(&busy).await?;
        try_join_all(resting.iter().map(|pod| node.end_burning(pod))).await?;
        timeout(POD_WITHIN, self.counts.is(WORKLOAD, 2)).await.context("the workload does not scale in")??;
        let left = self.running(2).await?;
        ensure!(left.contains(&(busy.uid().unwrap_or_default(), 0)), "the busy replica was taken: {left:?}");
        node.end_burning(&busy).await
    }
}
