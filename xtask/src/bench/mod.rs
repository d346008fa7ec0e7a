//! `cargo xtask bench`: how the product compares with what one would use without it, side by side on the same control
//! plane.
//!
//! Everything is built with optimisation, this program too: it is the peer of one benchmark.

mod agent;
mod crash_loop;
mod elastic;
mod peer;
mod reaction;
mod reconcile;
mod report;
mod rollout;
mod scale;
mod settle;
mod shares;

use std::{
    env,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::Command,
};

use anyhow::{Context, Result};
use catamaran_e2e::tools::{Tool, Tools};
use clap::{Args, ValueEnum};
use tokio::task::spawn_blocking;

use crate::{cargo::build_release, setup};
use report::Shown;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which benchmarks; all when none is named
    #[arg(value_enum)]
    names: Vec<Name>,
    /// Which rows of `scale`; all when none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<scale::Row>,
    /// One JSON object a line in place of tables
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// An image update of 6 replicas, against a Deployment
    Rollout,
    /// 1,000 workloads from nothing, against a client that only writes the same objects
    Reconcile,
    /// Virtual machines that die at once, against a plain VirtualMachineInstanceReplicaSet
    CrashLoop,
    /// From a step of the load to the write of the count, against the HPA with metrics-server
    Reaction,
    /// From the start of a load in a container of a real node to the write of the count, operator and agent running
    /// there
    Elastic,
    /// What containers of a real node have of what limits and weights promise, as parts of it: on a quiet machine all
    /// is near 1
    Shares,
    /// The agent with 200 pods' cgroups on a real node, against a plain loop that reads the same files, beside the
    /// kubelet's cAdvisor
    Agent,
    /// 1,000 to 10,000 workloads whose usage arrives every second, against 1,000 of them scaled up; one of 20,000
    /// replicas; 10,000 of 10
    Scale,
}

/// Runs benchmarks. Results go to standard output, progress to standard error.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    if cfg!(debug_assertions) {
        return spawn_blocking(again_with_optimisation).await?;
    }
    let names = if arguments.names.is_empty() { Name::value_variants() } else { &arguments.names };
    let json = arguments.json;
    for name in names {
        let text = match name {
            Name::Rollout => shown(&rollout::run().await.context("rollout")?, json)?,
            Name::Reconcile => shown(&reconcile::run().await.context("reconcile")?, json)?,
            Name::CrashLoop => shown(&crash_loop::run().await.context("crash-loop")?, json)?,
            Name::Reaction => shown(&reaction::run().await.context("reaction")?, json)?,
            Name::Elastic => shown(&elastic::run().await.context("elastic")?, json)?,
            Name::Shares => shown(&shares::run().await.context("shares")?, json)?,
            Name::Agent => shown(&agent::run().await.context("agent")?, json)?,
            Name::Scale => shown(&scale::run(&arguments.rows).await.context("scale")?, json)?,
        };
        writeln!(io::stdout(), "{text}")?;
    }
    Ok(())
}

/// A result, for people or for programs.
fn shown<T: Shown>(outcome: &T, json: bool) -> Result<String> {
    Ok(if json { serde_json::to_string(outcome)? } else { outcome.table() })
}

/// Becomes the optimised build of this program, with the same arguments.
fn again_with_optimisation() -> Result<()> {
    setup::prepare()?;
    Tools::prepare(&Tool::GROUND)?;
    Tools::prepare(&[Tool::MetricsServer])?;
    // The guest itself is prepared by the benchmark that boots it.
    setup::prepare_for_nodes()?;
    eprintln!("building with optimisation ...");
    let program = build_release()?;
    // Returns only when it fails.
    Err(Command::new(program).args(env::args_os().skip(1)).exec()).context("cannot run the optimised build")
}
