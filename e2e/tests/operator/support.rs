//! What the tests share: a ground with the product on it.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    audit::Write,
    control_plane::ControlPlane,
    history::Recorder,
    installation::{Installation, Operator, SYSTEM, operator_user},
    kubevirt::{Knobs, StandIn},
    metrics_adapter::{CustomVersions, MetricsAdapter},
    usage::simulator::{Settings, UsageSimulator},
    workloads,
};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{coordination::v1::Lease, core::v1::Pod},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// The namespace of a test that has a control plane of its own.
pub(crate) const SHOP: &str = "shop";

/// What a test runs on: a namespace of its own, and a product that it may share with other tests.
pub(crate) struct Ground {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    product: Arc<Product>,
    shared: bool,
}

/// A control plane with nodes, the installed chart and one operator.
pub(crate) struct Product {
    pub(crate) operator: Operator,
    pub(crate) installation: Installation,
    /// KubeVirt's stand-in, where there are virtual machines.
    pub(crate) kubevirt: Option<StandIn>,
    /// Other sources of figures, where they are shared.
    sources: Option<Sources>,
    /// Dropped last: everything else runs on it.
    pub(crate) control_plane: ControlPlane,
}

/// Where figures come from.
struct Sources {
    usage: UsageSimulator,
    metrics: MetricsAdapter,
}

impl Deref for Ground {
    type Target = Product;

    fn deref(&self) -> &Product {
        &self.product
    }
}

impl Product {
    async fn start(values: Value, namespace: Option<&str>) -> Result<Self> {
        let control_plane =
            ControlPlane::builder().kwok_nodes(4).eviction_after(Duration::from_secs(5)).start().await?;
        // Before the chart, which may name it.
        if let Some(namespace) = namespace {
            control_plane.create_namespace(namespace).await?;
        }
        let installation = Installation::install(&control_plane, values).await?;
        let operator = installation.start(&control_plane, "operator-a").await?;
        Ok(Self { operator, installation, kubevirt: None, sources: None, control_plane })
    }

    /// One with everything that a test may ask for.
    pub(crate) async fn with_everything() -> Result<Self> {
        let mut product = Self::start(with_usage(), None).await?;
        let (kubevirt, metrics) = tokio::try_join!(
            StandIn::run(&product.control_plane, Knobs::default()),
            MetricsAdapter::start(&product.control_plane, CustomVersions::Both),
        )?;
        product.kubevirt = Some(kubevirt);
        product.sources = Some(Sources { usage: product.simulate()?, metrics });
        Ok(product)
    }

    /// Starts to report usage to the operator.
    pub(crate) fn simulate(&self) -> Result<UsageSimulator> {
        let usage = self.operator.usage().context("the operator takes usage")?;
        let settings = Settings::new(vec![usage.address], &usage.server_name, usage.ca_file.clone());
        UsageSimulator::start(self.control_plane.client(), settings)
    }

    /// The shared simulator of usage.
    pub(crate) fn usage(&self) -> Result<&UsageSimulator> {
        Ok(&self.sources.as_ref().context("it is not shared")?.usage)
    }

    /// The shared adapter for metrics.
    pub(crate) fn metrics(&self) -> Result<&MetricsAdapter> {
        Ok(&self.sources.as_ref().context("it is not shared")?.metrics)
    }
}

impl Ground {
    /// One for a single test, which may disturb it.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(json!({})).await
    }

    pub(crate) async fn start_with(values: Value) -> Result<Self> {
        let product = Product::start(values, Some(SHOP)).await?;
        Ok(Self::new(Arc::new(product), SHOP, false))
    }

    /// The same with KubeVirt's stand-in.
    pub(crate) async fn with_kubevirt(knobs: Knobs) -> Result<Self> {
        let mut ground = Self::start().await?;
        ground.start_kubevirt(knobs).await?;
        Ok(ground)
    }

    /// A namespace of its own on a product that others use as well.
    pub(crate) async fn beside_others(product: Arc<Product>, namespace: &str) -> Result<Self> {
        let ready = product.operator.probe("/readyz").await.context("the operator that tests share")?;
        ensure!(ready.0 == 200, "the operator that tests share is not ready: {}", ready.1);
        product.control_plane.create_namespace(namespace).await?;
        Ok(Self::new(product, namespace, true))
    }

    fn new(product: Arc<Product>, namespace: &str, shared: bool) -> Self {
        Self { client: product.control_plane.client(), namespace: namespace.to_owned(), product, shared }
    }

    /// The product, to be changed or disturbed.
    ///
    /// Errors: other tests use it as well.
    pub(crate) fn alone(&mut self) -> Result<&mut Product> {
        Arc::get_mut(&mut self.product).context("this test shares its ground")
    }

    pub(crate) async fn start_kubevirt(&mut self, knobs: Knobs) -> Result<()> {
        let product = self.alone()?;
        product.kubevirt = Some(StandIn::run(&product.control_plane, knobs).await?);
        Ok(())
    }

    /// Kills the operator.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.alone()?.operator.kill()
    }

    /// Kills the operator at a moment before `latest`, and starts another one in its place.
    pub(crate) async fn kill_operator(&mut self, latest: Duration, random: &mut StdRng, successor: &str) -> Result<()> {
        tokio::time::sleep(latest.mul_f64(random.random())).await;
        self.kill()?;
        let product = self.alone()?;
        product.operator = product.installation.start(&product.control_plane, successor).await?;
        Ok(())
    }

    /// Starts another operator in the place of one that was killed. Its lease is deleted: nobody is left to hold it.
    pub(crate) async fn replace_operator(&mut self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM);
        leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let product = self.alone()?;
        product.operator = product.installation.replace(&product.control_plane, "successor", &product.operator).await?;
        Ok(())
    }

    pub(crate) async fn record(&self, workload: &str) -> Result<Recorder> {
        Recorder::start(&self.client, &self.namespace, workload, self.kubevirt.is_some()).await
    }

    /// The objects of a kind in the test's namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn apply(&self, yaml: &str) -> Result<()> {
        workloads::apply(&self.client, &self.namespace, yaml).await
    }

    pub(crate) async fn patch(&self, workload: &str, patch: &Value) -> Result<ElasticWorkload> {
        workloads::patch(&self.client, &self.namespace, workload, patch).await
    }

    /// See [`workloads::wait_for`].
    pub(crate) async fn wait_for(
        &self,
        workload: &str,
        what: &str,
        within: Duration,
        done: impl Fn(&ElasticWorkload) -> bool,
    ) -> Result<ElasticWorkload> {
        workloads::wait_for(&self.client, &self.namespace, workload, what, within, done).await
    }

    pub(crate) async fn wait_ready(&self, workload: &str) -> Result<ElasticWorkload> {
        workloads::wait_ready(&self.client, &self.namespace, workload).await
    }

    pub(crate) async fn wait_stalled(&self, workload: &str, reason: &str) -> Result<ElasticWorkload> {
        workloads::wait_stalled(&self.client, &self.namespace, workload, reason).await
    }

    pub(crate) async fn staying_pods(&self, workload: &str) -> Result<Vec<Pod>> {
        workloads::staying_pods(&self.client, &self.namespace, workload).await
    }

    /// Nothing is written any more, in the test's namespace or anywhere if it has the ground for itself; the operator's
    /// lease aside.
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
            let not_ours = |write: &Write| write.user != operator_user() || self.allows(write);
            self.control_plane.audit().assert_quiet(from, to, not_ours).await?;
        }
        outcome
    }

    pub(crate) async fn quiet_between(&self, from: Timestamp, to: Timestamp) -> Result<()> {
        self.control_plane.audit().assert_quiet(from, to, |write| self.allows(write)).await
    }

    /// Whether a write is the operator's to its lease, or of another test.
    fn allows(&self, write: &Write) -> bool {
        let is_lease = write.resource == "leases" && write.namespace == SYSTEM && write.user == operator_user();
        is_lease || self.shared && write.namespace != self.namespace
    }
}

/// Values of the chart with the usage intake.
pub(crate) fn with_usage() -> Value {
    json!({"usage": {"enabled": true, "certificateSecret": "usage-tls"}})
}

/// Random numbers for faults. The seed is printed; `CATAMARAN_SEED` repeats a run.
pub(crate) fn random() -> Result<StdRng> {
    static SEED: OnceLock<u64> = OnceLock::new();
    let given = std::env::var("CATAMARAN_SEED").ok();
    let given: Option<u64> = given.map(|seed| seed.parse()).transpose().context("CATAMARAN_SEED is a number")?;
    let seed = *SEED.get_or_init(|| {
        let seed = given.unwrap_or_else(rand::random);
        println!("CATAMARAN_SEED={seed}");
        seed
    });
    Ok(StdRng::seed_from_u64(seed))
}

/// The workload `web` as virtual machines.
pub(crate) fn web_machines(image: &str, replicas: u32, rollout: &str) -> String {
    workloads::as_machines(&workloads::web(image, replicas, rollout))
}

/// A JSON object with fields changed and added, at any depth.
pub(crate) fn merged(mut base: Value, change: &Value) -> Value {
    if let (Some(fields), Some(changes)) = (base.as_object_mut(), change.as_object()) {
        for (name, value) in changes {
            let there = fields.remove(name);
            let both_are_maps = there.as_ref().is_some_and(Value::is_object) && value.is_object();
            let value = if both_are_maps { merged(there.unwrap_or_default(), value) } else { value.clone() };
            fields.insert(name.clone(), value);
        }
    }
    base
}
