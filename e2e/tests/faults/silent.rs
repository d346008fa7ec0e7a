//! Connections on which nothing moves any more, and that nobody closes; and an API server that is away.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use catamaran_e2e::faults::{Fault, Match, Rule};
use serde_json::json;

use crate::support::{Ground, OTHER, ROLLOUT, SHOP, lasting, web};

/// The lease's 15 s, and a request that hangs until its deadline.
const TAKEOVER: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_connections_fell_silent_takes_over() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let mut standby = ground.join("operator-b").await?;
    let recorder = ground.record(SHOP, "web").await?;
    ground.rolled(SHOP, &web(1, 3), ROLLOUT).await?;
    let silence = standby.proxy.set(Rule::new(Match::all(), Fault::SilenceOpen));
    ground.rolled(SHOP, &web(2, 3), ROLLOUT).await?;
    leader.operator.kill()?;
    let takeover = ground.leads("operator-b", TAKEOVER).await?;
    // It has missed the second image, and sees the third.
    let rolled = ground.rolled(SHOP, &web(3, 3), TAKEOVER).await?;
    println!("{} silent connections; leads after {takeover:?}, rolled out {rolled:?} later", silence.hits());
    ensure!(silence.hits() > 0);
    standby.runs()?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_watch_fell_silent_sees_again() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let recorder = ground.record(SHOP, "web").await?;
    ground.rolled(SHOP, &web(1, 3), ROLLOUT).await?;
    for (version, resource) in [(2, "pods"), (3, "elasticworkloads"), (4, "replicasets")] {
        let silence = leader.proxy.set(Rule::new(Match::watch(resource), Fault::SilenceOpen));
        ensure!(silence.hits() == 1, "{resource}: {} silent", silence.hits());
        let rolled = ground.rolled(SHOP, &web(version, 3), lasting(120, 120)).await?;
        println!("the watch of {resource} is silent: rolled out in {rolled:?}");
        leader.proxy.clear(&silence);
    }
    leader.runs()?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_replaced() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let leader = ground.lead("operator-a").await?;
    let _standby = ground.join("operator-b").await?;
    let recorder = ground.record(SHOP, "web").await?;
    ground.rolled(SHOP, &web(1, 3), ROLLOUT).await?;
    ground.apply(SHOP, &web(2, 3)).await?;
    leader.proxy.set(Rule::new(Match::all(), Fault::Silence));
    let takeover = ground.leads("operator-b", TAKEOVER).await?;
    let mark = ground.control_plane.audit().mark()?;
    ground.current(SHOP, "web", ROLLOUT).await?;
    ground.rolled(SHOP, &web(3, 3), ROLLOUT).await?;
    println!("cut off, replaced after {takeover:?}");
    recorder.finish(ground.quiet()).await?;
    let late = ground.writes_of("operator-a", mark)?;
    ensure!(late.is_empty(), "two writers: {late:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_api_server_that_was_away_everything_goes_on() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let mut standby = ground.join("operator-b").await?;
    let recorder = ground.record(SHOP, "web").await?;
    ground.rolled(SHOP, &web(1, 3), ROLLOUT).await?;
    ground.rolled(OTHER, &web(1, 2), ROLLOUT).await?;
    let before = (ground.uids(SHOP, "web").await?, ground.uids(OTHER, "web").await?);
    let mark = ground.control_plane.audit().mark()?;
    let away = lasting(60, 900);
    let rules = [&leader, &standby].map(|member| member.proxy.set(Rule::new(Match::all(), Fault::Reset)));
    // kubelet would start a leader that ended again, and its probe tells when one is stuck.
    let health = standby.health();
    tokio::time::sleep(away).await;
    standby.runs()?;
    health.was_well().await?;
    let ended = leader.operator.process().exited()?;
    for (member, rule) in [&leader, &standby].into_iter().zip(&rules) {
        member.proxy.clear(rule);
    }
    let back = Instant::now();
    ground.leads("operator-", TAKEOVER).await?;
    let rolled = ground.rolled(OTHER, &web(2, 2), TAKEOVER).await?;
    println!(
        "away for {away:?}: a rollout took {rolled:?}, {:?} after the end; leader ended: {ended:?}",
        back.elapsed()
    );
    let after = ground.uids(SHOP, "web").await?;
    ensure!(after == before.0, "pods of a workload that nobody changed: {before:?}, now {after:?}");
    ensure!(!before.1.is_empty());
    recorder.finish(ground.quiet()).await?;
    let touched: Vec<_> = ground.writes_of("operator-", mark)?;
    let touched: Vec<_> =
        touched.iter().filter(|write| write.namespace == SHOP && write.resource != "events").collect();
    ensure!(touched.is_empty(), "nothing was to be done: {touched:?}");
    Ok(())
}
