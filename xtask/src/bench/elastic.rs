//! From the start of a load in a container on a real node to the write of the replica set. Agent and operators run as
//! pods of that node, as the chart installs them; the load is a thread of the container's program that computes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use catamaran_e2e::{
    cluster::Cluster,
    counts::Counts,
    node::LOAD,
    workloads::{self, apply},
};
use rand::RngExt;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::report::{Alone, distribution, sorted};

const NAMESPACE: &str = "elastic";
const WORKLOAD: &str = "burner";
const RUNS: usize = 10;
/// The count before a load.
const RESTING: i32 = 1;
/// The shortest and the longest time between two runs, in seconds: the load meets any phase of agent and operator.
const PAUSE: (f64, f64) = (3.0, 5.0);
/// How long a step may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(180);

/// There is no peer: a guest without KVM has no room for an HPA's sources beside. `reaction` compares with one.
pub(super) async fn run() -> Result<Alone> {
    let cluster = Cluster::start().await?;
    cluster.install(&json!({"usage": {"enabled": true}, "agent": {"enabled": true}})).await?;
    cluster.settled(2).await?;
    cluster.control_plane.create_namespace(NAMESPACE).await?;
    let client = cluster.control_plane.client();
    let counts = Counts::watch(&client, NAMESPACE, [WORKLOAD.to_owned()]);
    apply(&client, NAMESPACE, &manifest()).await?;
    let mut seconds = Vec::new();
    while seconds.len() < RUNS {
        timeout(WITHIN, counts.is(WORKLOAD, RESTING)).await.context("the workload does not come to rest")??;
        workloads::wait_for(&client, NAMESPACE, WORKLOAD, "is alone and ready", WITHIN, |workload| {
            workload
                .status
                .as_ref()
                .is_some_and(|status| status.ready_replicas == RESTING && status.replicas == RESTING)
        })
        .await?;
        let pod = workloads::only_pod(&client, NAMESPACE, WORKLOAD).await?;
        sleep(Duration::from_secs_f64(rand::rng().random_range(PAUSE.0..PAUSE.1))).await;
        if counts.replicas(WORKLOAD)? != RESTING {
            // The start of the last replica was load, too: without KVM it takes seconds of CPU time.
            eprintln!("elastic: moved without a load; waiting for rest again");
            continue;
        }
        // Before the program is asked to compute, so that the way into the guest counts as well.
        let start = Instant::now();
        cluster.node.burn(&pod).await?;
        let runs = start.elapsed();
        let raised = timeout(WITHIN, counts.rises(WORKLOAD, RESTING)).await.context("no reaction")??;
        cluster.node.end_burning(&pod).await?;
        let took = raised.duration_since(start).as_secs_f64();
        eprintln!("elastic: {took:.2} s, of which until it computed at most {:.2} s", runs.as_secs_f64());
        seconds.push(took);
    }
    eprintln!("elastic: {:.2?}", sorted(&seconds));
    Ok(Alone { name: "elastic", figures: distribution(&seconds) })
}

fn manifest() -> String {
    json!({
        "apiVersion": "catamaran.dev/v1alpha1",
        "kind": "ElasticWorkload",
        "metadata": {"name": WORKLOAD},
        "spec": {
            "container": {"image": LOAD, "args": ["serve"]},
            "quota": {"cpu": {"request": "100m", "limit": "500m"}, "memory": {"request": "16Mi", "limit": "64Mi"}},
            "scaling": {
                "minReplicas": RESTING, "maxReplicas": 2,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 100}}}],
                "behavior": {"scaleDown": {
                    "stabilizationWindowSeconds": 3,
                    "policies": [{"type": "Pods", "value": 10, "periodSeconds": 1}],
                }},
                "victims": "Newest",
            },
        },
    })
    .to_string()
}
