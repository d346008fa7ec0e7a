//! An image update of 6 replicas, against a Deployment with the same pods on the same nodes.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, bail};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    audit::Write,
    control_plane::ControlPlane,
    installation::{Installation, operator_user},
    workloads::{apply, pod_is_ready},
};
use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    report::{Figures, Outcome, median},
    settle::settled,
};

const REPLICAS: usize = 6;
const ROUNDS: u32 = 7;
/// How long one rollout may take.
const WITHIN: Duration = Duration::from_secs(60);
const DEPLOYMENT_CONTROLLER: &str = "system:serviceaccount:kube-system:deployment-controller";
const REPLICA_SET_CONTROLLER: &str = "system:serviceaccount:kube-system:replicaset-controller";

/// Who rolls out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Catamaran,
    Deployment,
}

/// One rollout.
struct Measured {
    seconds: f64,
    writes: Vec<Write>,
}

pub(super) async fn run() -> Result<Outcome> {
    let control_plane = ControlPlane::builder().kwok_nodes(4).start().await?;
    let client = control_plane.client();
    let installation = Installation::install(&control_plane, json!({})).await?;
    let _operator = installation.start(&control_plane, "operator").await?;
    for side in [Side::Catamaran, Side::Deployment] {
        control_plane.create_namespace(side.namespace()).await?;
        apply(&client, side.namespace(), &serde_json::to_string(&side.object(&image(0)))?).await?;
    }
    for side in [Side::Catamaran, Side::Deployment] {
        let mut pods = Pods::watch(&client, side.namespace());
        timeout(WITHIN, pods.reached(&image(0))).await.context("the first replicas are not ready in time")??;
        settled(&control_plane.audit(), control_plane.audit().mark()?, |write| side.wrote(write)).await?;
    }

    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        // Who goes first changes, so that neither gains from it.
        let order =
            if round % 2 == 0 { [Side::Catamaran, Side::Deployment] } else { [Side::Deployment, Side::Catamaran] };
        for side in order {
            let measured = one(&control_plane, side, &image(round)).await?;
            eprintln!(
                "rollout {round} of {ROUNDS}, {}: {:.2} s, {} writes",
                side.name(),
                measured.seconds,
                measured.writes.len()
            );
            if side == Side::Catamaran { &mut ours } else { &mut peers }.push(measured);
        }
    }
    let (figures, peer_figures) = (figures(&ours, &operator_user()), figures(&peers, DEPLOYMENT_CONTROLLER));
    Ok(Outcome {
        name: "rollout",
        // Of each round for itself: a machine that is slower for a while slows both down.
        ratio: median(ours.iter().zip(&peers).map(|(ours, peer)| peer.seconds / ours.seconds)),
        ratio_of: "seconds",
        figures,
        peer: "Deployment",
        peer_figures,
    })
}

/// Changes the image and waits, first until the last pod is there, then until nothing is written any more.
async fn one(control_plane: &ControlPlane, side: Side, image: &str) -> Result<Measured> {
    let client = control_plane.client();
    let mut pods = Pods::watch(&client, side.namespace());
    pods.listed().await?;
    let mark = control_plane.audit().mark()?;
    let start = Instant::now();
    side.set_image(&client, image).await?;
    timeout(WITHIN, pods.reached(image)).await.context("the rollout is not through in time")??;
    let seconds = start.elapsed().as_secs_f64();
    let writes = settled(&control_plane.audit(), mark, |write| side.wrote(write)).await?;
    Ok(Measured { seconds, writes })
}

fn figures(measured: &[Measured], controller: &str) -> Figures {
    let middle = |count: &dyn Fn(&Write) -> bool| {
        median(measured.iter().map(|one| {
            let count = one.writes.iter().filter(|write| count(write)).count();
            f64::from(u32::try_from(count).unwrap_or(u32::MAX))
        }))
    };
    Figures::from([
        ("seconds", median(measured.iter().map(|one| one.seconds))),
        ("writes", middle(&|_| true)),
        ("writesOfItsController", middle(&|write| write.user == controller)),
        ("writesOfReplicaSetController", middle(&|write| write.user == REPLICA_SET_CONTROLLER)),
        ("writesThatAreEvents", middle(&|write| write.resource == "events")),
    ])
}

fn image(round: u32) -> String {
    format!("registry.test/web:{round}")
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": {"kwok.catamaran.dev/start-delay": "2s"}},
        "spec": {"containers": [{"name": "web", "image": image}]},
    })
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Catamaran => "catamaran",
            Self::Deployment => "Deployment",
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::Catamaran => "ours",
            Self::Deployment => "peer",
        }
    }

    /// The workload; both have the same bounds by default.
    fn object(self, image: &str) -> Value {
        match self {
            Self::Catamaran => json!({
                "apiVersion": "catamaran.dev/v1alpha1",
                "kind": "ElasticWorkload",
                "metadata": {"name": "web"},
                "spec": {"replicas": REPLICAS, "container": {"template": template(image)}},
            }),
            Self::Deployment => json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "web"},
                "spec": {
                    "replicas": REPLICAS,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": template(image),
                },
            }),
        }
    }

    async fn set_image(self, client: &Client, image: &str) -> Result<()> {
        let template = json!({"spec": {"containers": [{"name": "web", "image": image}]}});
        let (namespace, parameters) = (self.namespace(), PatchParams::default());
        match self {
            Self::Catamaran => {
                let patch = json!({"spec": {"container": {"template": template}}});
                let api: Api<ElasticWorkload> = Api::namespaced(client.clone(), namespace);
                api.patch("web", &parameters, &Patch::Merge(patch)).await?;
            }
            Self::Deployment => {
                let patch = json!({"spec": {"template": template}});
                let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
                api.patch("web", &parameters, &Patch::Merge(patch)).await?;
            }
        }
        Ok(())
    }

    /// Whether a write is part of its rollouts.
    fn wrote(self, write: &Write) -> bool {
        let controller = write.user == REPLICA_SET_CONTROLLER
            || write.user == DEPLOYMENT_CONTROLLER
            || write.user == operator_user();
        write.namespace == self.namespace() && controller
    }
}

/// The pods of a namespace, as a watch shows them: both sides are measured by what becomes of the pods.
struct Pods {
    events: futures::stream::BoxStream<'static, Result<Event<Pod>, kube::runtime::watcher::Error>>,
    pods: HashMap<String, Pod>,
}

impl Pods {
    fn watch(client: &Client, namespace: &str) -> Self {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        Self { events: watcher(api, Config::default()).default_backoff().boxed(), pods: HashMap::new() }
    }

    /// Waits for the first list.
    async fn listed(&mut self) -> Result<()> {
        while !matches!(self.next().await?, Event::InitDone) {}
        Ok(())
    }

    /// Waits until all replicas have an image and are ready, and no other one lives.
    async fn reached(&mut self, image: &str) -> Result<()> {
        loop {
            let live: Vec<&Pod> = self.pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
            if live.len() == REPLICAS && live.iter().all(|pod| serves(pod, image)) {
                return Ok(());
            }
            self.next().await?;
        }
    }

    async fn next(&mut self) -> Result<Event<Pod>> {
        let Some(event) = self.events.next().await else { bail!("the watch has ended") };
        let event = event?;
        match &event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                self.pods.insert(pod.name_any(), pod.clone());
            }
            Event::Delete(pod) => {
                self.pods.remove(&pod.name_any());
            }
            Event::Init => self.pods.clear(),
            Event::InitDone => {}
        }
        Ok(event)
    }
}

fn serves(pod: &Pod, image: &str) -> bool {
    let right = pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some(image));
    right && pod_is_ready(pod)
}
