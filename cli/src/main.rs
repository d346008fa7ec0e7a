//! `kubectl catamaran`: the kubectl plugin. Each subcommand is a module of its own with `Arguments` and `run`.

mod decide;
mod simulate;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "kubectl catamaran", bin_name = "kubectl catamaran", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Decide cases of autoscaling, one JSON object a line, and print one result a line
    Decide(decide::Arguments),
    /// Play a workload through a trace of demand, and show counts, decisions and cost over time
    Simulate(Box<simulate::Arguments>),
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
        Command::Decide(arguments) => decide::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
    }
}
