//! What the tests share: a ground with the product on it.

use std::time::Duration;

use anyhow::Result;
use catamaran_e2e::{
    control_plane::ControlPlane,
    history::{History, Recorder},
    installation::{Installation, Operator, SYSTEM, operator_user},
    workloads,
};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};

/// Where tests put their workloads.
pub(crate) const NAMESPACE: &str = "shop";

/// A control plane with nodes, the installed chart and one operator.
pub(crate) struct Ground {
    pub(crate) client: Client,
    pub(crate) operator: Operator,
    pub(crate) installation: Installation,
    /// Dropped last: everything else runs on it.
    pub(crate) control_plane: ControlPlane,
}

impl Ground {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(json!({})).await
    }

    pub(crate) async fn start_with(values: Value) -> Result<Self> {
        let control_plane = ControlPlane::builder().kwok_nodes(4).eviction_after(Duration::from_secs(5)).start().await?;
        control_plane.create_namespace(NAMESPACE).await?;
        let installation = Installation::install(&control_plane, values).await?;
        let operator = installation.start(&control_plane, "operator-a").await?;
        Ok(Self { client: control_plane.client(), operator, installation, control_plane })
    }

    pub(crate) async fn record(&self, workload: &str) -> Result<Recorder> {
        Recorder::start(&self.client, NAMESPACE, workload, false).await
    }

    pub(crate) async fn apply(&self, yaml: &str) -> Result<()> {
        workloads::apply(&self.client, NAMESPACE, yaml).await
    }

    /// Nothing is written by the operator any more, its lease aside.
    pub(crate) async fn quiet(&self) -> Result<()> {
        let from = Timestamp::now() + Duration::from_secs(1);
        self.quiet_between(from, from + Duration::from_secs(3)).await
    }

    pub(crate) async fn quiet_between(&self, from: Timestamp, to: Timestamp) -> Result<()> {
        let lease = |write: &catamaran_e2e::audit::Write| {
            write.resource == "leases" && write.namespace == SYSTEM && write.user == operator_user()
        };
        self.control_plane.audit().assert_quiet(from, to, lease).await
    }

    /// Ends a test: bounds were kept, and all is quiet.
    pub(crate) async fn finish(&self, recorder: &Recorder) -> Result<History> {
        let history = recorder.history();
        history.check_bounds()?;
        self.quiet().await?;
        Ok(history)
    }
}

/// A container workload `web`.
pub(crate) fn web(image: &str, replicas: u32, rollout: &str) -> String {
    format!(
        "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {{name: web}}
spec:
  container:
    image: {image}
    ports: [{{name: http, containerPort: 80}}]
  quota: {{cpu: {{request: 50m, limit: 500m}}, memory: {{request: 32Mi, limit: 64Mi}}}}
  replicas: {replicas}
  rollout: {{{rollout}}}
  service: {{ports: [{{name: http, port: 80}}]}}
"
    )
}

/// The same workload as virtual machines.
pub(crate) fn web_machines(image: &str, replicas: u32, rollout: &str) -> String {
    web(image, replicas, rollout).replace("  container:", "  virtualMachine:").replace("    ports: [{name: http, containerPort: 80}]\n", "")
}
