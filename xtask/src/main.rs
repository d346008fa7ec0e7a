//! The project's commands: `cargo xtask <command>`.

mod control_plane;
mod generate;

use std::path::Path;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the CustomResourceDefinitions and the API reference from the Rust types
    Crds {
        /// Only compare, and fail when something is out of date
        #[arg(long)]
        check: bool,
    },
    /// A control plane to play in
    #[command(subcommand)]
    ControlPlane(control_plane::Command),
}

/// The root of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Crds { check } => generate::run(check),
        Command::ControlPlane(command) => command.run().await,
    }
}
