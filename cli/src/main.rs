//! `kubectl catamaran`: the kubectl plugin. Each subcommand is a module of its own with `Arguments` and `run`.

mod bill;
mod completions;
mod connection;
mod decide;
mod explain;
mod operator;
mod output;
mod restart;
mod simulate;
mod status;
mod top;

use std::{future::Future, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "kubectl catamaran", bin_name = "kubectl catamaran", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show workloads as a tree: revisions, replicas, nodes
    Status(status::Arguments),
    /// Tell what the operator is about to write for a workload, and its last decision of scaling, with all reasons
    Explain(explain::Arguments),
    /// Replace every replica by a new one, by a rollout
    Restart(restart::Arguments),
    /// Show what workloads use now: CPU, memory, pressure, throttling
    Top(top::Arguments),
    /// Charge workloads for what they used, or for what they had reserved: as a table, CSV, JSON or FOCUS
    Bill(Box<bill::Arguments>),
    /// Decide cases of autoscaling, one JSON object a line, and print one result a line
    Decide(decide::Arguments),
    /// Play a workload through a trace of demand, and show counts, decisions and cost over time
    Simulate(Box<simulate::Arguments>),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::Arguments),
    /// Complete a command line, as kubectl asks its plugins to
    #[command(name = "__complete", hide = true)]
    Complete(completions::Words),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Status(arguments) => wait_for(status::run(&arguments)),
        Command::Explain(arguments) => wait_for(explain::run(&arguments)),
        Command::Restart(arguments) => wait_for(restart::run(&arguments)),
        Command::Top(arguments) => wait_for(top::run(&arguments)),
        Command::Bill(arguments) => wait_for(bill::run(&arguments)),
        Command::Decide(arguments) => decide::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Complete(words) => completions::complete(&words),
    }
}

/// Runs what asks a server. One thread is enough for one question after the other.
fn wait_for(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the asynchronous runtime cannot start")?.block_on(work)
}
