//! `kubectl catamaran decide`: reads cases of the conformance format for HPA v2 from standard input and prints what the
//! operator would decide. Each case is one decision for one workload at one frozen moment.

mod case;
mod outcome;

use std::{
    io::{self, BufRead, BufWriter, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use catamaran_autoscale::decide;
use clap::Args;

use case::Case;
use outcome::Outcome;

/// Standard input has one case a line; standard output gets one result a line, in the same order. A line that cannot be
/// read gets a message on standard error, and the exit code is then 1.
#[derive(Args)]
pub struct Arguments {
    /// Print each decision in words instead of as JSON
    #[arg(long)]
    explain: bool,
}

/// Decides every case.
///
/// # Errors
/// When input or output fails. Lines that cannot be read only change the exit code.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut input = io::stdin().lock();
    let mut output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let (mut line, mut number, mut code) = (Vec::new(), 0_u64, ExitCode::SUCCESS);
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line).context("standard input cannot be read")? == 0 {
            break;
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match answer(&line, arguments) {
            Ok(answer) => writeln!(output, "{answer}").context("standard output cannot be written")?,
            Err(error) => {
                eprintln!("error: line {number}: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    output.flush().context("standard output cannot be written")?;
    Ok(code)
}

fn answer(line: &[u8], arguments: &Arguments) -> Result<String> {
    let case: Case = serde_json::from_slice(line).context("not a case")?;
    let situation = case.situation()?;
    let pods: Vec<_> = situation.pods.iter().collect();
    let decision = decide(&situation.policy, &situation.observed(&pods), &situation.history, situation.now);
    if arguments.explain {
        return Ok(format!("{}: {decision}", case.name));
    }
    Ok(serde_json::to_string(&Outcome::new(&case, &decision))?)
}
