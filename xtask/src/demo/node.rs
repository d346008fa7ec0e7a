//! The demo on a real node: a kernel, containerd and a kubelet in QEMU. Operators and agent run in pods of it, as the
//! chart installs them.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    audit::Mark,
    cluster::Cluster,
    control_plane::ControlPlane,
    counts::Counts,
    installation::agent_user,
    node::{HELLO, LOAD},
    plugin::Plugin,
    tools::{Tool, Tools},
    wait::eventually,
    workloads::{condition, only_pod, restarts, staying_pods, wait_for},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    Stage,
    end::delete_all,
    knobs::{Knob, held, used},
    live::Live,
    screen::Screen,
    summary::{Promises, writes},
};

const NAMESPACE: &str = "demo";
const GREETER: &str = "greeter";
const BURNER: &str = "burner";
/// How long a step may take on a busy machine that emulates the node's processors.
const WITHIN: Duration = Duration::from_secs(180);
/// How soon the count has to follow a load. It takes 2 s; a machine that emulates the node's processors and does
/// something else beside gets more.
const REACTS_WITHIN: Duration = Duration::from_secs(60);
/// How long a frozen workload is looked at.
const FROZEN_FOR: Duration = Duration::from_secs(3);
/// By this share a bill may differ from what the kernel counted.
const TOLERANCE: f64 = 0.001;

/// The prices are high, so that some seconds cost something.
const CLASS: &str = "\
apiVersion: catamaran.dev/v1alpha1
kind: WorkloadClass
metadata: {name: demo}
spec:
  quota: {cpu: {request: 50m, limit: 200m}, memory: {request: 16Mi, limit: 64Mi}}
  price: {currency: EUR, cpuHour: '36', memoryGibHour: '1'}
";

const BURNER_MANIFEST: &str = "\
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: burner}
spec:
  className: demo
  container: {image: IMAGE, args: [serve]}
  quota:
    cpu: {request: 100m, limit: 200m, burst: 50m, weight: 200}
    memory: {request: 16Mi, limit: 64Mi, high: 48Mi, swap: 0}
    pids: 64
  scaling:
    minReplicas: 1
    maxReplicas: 3
    metrics:
      - {type: Resource, resource: {name: cpu, target: {type: AverageValue, averageValue: 200m}}}
    behavior:
      scaleDown: {stabilizationWindowSeconds: 3, policies: [{type: Pods, value: 10, periodSeconds: 1}]}
";

const KUBELET: &str = "kubelet";
const AGENT: &str = "catamaran-agent";

const ASKED: [Knob; 7] = [
    Knob { field: "cpu.limit: 200m", file: "cpu.max", value: "20000 100000", by: KUBELET },
    Knob { field: "cpu.burst: 50m", file: "cpu.max.burst", value: "5000", by: AGENT },
    Knob { field: "cpu.weight: 200", file: "cpu.weight", value: "200", by: AGENT },
    Knob { field: "memory.limit: 64Mi", file: "memory.max", value: "67108864", by: KUBELET },
    Knob { field: "memory.high: 48Mi", file: "memory.high", value: "50331648", by: AGENT },
    Knob { field: "memory.swap: 0", file: "memory.swap.max", value: "0", by: AGENT },
    Knob { field: "pids: 64", file: "pids.max", value: "64", by: AGENT },
];

/// Another quota, as a merge patch of the spec, and what has to come of it.
const EDIT: &str = r#"{"spec":{"quota":{"cpu":{"limit":"400m","burst":"100m"},"memory":{"high":"40Mi"},"pids":128}}}"#;
const EDITED: [Knob; 4] = [
    Knob { field: "cpu.limit: 400m", file: "cpu.max", value: "40000 100000", by: KUBELET },
    Knob { field: "cpu.burst: 100m", file: "cpu.max.burst", value: "10000", by: AGENT },
    Knob { field: "memory.high: 40Mi", file: "memory.high", value: "41943040", by: AGENT },
    Knob { field: "pids: 128", file: "pids.max", value: "128", by: AGENT },
];

/// Everything that runs. The cluster is dropped last: all else runs on it.
pub(super) struct Real {
    screen: Arc<Screen>,
    _live: Live,
    counts: Counts,
    plugin: Plugin,
    client: Client,
    cluster: Cluster,
}

impl Stage for Real {
    const READY: &str = "a control plane, a real node, and the chart with two operators and an agent on it";
    // A host without KVM emulates the processors of the node: how fast, nobody can promise.
    const READY_WITHIN: Option<Duration> = None;

    async fn set(screen: Arc<Screen>) -> Result<Self> {
        screen.say("start a control plane and, in QEMU, a node with its own kernel, containerd and kubelet");
        let cluster = Cluster::boot().await?;
        let node = cluster.node.object().await?;
        let system = node.status.and_then(|status| status.node_info).context("a node tells its system")?;
        screen.say(&format!(
            "{} was Ready {:.1} s after the start of QEMU: Linux {}, {}, kubelet {}",
            cluster.node.name(),
            cluster.node.took().as_secs_f64(),
            system.kernel_version,
            system.container_runtime_version,
            system.kubelet_version
        ));
        screen.say("into the node go a DNS and the images of operator and agent, as they were built last");
        cluster.provide().await?;
        screen.say("helm install catamaran, with usage.enabled and agent.enabled");
        cluster.install(&json!({"usage": {"enabled": true}, "agent": {"enabled": true}})).await?;
        cluster.settled(2).await?;
        let (client, control_plane) = (cluster.control_plane.client(), &cluster.control_plane);
        control_plane.create_namespace(NAMESPACE).await?;
        let plugin = Plugin::start(control_plane).await?;
        let live = Live::start(&client, NAMESPACE, false, screen.clone());
        let counts = Counts::watch(&client, NAMESPACE, [BURNER.to_owned()]);
        Ok(Self { screen, _live: live, counts, plugin, client, cluster })
    }

    fn control_plane(&mut self) -> &mut ControlPlane {
        &mut self.cluster.control_plane
    }

    async fn play(&mut self, promises: &mut Promises, keep: bool) -> Result<()> {
        self.greet(promises).await?;
        self.hold(promises).await?;
        self.edit(promises).await?;
        self.follow_load(promises).await?;
        if !keep {
            self.delete_all(promises).await?;
        }
        let all = self.cluster.control_plane.audit().writes_since(Mark::START)?;
        let by_agent = all.iter().filter(|write| write.user == agent_user()).count();
        promises.note(by_agent == 0, format!("the agent wrote to the kernel alone: {by_agent} writes to the API"));
        writes(&self.cluster.control_plane, NAMESPACE, &self.screen)
    }

    fn way_in(&self) -> Result<String> {
        let tools = Tools::prepare(&[Tool::Kubectl])?;
        let folder = tools.path(Tool::Kubectl)?.parent().context("a program lies in a folder")?.display();
        let plugin = self.plugin.folder().display();
        Ok(format!(
            "export PATH={folder}:{plugin}:$PATH CATAMARAN_OPERATOR_URL={}
kubectl --namespace {NAMESPACE} get elasticworkloads,pods; kubectl catamaran top --namespace {NAMESPACE}
for a load: kubectl --namespace {NAMESPACE} exec POD -- /load cpu --for 1m",
            self.plugin.url()
        ))
    }
}

impl Real {
    /// hello-world.
    async fn greet(&self, promises: &mut Promises) -> Result<()> {
        self.screen.say(&format!("kubectl apply: {GREETER}, the image hello-world as a workload of the class demo"));
        self.apply("class", CLASS).await?;
        let manifest = json!({
            "apiVersion": "catamaran.dev/v1alpha1",
            "kind": "ElasticWorkload",
            "metadata": {"name": GREETER},
            "spec": {"className": "demo", "container": {"image": HELLO, "args": ["--stay"]}, "replicas": 1},
        });
        self.apply(GREETER, &manifest.to_string()).await?;
        self.ready(GREETER, 1).await?;
        let selector = format!("catamaran.dev/workload={GREETER}");
        // Without a probe a container is ready as soon as it runs, which is before it prints.
        let log = eventually("the container prints", WITHIN, || async {
            Ok(Some(self.kubectl(&["logs", "--selector", &selector]).await?).filter(|log| !log.is_empty()))
        })
        .await?;
        self.screen.say(&format!("kubectl logs of {GREETER}: {}", log.trim()));
        promises.note(
            log == "Hello, world!\n",
            "hello-world ran in a container, and kubectl logs has its words".to_owned(),
        );
        Ok(())
    }

    /// A workload with a quota, in the kernel.
    async fn hold(&self, promises: &mut Promises) -> Result<()> {
        self.screen.say(&format!("kubectl apply: {BURNER}, one to three replicas by CPU, each with a quota"));
        self.apply(BURNER, &BURNER_MANIFEST.replace("IMAGE", LOAD)).await?;
        self.ready(BURNER, 1).await?;
        let pod = self.only_pod().await?;
        let cgroup = self.cluster.node.cgroup_of(&pod, "main").await?;
        let table = held(&self.cluster.node, &cgroup, &ASKED).await?;
        self.screen.say(&format!("the quota of {} as the node's kernel has it", pod.name_any()));
        self.screen.print(&format!("{table}\n"));
        promises.note(true, format!("the kernel holds {} values of the quota", ASKED.len()));
        Ok(())
    }

    /// Another quota, in place.
    async fn edit(&self, promises: &mut Promises) -> Result<()> {
        let before = self.only_pod().await?;
        let cgroup = self.cluster.node.cgroup_of(&before, "main").await?;
        self.screen.say(&format!("kubectl patch elasticworkload {BURNER}: {EDIT}"));
        let start = Instant::now();
        self.patch(EDIT).await?;
        let table = held(&self.cluster.node, &cgroup, &EDITED).await?;
        let took = start.elapsed().as_secs_f64();
        self.screen.say(&format!("{took:.1} s later, in the same cgroup"));
        self.screen.print(&format!("{table}\n"));
        self.ready(BURNER, 1).await?;
        let after = self.only_pod().await?;
        let same = self.cluster.node.cgroup_of(&after, "main").await? == cgroup && restarts(&after) == 0;
        promises
            .note(same, format!("another quota was in the kernel after {took:.1} s: the same container, no restart"));
        Ok(())
    }

    /// Its program computes: the workload grows, is frozen and billed, goes on, and shrinks.
    async fn follow_load(&self, promises: &mut Promises) -> Result<()> {
        let node = &self.cluster.node;
        let pod = self.only_pod().await?;
        self.screen.say(&format!("the program in {} begins to compute", pod.name_any()));
        let start = Instant::now();
        node.burn(&pod).await?;
        let raised =
            timeout(WITHIN, self.counts.rises(BURNER, 1)).await.context("the workload does not scale out")??;
        let took = raised.duration_since(start);
        self.screen.say(&format!("scaled out {:.1} s after the start of the load", took.as_secs_f64()));
        promises.note(took < REACTS_WITHIN, format!("scaled out {:.1} s after a real load began", took.as_secs_f64()));
        self.ready(BURNER, 2).await?;
        // Usage counts while it is fresh, and the node was busy with a container that started.
        eventually("the agent's figures", WITHIN, || async {
            let text = self.ask(&["top", BURNER]).await?;
            ensure!(text.contains("agents"), "{text}");
            Ok(Some(()))
        })
        .await?;
        self.plugin(&["top"]).await?;

        self.freeze(promises).await?;
        self.bill(promises).await?;
        self.thaw(promises).await?;

        self.screen.say("the load ends");
        let ended = Instant::now();
        node.end_burning(&pod).await?;
        timeout(WITHIN, self.counts.is(BURNER, 1)).await.context("the workload does not scale in")??;
        self.screen.say(&format!("scaled in {:.1} s after the end of the load", ended.elapsed().as_secs_f64()));
        self.ready(BURNER, 1).await
    }

    async fn freeze(&self, promises: &mut Promises) -> Result<()> {
        self.screen.say(&format!("kubectl patch elasticworkload {BURNER}: state Frozen, while the load goes on"));
        self.patch(r#"{"spec":{"state":"Frozen"}}"#).await?;
        wait_for(&self.client, NAMESPACE, BURNER, "is frozen", WITHIN, |workload| {
            condition(workload, "Ready").is_some_and(|ready| ready.reason == "Frozen")
        })
        .await?;
        let cgroups = self.cgroups(Level::Container).await?;
        let files: Vec<_> = cgroups.iter().map(|cgroup| format!("'{cgroup}/cgroup.events'")).collect();
        let command = format!("grep -h frozen {}", files.join(" "));
        eventually("the kernel has frozen every container", WITHIN, || async {
            let said = self.cluster.node.shell(&command).await?;
            ensure!(said.lines().all(|line| line == "frozen 1"), "{said}");
            Ok(Some(()))
        })
        .await?;
        let before = used(&self.cluster.node, &cgroups).await?;
        // The time over which is measured.
        sleep(FROZEN_FOR).await;
        let usec = used(&self.cluster.node, &cgroups).await?.saturating_sub(before);
        let told = format!("{usec} us of CPU in {} s", FROZEN_FOR.as_secs());
        self.screen.say(&format!("frozen: {} replicas used {told}", cgroups.len()));
        promises.note(usec == 0, format!("frozen under load: {told}"));
        Ok(())
    }

    /// While nothing moves, the bill can be compared with the kernel's count.
    async fn bill(&self, promises: &mut Promises) -> Result<()> {
        let cgroups = self.cgroups(Level::Pod).await?;
        #[allow(clippy::cast_precision_loss)]
        let counted = used(&self.cluster.node, &cgroups).await? as f64 / 1e6;
        let billed = eventually("the bill has all of it", WITHIN, || async {
            let text = self.ask(&["bill", BURNER, "--last", "1h", "--output", "json"]).await?;
            let hours: Vec<Value> = serde_json::from_str(&text)?;
            let cpu =
                hours.iter().map(|hour| Ok(hour["cpuHours"].as_str().context("cpuHours")?.parse::<f64>()? * 3600.0));
            let billed = cpu.sum::<Result<f64>>()?;
            ensure!(
                (billed / counted - 1.0).abs() < TOLERANCE,
                "{billed} s are billed, the kernel counted {counted} s"
            );
            Ok(Some(billed))
        })
        .await?;
        self.plugin(&["bill", "--last", "1h"]).await?;
        promises.note(true, format!("billed are {billed:.3} CPU-seconds of {BURNER}; the kernel counted {counted:.3}"));
        Ok(())
    }

    async fn thaw(&self, promises: &mut Promises) -> Result<()> {
        let cgroups = self.cgroups(Level::Container).await?;
        let before = used(&self.cluster.node, &cgroups).await?;
        self.screen.say("state Running");
        let start = Instant::now();
        self.patch(r#"{"spec":{"state":"Running"}}"#).await?;
        eventually("the load goes on", WITHIN, || async {
            Ok((used(&self.cluster.node, &cgroups).await? > before).then_some(()))
        })
        .await?;
        promises.note(true, format!("thawed: the load went on after {:.1} s", start.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Deletes the workloads and the class, and waits until everything that they owned is gone.
    async fn delete_all(&self, promises: &mut Promises) -> Result<()> {
        self.screen.say("delete everything");
        let start = Instant::now();
        delete_all(&self.client, NAMESPACE).await?;
        promises.note(true, format!("deleted, with all that they owned, in {:.1} s", start.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.control_plane.run_kubectl(NAMESPACE, arguments).await
    }

    async fn apply(&self, name: &str, manifest: &str) -> Result<()> {
        let file = self.cluster.control_plane.dir().join(format!("{name}.yaml"));
        fs::write(&file, manifest)?;
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).await.map(|_| ())
    }

    async fn patch(&self, patch: &str) -> Result<()> {
        self.kubectl(&["patch", "elasticworkload", BURNER, "--type", "merge", "--patch", patch]).await.map(|_| ())
    }

    async fn ask(&self, arguments: &[&str]) -> Result<String> {
        self.plugin.run(&self.cluster.control_plane, NAMESPACE, arguments).await
    }

    /// Shows what `kubectl catamaran` prints.
    async fn plugin(&self, arguments: &[&str]) -> Result<()> {
        let text = self.ask(arguments).await?;
        self.screen.say(&format!("kubectl catamaran {}", arguments.join(" ")));
        self.screen.print(&text);
        Ok(())
    }

    /// Waits until so many replicas are ready, and no other is there.
    async fn ready(&self, name: &str, count: i32) -> Result<()> {
        wait_for(&self.client, NAMESPACE, name, &format!("has {count} ready"), WITHIN, |workload| {
            let settled = condition(workload, "Ready").is_some_and(|ready| ready.status == "True");
            let status = workload.status.as_ref();
            settled && status.is_some_and(|status| status.ready_replicas == count && status.replicas == count)
        })
        .await
        .map(|_| ())
    }

    async fn only_pod(&self) -> Result<Pod> {
        only_pod(&self.client, NAMESPACE, BURNER).await
    }

    async fn cgroups(&self, level: Level) -> Result<Vec<String>> {
        let mut cgroups = Vec::new();
        for pod in staying_pods(&self.client, NAMESPACE, BURNER).await? {
            cgroups.push(match level {
                Level::Pod => self.cluster.node.cgroup_of_pod(&pod).await?,
                Level::Container => self.cluster.node.cgroup_of(&pod, "main").await?,
            });
        }
        Ok(cgroups)
    }
}

/// Which cgroup of a replica: that of the pod has what the runtime uses, too.
enum Level {
    Pod,
    Container,
}
