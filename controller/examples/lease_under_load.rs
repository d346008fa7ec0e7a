//! A lease beside threads that compute: how close it comes to being lost.
//!
//! `cargo run -p catamaran-controller --example lease_under_load -- THREADS SECONDS`

#[allow(dead_code)]
#[path = "../tests/lease/api.rs"]
mod api;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use catamaran_controller::lease::{Election, LeaderLease};

const DURATION: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let threads = arguments.next().context("how many threads")??;
    let time = Duration::from_secs(arguments.next().context("for how many seconds")??);
    let api = api::Api::start()?;
    let mut lease = LeaderLease::start(Election {
        config: api.way()?.config()?,
        namespace: "default".to_owned(),
        name: "lease".to_owned(),
        identity: "a".to_owned(),
        duration: DURATION,
        annotation: "example.test/lifeline".to_owned(),
        lifeline: None,
    })?;
    lease.acquired().await?;
    let (tenure, begun) = (lease.tenure(), Instant::now());
    for _ in 0..threads {
        thread::spawn(move || while begun.elapsed() < time {});
    }
    let (mut least, mut gaps) = (DURATION, 0);
    while begun.elapsed() < time {
        let left = tenure.left().unwrap_or_default();
        gaps += usize::from(left.is_zero());
        least = least.min(left);
        thread::sleep(Duration::from_millis(5));
    }
    println!("{threads} threads, {time:?}: the longest time without a renewal was {:?}", DURATION * 2 / 3 - least);
    ensure!(gaps == 0, "it was lost");
    Ok(())
}
