//! Once nothing changes, nothing is written.

use std::time::Duration;

use anyhow::Result;
use catamaran_e2e::workloads::{wait_ready, wait_stalled};
use jiff::Timestamp;

use crate::support::{Ground, NAMESPACE, web};

#[tokio::test(flavor = "multi_thread")]
async fn from_10_to_40_seconds_after_the_last_change_only_the_lease_is_written() -> Result<()> {
    let ground = Ground::start().await?;
    ground.apply(&web("registry.test/web:1", 5, "")).await?;
    ground.apply(&web("registry.test/web:1", 2, "minReadySeconds: 1").replace("{name: web}", "{name: slow}")).await?;
    ground
        .apply(&web("registry.test/web:broken", 2, "progressDeadlineSeconds: 3").replace("{name: web}", "{name: bad}"))
        .await?;
    ground
        .apply(
            &web("registry.test/web:1", 2, "")
                .replace("spec:\n", "spec:\n  className: none\n")
                .replace("{name: web}", "{name: lost}"),
        )
        .await?;
    wait_ready(&ground.client, NAMESPACE, "web").await?;
    ground.apply(&web("registry.test/web:2", 4, "")).await?;
    for name in ["web", "slow"] {
        wait_ready(&ground.client, NAMESPACE, name).await?;
    }
    wait_stalled(&ground.client, NAMESPACE, "bad", "ProgressDeadlineExceeded").await?;
    wait_stalled(&ground.client, NAMESPACE, "lost", "WorkloadClassNotFound").await?;
    let last_change = Timestamp::now();
    ground.quiet_between(last_change + Duration::from_secs(10), last_change + Duration::from_secs(40)).await
}
