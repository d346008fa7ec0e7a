//! What the tests share: a ground with an operator or two, each behind a proxy of its own.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    audit::{Mark, Write},
    control_plane::ControlPlane,
    faults::Proxy,
    history::Recorder,
    installation::{self, Installation, Operator, SYSTEM, operator_user},
    kubevirt::{Knobs, StandIn},
    wait::eventually,
    workloads::{self, wait_for},
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

/// Where what is disturbed runs.
pub(crate) const SHOP: &str = "shop";
/// The namespace of another tenant, who is to notice nothing.
pub(crate) const OTHER: &str = "other";
/// How long a rollout of a few pods may take on a busy machine.
pub(crate) const ROLLOUT: Duration = Duration::from_secs(60);

/// How long a fault lasts: the short time in CI, the long one by `CATAMARAN_LONG`.
pub(crate) fn lasting(short: u64, long: u64) -> Duration {
    Duration::from_secs(if is_long() { long } else { short })
}

/// Whether the long forms are to run.
pub(crate) fn is_long() -> bool {
    std::env::var_os("CATAMARAN_LONG").is_some()
}

/// A control plane with nodes, the installed chart and two namespaces.
pub(crate) struct Ground {
    pub(crate) client: Client,
    pub(crate) installation: Installation,
    /// KubeVirt's stand-in, where a test has virtual machines.
    pub(crate) kubevirt: Option<StandIn>,
    /// Dropped last: everything else runs on it.
    pub(crate) control_plane: ControlPlane,
}

/// One operator and its way to the API server.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) operator: Operator,
    pub(crate) proxy: Proxy,
}

impl Ground {
    pub(crate) async fn start(values: Value) -> Result<Self> {
        Self::on(ControlPlane::builder().kwok_nodes(4).start().await?, values).await
    }

    pub(crate) async fn on(control_plane: ControlPlane, values: Value) -> Result<Self> {
        for namespace in [SHOP, OTHER] {
            control_plane.create_namespace(namespace).await?;
        }
        let installation = Installation::install(&control_plane, values).await?;
        Ok(Self { client: control_plane.client(), installation, kubevirt: None, control_plane })
    }

    pub(crate) async fn start_kubevirt(&mut self) -> Result<()> {
        self.kubevirt = Some(StandIn::run(&self.control_plane, Knobs::default()).await?);
        Ok(())
    }

    /// An operator behind a proxy, when it is ready.
    pub(crate) async fn join(&mut self, name: &str) -> Result<Member> {
        let proxy = Proxy::start(&self.control_plane).await?;
        self.join_by(name, proxy).await
    }

    /// The same behind a proxy that has rules already.
    pub(crate) async fn join_by(&mut self, name: &str, proxy: Proxy) -> Result<Member> {
        self.installation.by_way_of(&proxy.url())?;
        let operator = self.installation.start(&self.control_plane, name).await?;
        Ok(Member { name: name.to_owned(), operator, proxy })
    }

    /// An operator that leads.
    pub(crate) async fn lead(&mut self, name: &str) -> Result<Member> {
        let member = self.join(name).await?;
        self.leads(name, Duration::from_secs(30)).await?;
        Ok(member)
    }

    /// Waits until an operator holds the lease, and says how long that took.
    pub(crate) async fn leads(&self, name: &str, within: Duration) -> Result<Duration> {
        let begun = Instant::now();
        eventually(&format!("{name} leads"), within, || async {
            Ok(self.holder().await?.filter(|holder| holder.starts_with(name)).map(|_| ()))
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Who holds the lease.
    pub(crate) async fn holder(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), SYSTEM);
        let lease = leases.list(&Default::default()).await?.items.into_iter().next();
        Ok(lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity))
    }

    pub(crate) async fn record(&self, namespace: &str, workload: &str) -> Result<Recorder> {
        Recorder::start(&self.client, namespace, workload, self.kubevirt.is_some()).await
    }

    pub(crate) async fn apply(&self, namespace: &str, yaml: &str) -> Result<()> {
        workloads::apply(&self.client, namespace, yaml).await
    }

    /// Applies a workload and waits until it is current, and says how long that took.
    pub(crate) async fn rolled(&self, namespace: &str, yaml: &str, within: Duration) -> Result<Duration> {
        let begun = Instant::now();
        self.apply(namespace, yaml).await?;
        self.current(namespace, name_in(yaml)?, within).await?;
        Ok(begun.elapsed())
    }

    /// Waits until Ready is True for the present spec.
    pub(crate) async fn current(&self, namespace: &str, name: &str, within: Duration) -> Result<ElasticWorkload> {
        wait_for(&self.client, namespace, name, "is current", within, |workload| {
            workloads::condition(workload, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await
    }

    /// The uids of a workload's pods that stay.
    pub(crate) async fn uids(&self, namespace: &str, workload: &str) -> Result<BTreeSet<String>> {
        let pods = workloads::staying_pods(&self.client, namespace, workload).await?;
        Ok(pods.iter().filter_map(ResourceExt::uid).collect())
    }

    /// What an operator wrote with effect since a mark, its lease aside.
    pub(crate) fn writes_of(&self, name: &str, since: Mark) -> Result<Vec<Write>> {
        let mut writes = self.control_plane.audit().writes_since(since)?;
        writes.retain(|write| {
            write.user == operator_user()
                && write.user_agent.contains(name)
                && write.took_effect()
                && write.resource != "leases"
        });
        Ok(writes)
    }

    /// Nothing is written by operators any more, the lease aside.
    pub(crate) async fn quiet(&self) -> Result<()> {
        let mut outcome = Ok(());
        // A pause between two tries may still be running.
        for _ in 0..5 {
            let from = Timestamp::now() + Duration::from_secs(1);
            let others = |write: &Write| write.user != operator_user() || write.resource == "leases";
            outcome = self.control_plane.audit().assert_quiet(from, from + Duration::from_secs(3), others).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

impl Member {
    /// It runs, and has all the time.
    pub(crate) fn runs(&mut self) -> Result<()> {
        let ended = self.operator.process().exited()?;
        let log = self.operator.process().log_tail(20);
        ensure!(ended.is_none(), "{} ended: {ended:?}\n{log}", self.name);
        Ok(())
    }

    /// Watches /healthz from now on.
    pub(crate) fn health(&self) -> Health {
        Health::watch(self.operator.address().to_owned())
    }
}

/// What /healthz says, asked each half second.
pub(crate) struct Health(AbortOnDropHandle<Result<()>>);

impl Health {
    fn watch(address: String) -> Self {
        Self(AbortOnDropHandle::new(tokio::spawn(async move {
            let begun = Instant::now();
            loop {
                let (code, text) = installation::get(&address, "/healthz").await?;
                ensure!(code == 200, "/healthz is {code} after {:?}: {text}", begun.elapsed());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })))
    }

    /// It was well all the time.
    pub(crate) async fn was_well(self) -> Result<()> {
        if self.0.is_finished() {
            self.0.await??;
        }
        Ok(())
    }
}

/// The name in a manifest of [`web`].
fn name_in(yaml: &str) -> Result<&str> {
    let (_, rest) = yaml.split_once("metadata: {name: ").context("a name")?;
    Ok(rest.split_once(['}', ',']).context("the end of the name")?.0)
}

/// `web` with an image of this version.
pub(crate) fn web(version: u32, replicas: u32) -> String {
    workloads::web(&format!("registry.test/web:{version}"), replicas, "")
}
