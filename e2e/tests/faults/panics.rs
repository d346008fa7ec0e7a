//! A task that panics ends the process, which says whose fault it was; kubelet starts it again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::support::Ground;

/// Every task of the operator, as it is named in `operator/src`, and the thread of the lease.
const TASKS: [&str; 15] = [
    "look for pods/resize",
    "watch of ElasticWorkloads",
    "watch of WorkloadClasses",
    "watch of ReplicaSets",
    "watch of Services",
    "watch of Pods",
    "watches of KubeVirt's kinds",
    "health and metrics",
    "usage intake",
    "accounts",
    "findings of agents",
    "sources of metrics",
    "decisions on counts",
    "Events",
    "lease",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_task_ends_the_process_with_its_name() -> Result<()> {
    let values = json!({"usage": {"enabled": true, "certificateSecret": "usage-tls"}});
    let mut ground = Ground::start(values).await?;
    for (number, task) in TASKS.into_iter().enumerate() {
        ground.installation.set_environment(vec![("CATAMARAN_PLANT_PANIC".to_owned(), task.to_owned())]);
        let mut operator = ground.installation.spawn(&ground.control_plane, &format!("operator-{number}"))?;
        let ended = operator.process().wait(Duration::from_secs(30)).await.with_context(|| task.to_owned())?;
        let log = operator.process().log_tail(20);
        ensure!(!ended.success(), "{task}: {ended}");
        let last = log.lines().last().unwrap_or_default();
        ensure!(last.contains("the operator ends") && last.contains(task), "{task}:\n{log}");
    }
    Ok(())
}
