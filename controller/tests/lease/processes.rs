//! The lease between processes that are killed or stopped.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use catamaran_controller::lease::{Endpoint, LeaderLease};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    DURATION,
    api::{Api, Way, proxy},
    candidate_at, leads,
};

/// The variable that makes a process of the test below: the URL of the API server, and the seconds of the lease.
const LEADER: &str = "CATAMARAN_TEST_LEADER";
/// Its name, in the form of the product's.
const A: &str = "a_1_1";
const B: &str = "b_2_2";

/// The other process, not a test: it takes the lease and keeps it until it is killed.
#[test]
fn another_process_leads() -> Result<()> {
    let Ok(leader) = std::env::var(LEADER) else { return Ok(()) };
    let (url, seconds) = leader.split_once(' ').context("a URL and seconds")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let duration = Duration::from_secs(seconds.parse()?);
        let mut lease = candidate_at(kube::Config::new(url.parse()?), A, duration, lifeline())?;
        lease.acquired().await?;
        anyhow::bail!("{}", lease.lost().await)
    })
}

fn lifeline() -> Option<Endpoint> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Some(Endpoint { listen: any, advertised: any })
}

/// The other process. It ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    async fn leads(api: &Api, way: &Way, seconds: u64) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", "processes::another_process_leads"])
            .env(LEADER, format!("{} {seconds}", way.url()))
            .stdout(Stdio::null())
            .spawn()?;
        let other = Self(child);
        let begun = Instant::now();
        while api.holder().as_deref() != Some(A) {
            ensure!(begun.elapsed() < Duration::from_secs(20), "it does not lead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(other)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }
}

/// A standby that has had the time to find the leader.
async fn standby(way: &Way, seconds: u64) -> Result<LeaderLease> {
    let mut standby = candidate_at(way.config()?, B, Duration::from_secs(seconds), lifeline())?;
    let waited = tokio::time::timeout(Duration::from_secs(3), standby.acquired()).await;
    ensure!(waited.is_err(), "the other leads");
    Ok(standby)
}

#[tokio::test]
async fn a_leader_that_is_killed_is_replaced_in_under_three_seconds() -> Result<()> {
    let api = Api::start()?;
    let way = api.way()?;
    let mut other = Other::leads(&api, &way, 15).await?;
    let mut standby = standby(&way, 15).await?;
    let killed = Instant::now();
    other.0.kill()?;
    leads(&mut standby, Duration::from_secs(14)).await?;
    println!("leads {:?} after the kill", killed.elapsed());
    ensure!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    ensure!((api.holder().as_deref(), api.transitions()) == (Some(B), Some(1)));
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_stopped_is_not_taken_for_dead() -> Result<()> {
    let api = Api::start()?;
    let way = api.way()?;
    let other = Other::leads(&api, &way, 15).await?;
    let mut standby = standby(&way, 15).await?;
    other.signal(Signal::STOP)?;
    let waited = tokio::time::timeout(Duration::from_secs(8), standby.acquired()).await;
    ensure!(waited.is_err() && api.holder().as_deref() == Some(A), "the lease holds");
    leads(&mut standby, Duration::from_secs(12)).await?;
    other.signal(Signal::CONT)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!((api.holder().as_deref(), api.transitions()) == (Some(B), Some(1)), "it writes nothing when it wakes");
    Ok(())
}

#[tokio::test]
async fn a_leader_behind_a_proxy_that_dies_is_not_taken_for_dead() -> Result<()> {
    let api = Api::start()?;
    let way = api.way()?;
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let proxy = proxy(listen)?;
    let endpoint = Endpoint { listen, advertised: proxy.address };
    let mut leader = candidate_at(way.config()?, A, DURATION * 5, Some(endpoint))?;
    leads(&mut leader, DURATION).await?;
    let mut standby = standby(&way, 15).await?;
    ensure!(proxy.connections() == 1, "the standby has found it");
    // It cuts what stands, and its host refuses new connections.
    proxy.stop();
    let waited = tokio::time::timeout(DURATION * 2, standby.acquired()).await;
    ensure!(waited.is_err() && leader.tenure().left().is_some());
    ensure!((api.holder().as_deref(), api.transitions()) == (Some(A), Some(0)));
    Ok(())
}
