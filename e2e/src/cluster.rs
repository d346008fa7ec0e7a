//! The product in a cluster: a control plane with one real node and its own DNS, on which the chart runs operator and
//! agent as pods. Nothing of the product runs outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::Pod,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::Value;

use crate::{
    control_plane::ControlPlane,
    installation::{RELEASE, SYSTEM, binary, chart},
    node::{
        Node, NodeOptions,
        product::{Program, for_tests},
    },
    wait::eventually,
};

/// How long the pods of one rollout may take; alone they take 20 s, on a busy machine without KVM much longer.
const WITHIN: Duration = Duration::from_secs(240);

/// A cluster whose node has the product's images.
pub struct Cluster {
    /// Its node.
    pub node: Node,
    /// Dropped last: the node belongs to it.
    pub control_plane: ControlPlane,
}

/// The pods of the product, when they have settled.
#[derive(Debug)]
pub struct Settled {
    /// All pods of the operator.
    pub operators: Vec<Pod>,
    /// The name of the one that leads, by the lease and by its own word.
    pub leader: String,
    /// The agent of the node.
    pub agent: Pod,
}

impl Cluster {
    /// Starts it: control plane, node, DNS, and the images with the binaries that were built last.
    ///
    /// # Errors
    /// When this host cannot run a guest, something was not built, or the node does not get ready.
    pub async fn start() -> Result<Self> {
        let cluster = Self::boot().await?;
        cluster.provide().await?;
        Ok(cluster)
    }

    /// The first half of that: control plane and node.
    ///
    /// # Errors
    /// When this host cannot run a guest, or the node does not get ready.
    pub async fn boot() -> Result<Self> {
        let control_plane = ControlPlane::builder().start().await?;
        let node = Node::boot(&control_plane, NodeOptions { dns: true, ..NodeOptions::default() }).await?;
        Ok(Self { node, control_plane })
    }

    /// The second half: DNS, and the images.
    ///
    /// # Errors
    /// When something was not built, or the DNS does not get ready.
    pub async fn provide(&self) -> Result<()> {
        let import = async |program: Program| {
            let image = for_tests(program, &binary(program.name())?)?;
            self.node.import(&image.archive()?).await
        };
        tokio::try_join!(Node::serve_names(&self.control_plane), import(Program::Operator), import(Program::Agent))?;
        Ok(())
    }

    /// `helm install` of the chart.
    ///
    /// # Errors
    /// What Helm says.
    pub async fn install(&self, values: &Value) -> Result<String> {
        self.control_plane.helm()?.install(RELEASE, &chart(), SYSTEM, values).await
    }

    /// Waits until pods of the newest templates alone are there and ready, one operator leads, and the agent streams to
    /// each of them.
    ///
    /// # Errors
    /// When that takes too long; the message tells the state of the pods and the ends of their logs.
    pub async fn settled(&self, operators: usize) -> Result<Settled> {
        let outcome = eventually("the product has settled", WITHIN, || async {
            let settled = self.look().await?;
            let found = settled.operators.len();
            ensure!(found == operators, "{found} operators");
            Ok(Some(settled))
        })
        .await;
        match outcome {
            Ok(settled) => Ok(settled),
            Err(error) => Err(error.context(self.diagnosis().await.unwrap_or_else(|error| format!("{error:#}")))),
        }
    }

    /// The product's pods, if they have settled.
    async fn look(&self) -> Result<Settled> {
        let client = self.control_plane.client();
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM);
        let deployment = deployments.get(RELEASE).await?;
        let status = deployment.status.context("the Deployment has a status")?;
        ensure!(status.observed_generation == deployment.metadata.generation, "the Deployment is not seen yet");
        let wanted = deployment.spec.and_then(|spec| spec.replicas);
        ensure!(
            status.updated_replicas == wanted && status.ready_replicas == wanted && status.replicas == wanted,
            "the Deployment is under way: {status:?}"
        );
        let daemon_sets: Api<DaemonSet> = Api::namespaced(client, SYSTEM);
        let set = daemon_sets.get(&format!("{RELEASE}-agent")).await?;
        let status = set.status.context("the DaemonSet has a status")?;
        ensure!(status.observed_generation == set.metadata.generation, "the DaemonSet is not seen yet");
        ensure!(
            status.updated_number_scheduled == Some(1) && status.number_ready == 1,
            "the DaemonSet is under way: {status:?}"
        );
        let operators = self.pods("operator").await?;
        let [agent] =
            <[Pod; 1]>::try_from(self.pods("agent").await?).map_err(|pods| anyhow::anyhow!("{} agents", pods.len()))?;
        ensure!(wanted == Some(i32::try_from(operators.len())?), "old operators are still there");
        let mut leaders = Vec::new();
        for pod in &operators {
            let metrics = self.metrics(pod, 8080).await?;
            ensure!(metric(&metrics, "catamaran_usage_streams") == Some(1.0), "no agent streams to {}", pod.name_any());
            if metric(&metrics, "catamaran_leader") == Some(1.0) {
                leaders.push(pod.name_any());
            }
        }
        ensure!(leaders.len() == 1, "leaders: {leaders:?}");
        let leader = leaders.remove(0);
        let metrics = self.metrics(&agent, 8081).await?;
        let connected = metric(&metrics, "catamaran_agent_connected_replicas");
        let all = f64::from(u32::try_from(operators.len())?);
        ensure!(connected == Some(all), "the agent is connected to {connected:?} operators");
        Ok(Settled { operators, leader, agent })
    }

    /// All pods of a component, also those on their way out.
    ///
    /// # Errors
    /// What the API server answers.
    pub async fn pods(&self, component: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.control_plane.client(), SYSTEM);
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        Ok(pods.list(&selector).await?.items)
    }

    /// What a pod serves at /metrics, asked for on the node.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, pod: &Pod, port: u16) -> Result<String> {
        self.node.metrics(pod, port).await
    }

    async fn diagnosis(&self) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.control_plane.client(), SYSTEM);
        let mut text = String::new();
        for pod in pods.list(&ListParams::default()).await? {
            text += &format!("{}: {}\n", pod.name_any(), serde_json::to_string(&pod.status)?);
        }
        let log = "for log in /var/log/pods/catamaran-system_*/*/*.log; do echo \"$log\"; tail -n 15 \"$log\"; done; tail -n 15 /var/log/kubelet.log";
        text += &self.node.shell(log).await?;
        Ok(text)
    }
}

/// The value of a metric without labels, or the first of those with.
#[must_use]
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    text.lines().find(named)?.rsplit(' ').next()?.parse().ok()
}
