//! From a step of the load to the write of the replica set: by the usage that agents push, against the
//! HorizontalPodAutoscaler by metrics-server. Both see the same demand on the same nodes, with the same bounds and
//! policies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use catamaran_e2e::{
    control_plane::ControlPlane,
    counts::Counts,
    installation::Installation,
    nodes::USAGE_CPU,
    usage::{
        simulator::{Settings, UsageSimulator},
        world::Load,
    },
    workloads::{apply, pod_is_ready},
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::report::{Outcome, distribution, sorted};

const NAMESPACE: &str = "reaction";
/// So many pairs run beside each other, each with phases of its own.
const PAIRS: u32 = 5;
/// Steps of each pair.
const STEPS: u32 = 4;
/// The count before a step, and in cores the demand that keeps it and the one of a step: 50m are asked for a replica,
/// so the step asks for six.
const RESTING: i32 = 2;
const LOW: f64 = 0.08;
const HIGH: f64 = 0.3;
/// The shortest and the longest time between two steps: at least until averages hold the resting load alone, and then
/// one whole interval of the HPA and of metrics-server, so that the step meets any phase of theirs.
const PAUSE: (f64, f64) = (20.0, 35.0);
/// How long either may take.
const WITHIN: Duration = Duration::from_secs(180);
/// How often the peer's pods are given their share of the demand.
const FEED_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run() -> Result<Outcome> {
    let seed: u64 = rand::random();
    eprintln!("reaction: the seed of the phases is {seed}");
    let control_plane = ControlPlane::builder().kwok_nodes(4).metrics_server(true).start().await?;
    let client = control_plane.client();
    control_plane.create_namespace(NAMESPACE).await?;
    let values = json!({"usage": {"enabled": true, "certificateSecret": "usage-tls"}});
    let installation = Installation::install(&control_plane, values).await?;
    let operator = installation.start(&control_plane, "operator").await?;
    let usage = operator.usage().context("the operator takes usage")?;
    let settings = Settings::new(vec![usage.address], &usage.server_name, usage.ca_file.clone());
    let simulator = UsageSimulator::start(client.clone(), settings)?;
    let names = (1..=PAIRS).flat_map(|number| [format!("ours-{number}"), format!("peer-{number}")]);
    let counts = Counts::watch(&client, NAMESPACE, names);
    let pairs = (1..=PAIRS).map(|number| {
        pair(&client, &simulator, &counts, number, StdRng::seed_from_u64(seed.wrapping_add(u64::from(number))))
    });
    let measured: Vec<Step> = try_join_all(pairs).await?.into_iter().flatten().collect();
    let ours: Vec<f64> = measured.iter().map(|step| step.ours).collect();
    let theirs: Vec<f64> = measured.iter().map(|step| step.theirs).collect();
    eprintln!("reaction: catamaran {:.2?}", sorted(&ours));
    eprintln!("reaction: HPA       {:.2?}", sorted(&theirs));
    let (figures, peer_figures) = (distribution(&ours), distribution(&theirs));
    Ok(Outcome {
        name: "reaction",
        ratio: peer_figures["medianSeconds"] / figures["medianSeconds"],
        ratio_of: "medianSeconds",
        figures,
        peer: "HPA with metrics-server",
        peer_figures,
    })
}

/// Seconds from one step of the load to the writes.
struct Step {
    ours: f64,
    theirs: f64,
}

/// A workload and a Deployment with an HPA, and all steps of their load.
async fn pair(
    client: &Client,
    simulator: &UsageSimulator,
    counts: &Counts,
    number: u32,
    mut random: StdRng,
) -> Result<Vec<Step>> {
    let (ours, theirs) = (format!("ours-{number}"), format!("peer-{number}"));
    let demand = |cores: f64| {
        simulator.load(NAMESPACE, &ours, Load { base_cores: 0.0, ..Load::cores(cores) });
        cores
    };
    let feed = Feed::start(client, &theirs, demand(LOW));
    apply(client, NAMESPACE, &manifests(&ours, &theirs)).await?;
    let mut steps = Vec::new();
    while steps.len() < STEPS as usize {
        // Both rest, and go on resting over the pause; that one moved by itself would look like the fastest of
        // reactions.
        timeout(WITHIN, async { tokio::try_join!(counts.is(&ours, RESTING), counts.is(&theirs, RESTING)) })
            .await
            .with_context(|| format!("pair {number} does not come to rest"))??;
        sleep(Duration::from_secs_f64(random.random_range(PAUSE.0..PAUSE.1))).await;
        if counts.replicas(&ours)? != RESTING || counts.replicas(&theirs)? != RESTING {
            eprintln!("reaction: pair {number} moved without a step");
            continue;
        }
        let start = Instant::now();
        feed.demand.send_replace(demand(HIGH));
        let both = async { tokio::try_join!(counts.rises(&ours, RESTING), counts.rises(&theirs, RESTING)) };
        let (first, second) =
            timeout(WITHIN, both).await.with_context(|| format!("pair {number} does not react"))??;
        let step = Step {
            ours: first.duration_since(start).as_secs_f64(),
            theirs: second.duration_since(start).as_secs_f64(),
        };
        eprintln!("reaction, pair {number}: catamaran {:.2} s, HPA {:.2} s", step.ours, step.theirs);
        steps.push(step);
        feed.demand.send_replace(demand(LOW));
    }
    Ok(steps)
}

/// Gives the pods of a Deployment their shares of a demand, as KWOK's kubelet reports them to metrics-server.
struct Feed {
    demand: watch::Sender<f64>,
    task: AbortHandle,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feed {
    fn start(client: &Client, app: &str, demand: f64) -> Self {
        let (sender, receiver) = watch::channel(demand);
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let selector = ListParams::default().labels(&format!("app={app}"));
        let task = tokio::spawn(async move {
            loop {
                let cores = *receiver.borrow();
                // What fails now is made good the next time.
                if let Err(error) = share(&pods, &selector, cores).await {
                    eprintln!("reaction: {error:#}");
                }
                sleep(FEED_EVERY).await;
            }
        });
        Self { demand: sender, task: task.abort_handle() }
    }
}

async fn share(pods: &Api<Pod>, selector: &ListParams, cores: f64) -> Result<()> {
    let all = pods.list(selector).await?.items;
    let ready: Vec<bool> = all.iter().map(pod_is_ready).collect();
    let count = ready.iter().filter(|ready| **ready).count();
    for (pod, ready) in all.iter().zip(&ready) {
        #[allow(clippy::cast_precision_loss)]
        let share = if *ready { cores / count as f64 } else { 0.0 };
        let wanted = format!("{:.0}m", share * 1000.0);
        if pod.annotations().get(USAGE_CPU) != Some(&wanted) && pod.metadata.deletion_timestamp.is_none() {
            let patch = json!({"metadata": {"annotations": {USAGE_CPU: wanted}}});
            match pods.patch_metadata(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => bail!(error),
            }
        }
    }
    Ok(())
}

/// The same pods, bounds, target and policies on both sides.
fn manifests(ours: &str, theirs: &str) -> String {
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 100}}}]);
    // Up at once; back after the averages have turned over.
    let policies = json!([{"type": "Pods", "value": 100, "periodSeconds": 1}]);
    let behavior = json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "policies": policies},
        "scaleDown": {"stabilizationWindowSeconds": 5, "policies": policies},
    });
    let workload = json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload",
        "metadata": {"name": ours},
        "spec": {
            "container": {"image": "registry.test/web:1"},
            "quota": {"cpu": {"request": "50m"}},
            "scaling": {"minReplicas": RESTING, "maxReplicas": 10, "metrics": metrics, "behavior": behavior},
        },
    });
    let labels = json!({"app": theirs});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": theirs},
        "spec": {
            "replicas": RESTING,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {USAGE_CPU: "0m"}},
                "spec": {"containers": [{
                    "name": "main", "image": "registry.test/web:1", "resources": {"requests": {"cpu": "50m"}},
                }]},
            },
        },
    });
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": theirs},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": theirs},
            "minReplicas": RESTING, "maxReplicas": 10, "metrics": metrics, "behavior": behavior,
        },
    });
    [workload, deployment, autoscaler].map(|object| object.to_string()).join("\n---\n")
}
