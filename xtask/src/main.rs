//! The project's commands: `cargo xtask <command>`.

mod bench;
mod cargo;
mod control_plane;
mod demo;
mod generate;
mod image;
mod manifests;
mod setup;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::task::spawn_blocking;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See it work: both hulls, a rollout, a switch of hulls, a lost leader
    Demo(demo::Arguments),
    /// Run the tests, from unit to end-to-end: all, or a part
    Test(test::Arguments),
    /// Write the CustomResourceDefinitions and the API reference from the Rust types
    Crds {
        /// Only compare, and fail when something is out of date
        #[arg(long)]
        check: bool,
    },
    /// Measure it side by side with what one would use in its place
    Bench(bench::Arguments),
    /// Write the chart as plain manifests, with CustomResourceDefinitions and Namespace
    Manifests(manifests::Arguments),
    /// Build the images of operator and agent as OCI archives, without a container engine
    Image(image::Arguments),
    /// A control plane to play in
    #[command(subcommand)]
    ControlPlane(control_plane::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Crds { check } => generate::run(check),
        Command::Bench(arguments) => bench::run(arguments).await,
        Command::Demo(arguments) => demo::run(&arguments).await,
        Command::Test(arguments) => spawn_blocking(move || test::run(&arguments)).await?,
        Command::Manifests(arguments) => spawn_blocking(move || manifests::run(&arguments)).await?,
        Command::Image(arguments) => spawn_blocking(move || image::run(&arguments)).await?,
        Command::ControlPlane(command) => command.run().await,
    }
}
