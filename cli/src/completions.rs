//! `kubectl catamaran completions`: scripts for shells, by clap_complete.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

/// The name of the program, which the scripts complete.
const PROGRAM: &str = "kubectl-catamaran";

/// The script completes `kubectl-catamaran`. How `kubectl catamaran` itself completes is in docs/kubectl-plugin.md.
#[derive(Args)]
pub struct Arguments {
    /// The shell
    shell: SupportedShell,
}

/// A command line that is being typed.
#[derive(Args)]
pub struct Words {
    /// Its words after the name of the plugin; the last one is being completed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
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

/// Answers kubectl, which asks the executable `kubectl_complete-catamaran`: a candidate a line, then `:4`, for no
/// files.
///
/// # Errors
/// When standard output cannot be written.
pub fn complete(words: &Words) -> Result<ExitCode> {
    let candidates = candidates(&crate::Cli::command(), &words.words);
    let lines: String = candidates.iter().map(|candidate| format!("{candidate}\n")).collect();
    io::stdout().write_all(format!("{lines}:4\n").as_bytes()).context("standard output cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// Names of subcommands, then the flags of the chosen one, or the values that its argument may have.
fn candidates(cli: &Command, words: &[String]) -> Vec<String> {
    let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let chosen = before.iter().find_map(|word| cli.find_subcommand(word));
    let all: Vec<String> = match chosen {
        None => {
            let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
            shown.map(|command| command.get_name().to_owned()).collect()
        }
        Some(command) if last.starts_with('-') => {
            let names = command.get_arguments().filter_map(|argument| argument.get_long());
            names.map(|name| format!("--{name}")).collect()
        }
        Some(command) => {
            let values = command.get_positionals().flat_map(|argument| argument.get_possible_values());
            values.map(|value| value.get_name().to_owned()).collect()
        }
    };
    all.into_iter().filter(|candidate| candidate.starts_with(last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        candidates(&crate::Cli::command(), &words)
    }

    #[test]
    fn commands_flags_and_values_are_completed() {
        assert_eq!(completed("st"), ["status"]);
        assert!(completed("").contains(&"explain".to_owned()) && !completed("").contains(&"__complete".to_owned()));
        assert_eq!(completed("top -n shop --rep"), ["--replicas"]);
        assert_eq!(completed("completions "), ["bash", "zsh", "fish"]);
        assert!(completed("status w").is_empty());
        assert!(completed("nonsense --x").is_empty());
    }

    #[test]
    fn the_command_line_is_consistent() {
        crate::Cli::command().debug_assert();
    }
}
