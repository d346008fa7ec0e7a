//! `kubectl catamaran completions`: scripts for shells, by clap_complete.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

/// The name of the program, which the scripts complete.
const PROGRAM: &str = "kubectl-catamaran";

/// The script completes `kubectl-catamaran`. How `kubectl catamaran` itself completes is in docs/kubectl-plugin.md.
#[derive(Args)]
pub struct Arguments {
    /// The shell
    shell: SupportedShell,
}

/// The shells that there are scripts for.
#[derive(Clone, Copy, ValueEnum)]
enum SupportedShell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let shell = match arguments.shell {
        SupportedShell::Bash => Shell::Bash,
        SupportedShell::Zsh => Shell::Zsh,
        SupportedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut crate::Cli::command().name(PROGRAM).bin_name(PROGRAM), PROGRAM, &mut script);
    io::stdout().write_all(&script).context("standard output cannot be written")?;
    Ok(ExitCode::SUCCESS)
}
