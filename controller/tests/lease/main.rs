//! The lease over connections that hang, beside a process that computes, and between two processes.

mod api;
mod processes;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use api::{Api, Way};
use catamaran_controller::lease::{Election, Endpoint, LeaderLease};

/// The shortest lease there is.
const DURATION: Duration = Duration::from_secs(3);

fn candidate(way: &Way, identity: &str) -> Result<LeaderLease> {
    candidate_at(way.config()?, identity, DURATION, None)
}

fn candidate_at(
    config: kube::Config,
    identity: &str,
    duration: Duration,
    lifeline: Option<Endpoint>,
) -> Result<LeaderLease> {
    Ok(LeaderLease::start(Election {
        config,
        namespace: "default".to_owned(),
        name: "lease".to_owned(),
        identity: identity.to_owned(),
        duration,
        annotation: "example.test/lifeline".to_owned(),
        lifeline,
    })?)
}

async fn leads(lease: &mut LeaderLease, within: Duration) -> Result<()> {
    tokio::time::timeout(within, lease.acquired()).await??;
    Ok(())
}

#[tokio::test]
async fn a_renewal_that_hangs_leaves_time_for_another_on_a_new_connection() -> Result<()> {
    let api = Api::start()?;
    let way = api.way()?;
    let mut lease = candidate(&way, "a")?;
    leads(&mut lease, DURATION).await?;
    // The connection in use, and the first one after it.
    way.freeze(1);
    let lost = tokio::time::timeout(DURATION * 2, lease.lost()).await;
    ensure!(lost.is_err(), "{lost:?}");
    ensure!(lease.tenure().left().is_some());
    ensure!((api.holder().as_deref(), api.transitions()) == (Some("a"), Some(0)));
    Ok(())
}

#[tokio::test]
async fn a_leader_without_an_api_server_stops_before_a_standby_takes_over() -> Result<()> {
    let api = Api::start()?;
    let (way_of_a, way_of_b) = (api.way()?, api.way()?);
    let mut a = candidate(&way_of_a, "a")?;
    leads(&mut a, DURATION).await?;
    let mut b = candidate(&way_of_b, "b")?;
    way_of_a.freeze(usize::MAX);
    let tenure = a.tenure();
    tokio::time::timeout(DURATION, a.lost()).await?;
    ensure!(tenure.left().is_none(), "nothing is written after it");
    ensure!(api.holder().as_deref() == Some("a"), "well before another may take over");
    leads(&mut b, DURATION * 2).await?;
    ensure!((api.holder().as_deref(), api.transitions()) == (Some("b"), Some(1)));
    Ok(())
}

#[tokio::test]
async fn a_standby_whose_connection_hangs_says_so_and_takes_over() -> Result<()> {
    let api = Api::start()?;
    let (way_of_a, way_of_b) = (api.way()?, api.way()?);
    let mut a = candidate(&way_of_a, "a")?;
    leads(&mut a, DURATION).await?;
    let mut b = candidate(&way_of_b, "b")?;
    ensure!(tokio::time::timeout(DURATION, b.acquired()).await.is_err(), "a leads");
    way_of_b.freeze(usize::MAX);
    way_of_a.freeze(usize::MAX);
    tokio::time::sleep(DURATION).await;
    ensure!(b.contact().silent_for() > DURATION - Duration::from_secs(1), "{:?}", b.contact().silent_for());
    way_of_b.thaw();
    leads(&mut b, DURATION * 2).await?;
    ensure!(b.contact().silent_for() < DURATION);
    Ok(())
}

#[tokio::test]
async fn a_process_that_computes_keeps_its_lease() -> Result<()> {
    let api = Api::start()?;
    let (way_of_a, way_of_b) = (api.way()?, api.way()?);
    let mut a = candidate(&way_of_a, "a")?;
    leads(&mut a, DURATION).await?;
    let _b = candidate(&way_of_b, "b")?;
    // The only thread of this runtime: no task but the lease's moves.
    std::thread::sleep(DURATION * 2);
    ensure!(a.tenure().left().is_some());
    ensure!((api.holder().as_deref(), api.transitions()) == (Some("a"), Some(0)));
    Ok(())
}

#[tokio::test]
async fn a_lease_that_is_released_is_taken_at_once() -> Result<()> {
    let api = Api::start()?;
    let (way_of_a, way_of_b) = (api.way()?, api.way()?);
    let mut a = candidate(&way_of_a, "a")?;
    leads(&mut a, DURATION).await?;
    let mut b = candidate(&way_of_b, "b")?;
    let tenure = a.tenure();
    let released = Instant::now();
    a.release().await;
    ensure!(tenure.left().is_none());
    leads(&mut b, DURATION).await?;
    ensure!(released.elapsed() < DURATION, "{:?}", released.elapsed());
    Ok(())
}
