//! `kubectl catamaran`: the kubectl plugin. Each subcommand is a module of its own with `Arguments` and `run`.

mod decide;

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
    }
}
