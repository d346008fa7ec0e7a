//! Once nothing changes, nothing is written.

use std::time::Duration;

use anyhow::Result;
use catamaran_e2e::workloads::{web, workload};
use jiff::Timestamp;

use crate::support::Ground;

pub(crate) async fn from_10_to_40_seconds_after_the_last_change_only_the_lease_is_written() -> Result<()> {
    let ground = Ground::start().await?;
    ground.apply(&web("registry.test/web:1", 5, "")).await?;
    ground.apply(&workload("slow", "registry.test/web:1", 2, "minReadySeconds: 1")).await?;
    ground.apply(&workload("bad", "registry.test/web:broken", 2, "progressDeadlineSeconds: 3")).await?;
    let lost = workload("lost", "registry.test/web:1", 2, "").replace("spec:\n", "spec:\n  className: none\n");
    ground.apply(&lost).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web("registry.test/web:2", 4, "")).await?;
    for name in ["web", "slow"] {
        ground.wait_ready(name).await?;
    }
    ground.wait_stalled("bad", "ProgressDeadlineExceeded").await?;
    ground.wait_stalled("lost", "WorkloadClassNotFound").await?;
    let last_change = Timestamp::now();
    ground.quiet_between(last_change + Duration::from_secs(10), last_change + Duration::from_secs(40)).await
}
