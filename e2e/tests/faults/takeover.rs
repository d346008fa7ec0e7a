//! Leaders that are stopped: another leads, and two never write at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::support::{Ground, ROLLOUT, SHOP, lasting, web};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_writes_nothing_when_it_wakes() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let _standby = ground.join("operator-b").await?;
    let recorder = ground.record(SHOP, "web").await?;
    ground.rolled(SHOP, &web(1, 4), ROLLOUT).await?;
    // It is stopped in mid-rollout, with more to write.
    ground.apply(SHOP, &web(2, 4)).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stopped = Instant::now();
    leader.operator.process().signal("STOP")?;
    let takeover = ground.leads("operator-b", Duration::from_secs(60)).await?;
    // What it had sent was received by then.
    let mark = ground.control_plane.audit().mark()?;
    ground.current(SHOP, "web", ROLLOUT).await?;
    // With something to be written by whoever believes to lead.
    ground.apply(SHOP, &web(3, 4)).await?;
    tokio::time::sleep(lasting(30, 60).saturating_sub(stopped.elapsed())).await;
    leader.operator.process().signal("CONT")?;
    ground.apply(SHOP, &web(4, 4)).await?;
    ground.current(SHOP, "web", ROLLOUT).await?;
    println!("stopped: a standby led after {takeover:?}");
    ground.finish(&recorder).await?;
    let late = ground.writes_of("operator-a", mark)?;
    ensure!(late.is_empty(), "two writers: {late:?}");
    let holder = ground.holder().await?;
    ensure!(holder.is_some_and(|holder| holder.starts_with("operator-b")));
    Ok(())
}
