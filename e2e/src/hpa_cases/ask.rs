//! Asks a program that reads cases and prints results.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Outcome;
use crate::process;

/// Gives cases to a program and takes its results.
///
/// # Errors
/// When it cannot be run, fails, or does not answer each case in order.
pub fn ask(program: &Command, cases: &[Value]) -> Result<Vec<Outcome>> {
    let name = program.get_program().display().to_string();
    let mut command = process::bound(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process::spawn(command)?;
    let mut input = child.stdin.take().context("the input is a pipe")?;
    let output = thread::scope(|scope| {
        // Beside the reading, for neither pipe takes all of it. A program that ends early says why by itself.
        scope.spawn(move || cases.iter().try_for_each(|case| writeln!(input, "{case}")));
        child.wait_with_output()
    })?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}\n{errors}", output.status);

    let text = String::from_utf8(output.stdout).with_context(|| format!("the output of {name}"))?;
    let outcomes = text
        .lines()
        .map(|line| serde_json::from_str::<Outcome>(line).with_context(|| format!("{name} printed {line}")))
        .collect::<Result<Vec<_>>>()?;
    ensure!(outcomes.len() == cases.len(), "{name} answered {} of {} cases\n{errors}", outcomes.len(), cases.len());
    for (case, outcome) in cases.iter().zip(&outcomes) {
        ensure!(case["name"] == outcome.name, "{name} answered {} with {}", case["name"], outcome.name);
    }
    Ok(outcomes)
}
