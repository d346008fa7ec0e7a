//! A control plane with one real node, and the product on it.

use std::time::Duration;

use anyhow::{Context, Result};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    control_plane::ControlPlane,
    installation::{Installation, Operator, SYSTEM},
    kubevirt::{self, Knobs, StandIn},
    node::{Node, NodeOptions},
    wait::eventually,
    workloads::{self, condition},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use crate::agent;

/// Where tests put what they make.
pub(crate) const NAMESPACE: &str = "shop";
/// How long a pod may take; alone it takes 5 s, on a busy machine without KVM much longer.
pub(crate) const POD_WITHIN: Duration = Duration::from_secs(180);

pub(crate) struct Ground {
    pub(crate) node: Node,
    /// The one that leads.
    pub(crate) operator: Mutex<Operator>,
    /// Its folder has the certificate of the intake.
    pub(crate) installation: Installation,
    pub(crate) client: Client,
    /// Started by the test that needs it, and kept: its part of the API would be one that does not answer.
    kubevirt: OnceCell<StandIn>,
    /// Dropped last: everything else runs on it.
    pub(crate) control_plane: ControlPlane,
}

impl Ground {
    pub(crate) async fn start() -> Result<Self> {
        let control_plane = ControlPlane::builder().start().await?;
        control_plane.create_namespace(NAMESPACE).await?;
        let node = Node::boot(&control_plane, NodeOptions::default()).await?;
        println!("the node was Ready {:.1} s after the start of QEMU", node.took().as_secs_f64());
        agent::import(&node).await?;
        let values = json!({"usage": {"enabled": true}, "agent": {"enabled": true}});
        let installation = Installation::install(&control_plane, values).await?;
        let operator = installation.start(&control_plane, "operator").await?;
        let client = control_plane.client();
        let (operator, kubevirt) = (Mutex::new(operator), OnceCell::new());
        let ground = Self { node, operator, installation, client, kubevirt, control_plane };
        agent::ready(&ground).await?;
        Ok(ground)
    }

    /// Starts KubeVirt's stand-in, and makes the node one for its launcher pods.
    pub(crate) async fn start_kubevirt(&self) -> Result<()> {
        let start = || async {
            kubevirt::make_schedulable(&self.client, &self.node).await?;
            StandIn::run(&self.control_plane, Knobs::default()).await
        };
        self.kubevirt.get_or_try_init(start).await.map(|_| ())
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The agent of the node. That of a second node that is gone stays in the API until the pod garbage collector
    /// comes.
    pub(crate) async fn agent(&self) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM);
        let here = ListParams::default()
            .labels("app.kubernetes.io/component=agent")
            .fields(&format!("spec.nodeName={}", self.node.name()));
        pods.list(&here).await?.items.pop().context("an agent runs")
    }

    /// Makes a pod with one container, `main`, and waits until it runs.
    pub(crate) async fn run(&self, name: &str, container: Value) -> Result<Pod> {
        self.create(name, container).await?;
        self.wait_for(name, "runs", running).await
    }

    /// Makes a pod with one container, `main`, that is not started again.
    pub(crate) async fn create(&self, name: &str, mut container: Value) -> Result<()> {
        container["name"] = json!("main");
        container["imagePullPolicy"] = json!("Never");
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1},
        });
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    pub(crate) async fn wait_for(&self, name: &str, what: &str, done: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let (pods, done) = (self.pods(), &done);
        let pods = &pods;
        let outcome = eventually(&format!("the pod {name} {what}"), POD_WITHIN, || async move {
            Ok(Some(pods.get(name).await?).filter(|pod| done(pod)))
        })
        .await;
        match outcome {
            Ok(pod) => Ok(pod),
            Err(error) => {
                let pod = pods.get(name).await.map(|pod| pod.status).ok();
                let log = self.node.shell("tail -n 20 /var/log/kubelet.log").await.unwrap_or_default();
                Err(error.context(format!("{}\n{log}", serde_json::to_string_pretty(&pod)?)))
            }
        }
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Changes the spec of a workload by a merge patch.
    pub(crate) async fn set(&self, workload: &str, spec: Value) -> Result<()> {
        workloads::patch(&self.client, NAMESPACE, workload, &json!({"spec": spec})).await?;
        Ok(())
    }

    /// Waits until a workload is Ready for a reason: `Available` or `Frozen`.
    pub(crate) async fn ready(&self, workload: &str, reason: &str) -> Result<ElasticWorkload> {
        workloads::wait_for(&self.client, NAMESPACE, workload, "is ready", POD_WITHIN, |workload| {
            condition(workload, "Ready").is_some_and(|ready| ready.status == "True" && ready.reason == reason)
        })
        .await
    }

    /// The one pod of a workload.
    pub(crate) async fn pod_of(&self, workload: &str) -> Result<Pod> {
        workloads::only_pod(&self.client, NAMESPACE, workload).await
    }

    /// Kills what runs in the container `main` of a workload's pod, and gives the pod once the kubelet has started it
    /// again.
    pub(crate) async fn restart(&self, workload: &str) -> Result<Pod> {
        let before = self.pod_of(workload).await?;
        let cgroup = self.node.cgroup_of(&before, "main").await?;
        self.node.shell(&format!("kill -9 $(cat '{cgroup}/cgroup.procs')")).await?;
        let again = |pod: &Pod| running(pod) && workloads::restarts(pod) > workloads::restarts(&before);
        self.wait_for(&before.name_any(), "runs again", again).await
    }

    /// What a file in a cgroup of the node says.
    pub(crate) async fn read(&self, cgroup: &str, file: &str) -> Result<String> {
        Ok(self.node.shell(&format!("cat '{cgroup}/{file}'")).await?.trim().to_owned())
    }

    /// kubectl, as the user `admin`, in the namespace of the tests.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.control_plane.run_kubectl(NAMESPACE, arguments).await
    }
}

fn running(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}
