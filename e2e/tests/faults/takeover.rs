//! Leaders that are killed or stopped: another leads, and two never write at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    audit::{Mark, Write},
    installation::operator_user,
};
use serde_json::json;

use crate::support::{Ground, ROLLOUT, SHOP, lasting, web};

/// Writes of operators with effect, the lease aside: those of one process end before those of the next begin.
fn one_after_another(writes: &[Write]) -> Result<usize> {
    let ours = |write: &&Write| write.user == operator_user() && write.took_effect() && write.resource != "leases";
    let mut writes: Vec<&Write> = writes.iter().filter(ours).collect();
    writes.sort_by_key(|write| write.time);
    let mut writers: Vec<&str> = Vec::new();
    for write in writes {
        if writers.last() == Some(&write.user_agent.as_str()) {
            continue;
        }
        ensure!(!writers.contains(&write.user_agent.as_str()), "it wrote after another had begun: {write}");
        writers.push(&write.user_agent);
    }
    Ok(writers.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_killed_leaders_are_replaced_before_their_lease_ends() -> Result<()> {
    const KILLS: usize = 30;
    let ground = Ground::start(json!({})).await?;
    let recorder = ground.record(SHOP, "web").await?;
    let mut leader = ground.installation.start(&ground.control_plane, "operator-00").await?;
    ground.leads("operator-00", Duration::from_secs(30)).await?;
    ground.rolled(SHOP, &web(1, 3), ROLLOUT).await?;
    let mut times = Vec::new();
    for kill in 1..=KILLS {
        let name = format!("operator-{kill:02}");
        let standby = ground.installation.start(&ground.control_plane, &name).await?;
        // In the middle of a rollout, so that there is something to write for both.
        ground.apply(SHOP, &web(u32::try_from(kill)? + 1, 3)).await?;
        tokio::time::sleep(Duration::from_millis(u64::try_from(kill)? * 37 % 900)).await;
        let killed = Instant::now();
        leader.kill()?;
        ground.leads(&name, Duration::from_secs(30)).await?;
        times.push(killed.elapsed());
        leader = standby;
    }
    ground.current(SHOP, "web", ROLLOUT).await?;
    times.sort();
    let (min, median, max) = (times[0], times[KILLS / 2], times.last().copied().context("a kill")?);
    println!("{KILLS} kills: a standby leads after {min:?}, {median:?}, {max:?} (min, median, max)");
    let writers = one_after_another(&ground.control_plane.audit().writes_since(Mark::START)?)?;
    ensure!(writers > KILLS / 2, "only {writers} wrote");
    // Renewed at most 2 s before the kill, a lease of 15 s holds for 13 s at least: nobody waited for it.
    ensure!(median < Duration::from_secs(10), "the standby waited for the lease: {times:?}");
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

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
    recorder.finish(ground.quiet()).await?;
    let late = ground.writes_of("operator-a", mark)?;
    ensure!(late.is_empty(), "two writers: {late:?}");
    let holder = ground.holder().await?;
    ensure!(holder.is_some_and(|holder| holder.starts_with("operator-b")));
    Ok(())
}
