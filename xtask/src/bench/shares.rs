//! How much of what a limit or a weight promises a container has of a real node: shares of the host's time, so of a
//! quiet machine. Tests assert what the kernel counts instead (`e2e/tests/node`).

use std::time::Duration;

use anyhow::{Context, Result};
use catamaran_e2e::{
    control_plane::ControlPlane,
    node::{LOAD, Node, NodeOptions},
    wait::eventually,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::report::{Alone, Figures};

const NAMESPACE: &str = "shares";
/// How long a pod may take; alone it takes 5 s.
const POD_WITHIN: Duration = Duration::from_secs(180);
/// The time over which is measured.
const MEASURED: Duration = Duration::from_secs(10);
/// Bytes that may be written in a second.
const WRITES: f64 = 4.0 * 1024.0 * 1024.0;

struct Ground {
    node: Node,
    pods: Api<Pod>,
    control_plane: ControlPlane,
}

pub(super) async fn run() -> Result<Alone> {
    let control_plane = ControlPlane::builder().start().await?;
    control_plane.create_namespace(NAMESPACE).await?;
    let node = Node::boot(&control_plane, NodeOptions::default()).await?;
    let pods = Api::namespaced(control_plane.client(), NAMESPACE);
    let ground = Ground { node, pods, control_plane };
    let mut figures = Figures::new();
    figures.insert("ofCpuLimit", ground.limit().await?);
    figures.insert("besideNeighbour", ground.neighbour().await?);
    figures.insert("ofWeights", ground.weights().await?);
    figures.insert("ofWriteLimit", ground.writes().await?);
    for (name, share) in &figures {
        eprintln!("shares: {name} {share:.3}");
    }
    Ok(Alone { name: "shares", figures })
}

impl Ground {
    /// What a container uses of a limit of 0.2 CPUs.
    async fn limit(&self) -> Result<f64> {
        let container = self.start("limit", load(1, "200m", Some("200m"))).await?;
        let used = self.cpus(&container).await?;
        self.end(&["limit"]).await?;
        Ok(used / 0.2)
    }

    /// What one at its limit has beside a neighbour at its own, of what it has alone.
    async fn neighbour(&self) -> Result<f64> {
        let quiet = self.start("quiet", load(1, "500m", Some("500m"))).await?;
        let alone = self.cpus(&quiet).await?;
        self.start("noisy", load(4, "100m", Some("800m"))).await?;
        let beside = self.cpus(&quiet).await?;
        self.end(&["quiet", "noisy"]).await?;
        Ok(beside / alone)
    }

    /// How two containers with weights of 3 to 1 share a node, as a part of that.
    async fn weights(&self) -> Result<f64> {
        let (one, other) =
            tokio::try_join!(self.start("three", load(4, "100m", None)), self.start("one", load(4, "100m", None)))?;
        // Pods share what is left to pods of their kind, so it is the pods' weights that count.
        let pods = [&one, &other].map(|container| container.rsplit_once('/').map_or("", |(pod, _)| pod));
        for (pod, weight) in pods.into_iter().zip([300, 100]) {
            self.node.shell(&format!("echo {weight} > '{pod}/cpu.weight'")).await?;
        }
        let (three, one) = tokio::try_join!(self.cpus(&one), self.cpus(&other))?;
        self.end(&["three", "one"]).await?;
        Ok(three / one / 3.0)
    }

    /// What is written of a limit to a disk.
    async fn writes(&self) -> Result<f64> {
        let mut container = load(1, "100m", None);
        container["args"] = json!(["serve"]);
        container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let container = self.start("writes", container).await?;
        // `/data` is a file system of its own on the second disk.
        let limit = format!("echo \"$(cat /sys/block/vdb/dev) wbps={WRITES:.0}\" > '{container}/io.max'");
        self.node.shell(&limit).await?;
        let write = ["exec", "writes", "--", "/load", "write", "--for", "10s"];
        let text = self.control_plane.run_kubectl(NAMESPACE, &write).await?;
        let done: Value = serde_json::from_str(text.lines().last().context("one line")?)?;
        self.end(&["writes"]).await?;
        Ok(done["bytesPerSecond"].as_f64().context("bytesPerSecond")? / WRITES)
    }

    /// Starts a pod; gives the cgroup of its container.
    async fn start(&self, name: &str, container: Value) -> Result<String> {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "containers": [container],
                "volumes": [{"name": "data", "hostPath": {"path": "/data"}}],
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
            },
        });
        self.pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let pod = eventually(&format!("the pod {name} runs"), POD_WITHIN, || async {
            let pod = self.pods.get(name).await?;
            let runs = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
            Ok(runs.then_some(pod))
        })
        .await?;
        self.node.cgroup_of(&pod, "main").await
    }

    async fn end(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.pods.delete(name, &DeleteParams::default()).await?;
        }
        for name in names {
            eventually(&format!("the pod {name} is gone"), POD_WITHIN, || async {
                Ok(self.pods.get_opt(name).await?.is_none().then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// How many CPUs a cgroup uses.
    async fn cpus(&self, cgroup: &str) -> Result<f64> {
        let before = self.reading(cgroup).await?;
        sleep(MEASURED).await;
        let after = self.reading(cgroup).await?;
        Ok((after.0 - before.0) / (after.1 - before.1))
    }

    /// CPU time and the time, both in seconds, read by one command.
    async fn reading(&self, cgroup: &str) -> Result<(f64, f64)> {
        let text = self.node.shell(&format!("cat '{cgroup}/cpu.stat' /proc/uptime")).await?;
        let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("usage_usec")?;
        let uptime = text.lines().last().and_then(|line| line.split(' ').next()).context("uptime")?;
        Ok((used.trim().parse::<f64>()? / 1e6, uptime.parse()?))
    }
}

/// A container that computes on some threads.
fn load(threads: u32, request: &str, limit: Option<&str>) -> Value {
    let mut resources = json!({"requests": {"cpu": request}});
    if let Some(limit) = limit {
        resources["limits"] = json!({"cpu": limit});
    }
    json!({
        "name": "main", "image": LOAD, "imagePullPolicy": "Never",
        "args": ["cpu", "--threads", threads.to_string()], "resources": resources,
    })
}
