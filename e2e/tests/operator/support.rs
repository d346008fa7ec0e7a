//! What the tests share: a ground with the product on it.

use std::time::Duration;

use anyhow::{Context, Result};
use catamaran_e2e::{
    audit::Write,
    control_plane::ControlPlane,
    history::{History, Recorder},
    installation::{Installation, Operator, SYSTEM, operator_user},
    kubevirt::{self, Knobs, StandIn},
    workloads,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// Where tests put their workloads.
pub(crate) const NAMESPACE: &str = "shop";

/// A control plane with nodes, the installed chart and one operator.
pub(crate) struct Ground {
    pub(crate) client: Client,
    pub(crate) operator: Operator,
    pub(crate) installation: Installation,
    /// KubeVirt's stand-in, where a test has virtual machines.
    pub(crate) kubevirt: Option<StandIn>,
    /// Dropped last: everything else runs on it.
    pub(crate) control_plane: ControlPlane,
}

impl Ground {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(json!({})).await
    }

    pub(crate) async fn start_with(values: Value) -> Result<Self> {
        let control_plane =
            ControlPlane::builder().kwok_nodes(4).eviction_after(Duration::from_secs(5)).start().await?;
        control_plane.create_namespace(NAMESPACE).await?;
        let installation = Installation::install(&control_plane, values).await?;
        let operator = installation.start(&control_plane, "operator-a").await?;
        Ok(Self { client: control_plane.client(), operator, installation, kubevirt: None, control_plane })
    }

    /// The same with KubeVirt's stand-in.
    pub(crate) async fn with_kubevirt(knobs: Knobs) -> Result<Self> {
        let mut ground = Self::start().await?;
        ground.start_kubevirt(knobs).await?;
        Ok(ground)
    }

    pub(crate) async fn start_kubevirt(&mut self, knobs: Knobs) -> Result<()> {
        let client = kubevirt::client(&self.control_plane).await?;
        let mut stand_in = StandIn::start(client, knobs).await?;
        stand_in.serve(&self.control_plane).await?;
        self.kubevirt = Some(stand_in);
        Ok(())
    }

    pub(crate) async fn record(&self, workload: &str) -> Result<Recorder> {
        Recorder::start(&self.client, NAMESPACE, workload, self.kubevirt.is_some()).await
    }

    pub(crate) async fn apply(&self, yaml: &str) -> Result<()> {
        workloads::apply(&self.client, NAMESPACE, yaml).await
    }

    /// Nothing is written by the operator any more, its lease aside.
    pub(crate) async fn quiet(&self) -> Result<()> {
        let mut outcome = Ok(());
        for _ in 0..3 {
            let from = Timestamp::now() + Duration::from_secs(1);
            let to = from + Duration::from_secs(3);
            outcome = self.quiet_between(from, to).await;
            if outcome.is_ok() {
                break;
            }
            // What Kubernetes' own controllers make of the last change may take them a while on a busy machine
            // (EndpointSlices); the operator is quiet from the first second.
            let not_ours = |write: &Write| write.user != operator_user() || is_lease(write);
            self.control_plane.audit().assert_quiet(from, to, not_ours).await?;
        }
        outcome
    }

    pub(crate) async fn quiet_between(&self, from: Timestamp, to: Timestamp) -> Result<()> {
        self.control_plane.audit().assert_quiet(from, to, is_lease).await
    }

    /// Kills the operator at a moment before `latest`, and starts another one in its place.
    pub(crate) async fn kill_operator(&mut self, latest: Duration, random: &mut StdRng, successor: &str) -> Result<()> {
        tokio::time::sleep(latest.mul_f64(random.random())).await;
        self.operator.kill()?;
        self.operator = self.installation.start(&self.control_plane, successor).await?;
        Ok(())
    }

    /// Another operator in the place of one that was killed. Its lease is deleted: nobody is left to hold it.
    pub(crate) async fn replaced(&self) -> Result<Operator> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM);
        leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        self.installation.replace(&self.control_plane, "successor", &self.operator).await
    }

    /// Ends a test: bounds were kept, and all is quiet.
    pub(crate) async fn finish(&self, recorder: &Recorder) -> Result<History> {
        let history = recorder.history();
        history.check_bounds()?;
        self.quiet().await?;
        Ok(history)
    }
}

/// Whether the operator keeps its lease by it.
fn is_lease(write: &Write) -> bool {
    write.resource == "leases" && write.namespace == SYSTEM && write.user == operator_user()
}

/// Random numbers for faults. The seed is printed; `CATAMARAN_SEED` repeats a run.
pub(crate) fn random() -> Result<StdRng> {
    let seed: u64 = match std::env::var("CATAMARAN_SEED") {
        Ok(seed) => seed.parse().context("CATAMARAN_SEED is a number")?,
        Err(_) => rand::random(),
    };
    println!("CATAMARAN_SEED={seed}");
    Ok(StdRng::seed_from_u64(seed))
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
    web(image, replicas, rollout)
        .replace("  container:", "  virtualMachine:")
        .replace("    ports: [{name: http, containerPort: 80}]\n", "")
}
