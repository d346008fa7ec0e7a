//! What the agent takes on a node with 200 pods, against a plain loop that reads the same files, and beside the
//! kubelet's cAdvisor.
//!
//! The loop is measured twice: with files that it keeps open, as the agent does, and opening each anew, as most
//! programs do. The ratio is against the first.
//!
//! The cgroups are made by hand in a real guest, in the kubelet's layout, each container with a process in it. The pods
//! are objects of a second node, which no kubelet serves: 200 real ones would not fit. The cgroups lie below the real
//! kubelet's `kubepods`, where its cAdvisor samples them, under a name that its removal of unknown pods passes over.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use catamaran_e2e::{
    cluster::metric,
    control_plane::ControlPlane,
    installation::{Installation, Operator, SYSTEM},
    node::{GATEWAY, Node, NodeOptions, product::Program},
    usage::tokens::Tokens,
    wait::eventually,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::report::{Figures, Outcome, median};
use crate::{cargo::build_static, image::triple};

const NAMESPACE: &str = "bench";
const PODS: usize = 200;
/// The node of the pods.
const NODE: &str = "bench";
/// The account of agents, by the chart.
const ACCOUNT: &str = "catamaran-agent";
/// The audience of their tokens, by the chart.
const AUDIENCE: &str = "catamaran-usage";
/// What is to the agent as a node's cgroup tree.
const ROOT: &str = "/sys/fs/cgroup/kubepods/bench";
/// The cgroup of the kubelet.
const KUBELET: &str = "/sys/fs/cgroup/system/kubelet";
/// The cgroup of what is measured.
const OWN: &str = "/sys/fs/cgroup/bench";
/// A file system of the guest.
const FOLDER: &str = "/data";
/// The program of the plain loop.
const LOOP: &str = "read-loop";
/// Files that are read each second: five of each container, four of each pod.
const FILES: usize = PODS * (5 + 4);
/// Each measures the agent and the loop, one after the other, so that a slow hour of the machine meets both.
const PAIRS: usize = 4;
/// For how long each is measured.
const MEASURED: Duration = Duration::from_secs(30);
/// From the start of a program to the begin of that.
const SETTLE: Duration = Duration::from_secs(5);
/// How often the kubelet is asked whether it has found the pods: an answer keeps it busy for seconds, and asked all the
/// time it would find nothing new.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long a step may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn run() -> Result<Outcome> {
    let programs = build_static("release", &triple()?, &[Program::Agent.name(), LOOP])?;
    let ground = Ground::start(&programs).await?;
    let alone = ground.measure().await?.kubelet;
    ground.make_cgroups().await?;
    let with_pods = ground.measure().await?.kubelet;
    let (scraped, every) = ground.scraped().await?;
    let (mut agents, mut loops, mut anew) = (Vec::new(), Vec::new(), Vec::new());
    // cAdvisor reads the same files, and without KVM it is at it all the time: who else reads would wait for its locks.
    ground.node.shell("kill -STOP $(pidof kubelet)").await?;
    for pair in 0..PAIRS {
        // Each goes first as often as the other.
        if pair % 2 == 0 {
            agents.push(ground.agent().await?);
            loops.push(ground.plain_loop(&agents, "").await?);
            anew.push(ground.plain_loop(&agents, "anew").await?);
        } else {
            anew.push(ground.plain_loop(&agents, "anew").await?);
            loops.push(ground.plain_loop(&agents, "").await?);
            agents.push(ground.agent().await?);
        }
        let (Some(agent), Some(plain), Some(anew)) = (agents.last(), loops.last(), anew.last()) else { continue };
        eprintln!(
            "agent: {:.2} % of a core, of which {:.2} outside of the kernel; the loop {:.2} %, of which {:.2}: {:.2} times; opening each file anew {:.2} %",
            agent.cores * 100.0,
            agent.user * 100.0,
            plain.cores * 100.0,
            plain.user * 100.0,
            agent.cores / plain.cores,
            anew.cores * 100.0
        );
    }
    ground.node.shell("kill -CONT $(pidof kubelet)").await?;
    let middle = |of: &[Run], figure: fn(&Run) -> f64| median(of.iter().map(figure));
    let ratios = agents.iter().zip(&loops).map(|(agent, plain)| plain.cores / agent.cores);
    let ratio = median(ratios);
    let times_anew = median(agents.iter().zip(&anew).map(|(agent, anew)| agent.cores / anew.cores));
    let files = f64::from(u32::try_from(FILES)?);
    Ok(Outcome {
        name: "agent",
        figures: Figures::from([
            ("corePercent", middle(&agents, |run| run.cores * 100.0)),
            ("residentMiB", middle(&agents, |run| run.mebibytes)),
            ("filesPerSecond", files),
            ("secondsBetweenSamples", 1.0),
            ("timesTheLoop", 1.0 / ratio),
            ("timesTheLoop, opening files anew", times_anew),
        ]),
        peer: "plain loop, or kubelet where named",
        peer_figures: Figures::from([
            ("corePercent", middle(&loops, |run| run.cores * 100.0)),
            ("corePercent, opening files anew", middle(&anew, |run| run.cores * 100.0)),
            ("residentMiB", middle(&loops, |run| run.mebibytes)),
            ("filesPerSecond", files),
            ("secondsBetweenSamples", 1.0),
            ("kubelet corePercent, without these pods", alone * 100.0),
            ("kubelet corePercent, with them", with_pods * 100.0),
            ("kubelet corePercent, asked each second", scraped * 100.0),
            ("kubelet residentMiB", ground.resident("$(pidof kubelet)").await?),
            ("kubelet secondsBetweenSamples", every),
        ]),
        ratio,
        ratio_of: "corePercent",
    })
}

/// What one program took.
struct Run {
    /// A share of one core.
    cores: f64,
    /// The part of it outside of the kernel.
    user: f64,
    mebibytes: f64,
    /// The files that it had open.
    files: Vec<String>,
}

/// Shares of one core.
struct Cores {
    own: f64,
    /// The part of it outside of the kernel.
    user: f64,
    kubelet: f64,
}

/// Seconds of CPU time so far.
struct Used {
    /// Seconds since the guest's start.
    at: f64,
    /// Of what is measured.
    own: f64,
    /// The part of it outside of the kernel.
    user: f64,
    kubelet: f64,
}

/// A guest with the pods' cgroups and the programs, and an operator that the agent streams to.
struct Ground {
    node: Node,
    /// By uid, the container's id.
    pods: Vec<(String, String)>,
    /// The address of the intake, as seen from the guest, and the name in its certificate.
    intake: (String, String),
    _operator: Operator,
    /// Dropped last: everything else runs on it.
    _control_plane: ControlPlane,
}

impl Ground {
    async fn start(programs: &Path) -> Result<Self> {
        let control_plane = ControlPlane::builder().start().await?;
        let client = control_plane.client();
        control_plane.create_namespace(NAMESPACE).await?;
        // The chart gives the agent its rights; its pods would run nowhere, as this one is started by hand.
        let nowhere = json!({"enabled": true, "nodeSelector": {"nowhere": "to-be-found"}});
        let installation =
            Installation::install(&control_plane, json!({"usage": {"enabled": true}, "agent": nowhere})).await?;
        let operator = installation.start(&control_plane, "operator").await?;
        let usage = operator.usage().context("the operator takes usage")?;
        let intake = (format!("{GATEWAY}:{}", usage.address.port()), usage.server_name.clone());
        let node = Node::boot(&control_plane, NodeOptions { memory: 2048, ..NodeOptions::default() }).await?;
        let pods = make_pods(&client).await?;
        let tokens = Tokens {
            client,
            namespace: SYSTEM.to_owned(),
            account: ACCOUNT.to_owned(),
            audience: AUDIENCE.to_owned(),
            folder: control_plane.dir().to_owned(),
        };
        tokens.issue(NODE).await?;
        let kubeconfig = control_plane.kubeconfig_for_service_account(SYSTEM, ACCOUNT).await?;
        let kubeconfig = std::fs::read_to_string(kubeconfig)?.replace("127.0.0.1", &GATEWAY.to_string());
        for (name, content) in [
            ("token", std::fs::read(tokens.file(NODE))?),
            ("ca.crt", std::fs::read(&usage.ca_file)?),
            ("kubeconfig", kubeconfig.into_bytes()),
            (Program::Agent.name(), std::fs::read(programs.join(Program::Agent.name()))?),
            (LOOP, std::fs::read(programs.join(LOOP))?),
        ] {
            let command = format!("cat > {FOLDER}/{name} && chmod 700 {FOLDER}/{name}");
            ensure!(node.run(&command, &content, WITHIN).await?.code == 0, "the guest takes no {name}");
        }
        node.shell(&format!("mkdir {OWN}")).await?;
        Ok(Self { node, pods, intake, _operator: operator, _control_plane: control_plane })
    }

    /// Makes the cgroups of all pods, each with a process that sleeps.
    async fn make_cgroups(&self) -> Result<()> {
        let mut list = String::new();
        for (uid, id) in &self.pods {
            writeln!(list, "{uid} {id}")?;
        }
        let script = format!(
            r#"set -e
            on() {{ mkdir -p "$1"; echo '+cpu +io +memory +pids' > "$1/cgroup.subtree_control"; }}
            for folder in {ROOT} {ROOT}/kubepods {ROOT}/kubepods/burstable; do on $folder; done
            while read -r uid id; do
                pod={ROOT}/kubepods/burstable/pod$uid
                on $pod
                mkdir $pod/$id
                sleep 1000000 < /dev/null > /dev/null 2>&1 &
                echo $! > $pod/$id/cgroup.procs
            done"#
        );
        let output = self.node.run(&script, list.as_bytes(), WITHIN).await?;
        ensure!(output.code == 0, "the cgroups cannot be made: {}", output.stderr);
        Ok(())
    }

    /// Runs the agent, once it has found all containers and streams.
    async fn agent(&self) -> Result<Run> {
        const LISTEN: (&str, u16) = ("127.0.0.1", 18081);
        let (address, port) = LISTEN;
        let (service, server_name) = &self.intake;
        let program = Program::Agent.name();
        let command = format!(
            "KUBECONFIG={FOLDER}/kubeconfig {FOLDER}/{program} --node={NODE} --cgroup-root={ROOT} --listen={address}:{port} \
             --usage-service={service} --usage-server-name={server_name} --usage-ca={FOLDER}/ca.crt --usage-token={FOLDER}/token"
        );
        let pid = self.spawn(program, &command, "").await?;
        let ready = eventually("the agent samples all pods and streams", WITHIN, || async {
            let text = self.node.get(address, port, "/metrics", WITHIN).await?;
            let is = |name: &str, value: usize| {
                let found = metric(&text, name);
                ensure!(found.is_some_and(|found| found as usize == value), "{name} is {found:?}");
                Ok(())
            };
            is("catamaran_agent_containers", PODS)?;
            is("catamaran_agent_connected_replicas", 1)?;
            Ok(Some(()))
        });
        if let Err(error) = ready.await {
            let log = self.node.shell(&format!("tail -n 20 {FOLDER}/{program}.log")).await.unwrap_or_default();
            return Err(error.context(log));
        }
        let mut run = self.watch(&pid).await?;
        // The costly memory.stat is read every ten seconds at most; folders are kept open to find what is in them.
        run.files
            .retain(|path| path.rsplit('/').next().is_some_and(|name| name != "memory.stat" && name.contains('.')));
        ensure!(run.files.len() == FILES, "the agent reads {} files and not {FILES}", run.files.len());
        Ok(run)
    }

    /// Runs the loop over the files that the agent had open, with an argument.
    async fn plain_loop(&self, agents: &[Run], argument: &str) -> Result<Run> {
        let files = &agents.first().context("the agent ran before")?.files;
        let pid = self.spawn(LOOP, &format!("{FOLDER}/{LOOP} {argument}"), &(files.join("\n") + "\n")).await?;
        let run = self.watch(&pid).await?;
        // One that opens files anew has none open between two readings.
        let kept = if argument.is_empty() { FILES } else { 0 };
        ensure!(run.files.len() == kept, "the loop has {} files open and not {kept}", run.files.len());
        Ok(run)
    }

    /// Starts a program in the cgroup for that; its process id.
    async fn spawn(&self, name: &str, command: &str, input: &str) -> Result<String> {
        // A shell's input is a file that goes with it, so the program gets its own.
        let script = format!(
            r#"cat > {FOLDER}/{name}.input
            sh -c 'ulimit -n 65536; echo $$ > {OWN}/cgroup.procs; exec env {command}' < {FOLDER}/{name}.input > {FOLDER}/{name}.log 2>&1 &
            echo $!"#
        );
        let output = self.node.run(&script, input.as_bytes(), WITHIN).await?;
        ensure!(output.code == 0, "{name} does not start: {}", output.stderr);
        Ok(output.stdout.trim().to_owned())
    }

    /// Measures a process, and ends it.
    async fn watch(&self, pid: &str) -> Result<Run> {
        sleep(SETTLE).await;
        let Cores { own: cores, user, kubelet: _ } = self.measure().await?;
        let mebibytes = self.resident(pid).await?;
        let open = self.node.shell(&format!("ls -l /proc/{pid}/fd")).await?;
        let files = open.lines().filter_map(|line| line.rsplit_once(" -> ")).map(|(_, path)| path.to_owned());
        let files = files.filter(|path| path.starts_with(ROOT)).collect();
        self.node.shell(&format!("kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done")).await?;
        Ok(Run { cores, user, mebibytes, files })
    }

    /// What is used from now on, by the guest's own clock.
    async fn measure(&self) -> Result<Cores> {
        let before = self.used().await?;
        sleep(MEASURED).await;
        let after = self.used().await?;
        let share = |of: fn(&Used) -> f64| (of(&after) - of(&before)) / (after.at - before.at);
        Ok(Cores { own: share(|used| used.own), user: share(|used| used.user), kubelet: share(|used| used.kubelet) })
    }

    async fn used(&self) -> Result<Used> {
        let text = self.node.shell(&format!("cat /proc/uptime {OWN}/cpu.stat {KUBELET}/cpu.stat")).await?;
        let at = text.split_whitespace().next().context("the uptime")?.parse()?;
        let all = |name: &str| -> Result<Vec<f64>> {
            let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            values.map(|microseconds| Ok(microseconds.parse::<f64>()? / 1e6)).collect()
        };
        let (usage, user) = (all("usage_usec")?, all("user_usec")?);
        let (&[own, kubelet], &[user, _]) = (usage.as_slice(), user.as_slice()) else { bail!("{text}") };
        Ok(Used { at, own, user, kubelet })
    }

    /// Resident memory of a process in MiB.
    async fn resident(&self, pid: &str) -> Result<f64> {
        // Counted now; VmRSS in status lags behind by some pages on each CPU.
        let line = self.node.shell(&format!("grep Rss: /proc/{pid}/smaps_rollup")).await?;
        let kibibytes: f64 = line.split_whitespace().nth(1).context("Rss has a value")?.parse()?;
        Ok(kibibytes / 1024.0)
    }

    /// What the kubelet takes while /metrics/cadvisor is asked for each second, and the seconds between two readings
    /// that it tells of one container.
    async fn scraped(&self) -> Result<(f64, f64)> {
        let (_, id) = self.pods.first().context("there are pods")?;
        eventually("cAdvisor has found the pods", WITHIN, || async {
            sleep(ASK_EVERY).await;
            let text = self.node.kubelet("/metrics/cadvisor").await?;
            let told = text.lines().filter(|line| line.starts_with("container_cpu_usage_seconds_total{")).count();
            Ok(Some(read_at(&text, id).with_context(|| format!("it tells of {told} containers, and not of {id}"))?))
        })
        .await?;
        let mut told = Vec::new();
        let mut ask = async || {
            let end = Instant::now() + MEASURED;
            let mut due = Instant::now();
            while due < end {
                let text = self.node.kubelet("/metrics/cadvisor").await?;
                told.push(read_at(&text, id).with_context(|| format!("cAdvisor tells nothing of {id}"))?);
                due = (due + Duration::from_secs(1)).max(Instant::now());
                sleep_until(due).await;
            }
            anyhow::Ok(())
        };
        let before = self.used().await?;
        ask().await?;
        let after = self.used().await?;
        told.dedup();
        let gaps = told.windows(2).filter_map(|two| Some((two.last()? - two.first()?) / 1000.0));
        Ok(((after.kubelet - before.kubelet) / (after.at - before.at), median(gaps)))
    }
}

/// When cAdvisor read the CPU time of a cgroup, in milliseconds since 1970.
fn read_at(text: &str, id: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("container_cpu_usage_seconds_total{") && line.contains(id))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Makes the node and its pods, as a kubelet would tell them: the uids of the pods and the ids of their containers.
async fn make_pods(client: &Client) -> Result<Vec<(String, String)>> {
    let nodes: Api<NodeObject> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": NODE}}))?).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pods = &pods;
    stream::iter(0..PODS)
        .map(|number| async move {
            let name = format!("pod-{number:03}");
            let resources =
                json!({"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "16Mi"}});
            let pod = json!({
                "metadata": {"name": name},
                "spec": {
                    "nodeName": NODE,
                    // Nobody tells that this node is ready.
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "main", "image": "none.test/none:1", "resources": resources}],
                },
            });
            let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
            let id = format!("{number:064x}");
            let status = json!({"status": {"phase": "Running", "containerStatuses": [{
                "name": "main", "containerID": format!("containerd://{id}"), "image": "none.test/none:1", "imageID": "",
                "ready": true, "restartCount": 0, "state": {"running": {}},
            }]}});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
            anyhow::Ok((pod.uid().context("a pod has a uid")?, id))
        })
        .buffered(8)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::read_at;

    #[test]
    fn cadvisor_says_when_it_read() {
        let text = "# TYPE container_cpu_usage_seconds_total counter\n\
            container_cpu_usage_seconds_total{container=\"\",id=\"/kubepods/bench/kubepods/burstable/pod1/0a\"} 0.01 1764016267123\n\
            container_cpu_usage_seconds_total{container=\"\",id=\"/kubepods/bench/kubepods/burstable/pod2/0b\"} 0.02 1764016268456\n";
        assert_eq!(read_at(text, "0b"), Some(1_764_016_268_456.0));
        assert_eq!(read_at(text, "0c"), None);
    }
}
