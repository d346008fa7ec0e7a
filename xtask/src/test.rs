//! `cargo xtask test`: every test, from unit to end-to-end.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::Stdio,
    thread::available_parallelism,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use catamaran_e2e::{
    node,
    tools::{Tool, Tools},
};
use clap::Args;
use tokio::runtime::Handle;

use crate::{
    cargo::{FEATURES, build_programs, cargo},
    setup,
};

/// Memory for one end-to-end test: its control plane takes about 1 GiB.
const MEMORY_FOR_ONE: u64 = 3 << 29;

/// The package whose tests need a control plane.
const END_TO_END: &str = "catamaran-e2e";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Run the tests whose name contains this
    filter: Option<String>,
    /// Only of this package, such as catamaran-plan
    #[arg(long, short)]
    package: Option<String>,
    /// Only of this file of tests, such as `operator` for e2e/tests/operator
    #[arg(long)]
    test: Option<String>,
    /// Tests that have a long form run in it: more cases, more kills, longer faults. They see CATAMARAN_LONG=1
    #[arg(long)]
    long: bool,
}

/// Builds and runs the tests. To be called where a tokio runtime may be blocked. Their output is passed on as it comes.
///
/// Errors: a test fails, or none fits the filter.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let mut command = cargo()?;
    command.args(["test", "--no-fail-fast"]);
    match arguments.package.as_deref() {
        Some(package) => command.args(["--package", package]),
        None => command.arg("--workspace"),
    };
    if arguments.package.as_deref().is_none_or(|package| package == END_TO_END) {
        setup::prepare()?;
        Tools::prepare(&Tool::ALL)?;
        // Not within the first test that needs it: it takes minutes.
        setup::prepare_for_nodes()?;
        Handle::current().block_on(node::prepare())?;
        build_programs()?;
        command.args(["--features", FEATURES]);
    }
    if let Some(test) = &arguments.test {
        command.args(["--test", test]);
    }
    command.args(&arguments.filter);
    if arguments.long {
        command.env("CATAMARAN_LONG", "1");
    }
    if env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", threads()?.to_string());
    }
    let mut tests = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut summary = Summary::default();
    for line in BufReader::new(tests.stdout.take().context("the output is piped")?).lines() {
        let line = line?;
        summary.read(&line);
        println!("{line}");
    }
    let status = tests.wait()?;

    for name in &summary.failures {
        println!("failed: {name}");
    }
    let Summary { passed, failed, ignored, .. } = summary;
    println!("\n{passed} passed, {failed} failed, {ignored} ignored, in {} s", start.elapsed().as_secs());
    ensure!(status.success() && failed == 0, "the tests failed ({status})");
    if passed == 0 {
        bail!("no test fits");
    }
    Ok(())
}

/// End-to-end tests that a core can run at once: most of their time goes into waiting for what controllers do.
const FOR_EACH_CORE: u64 = 2;

/// How many tests run at once, as long as the memory lasts.
fn threads() -> Result<u64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available: u64 = available.context("the kernel tells MemAvailable")?.parse()?;
    let cores = u64::try_from(available_parallelism()?.get())?;
    Ok((cores * FOR_EACH_CORE).min(available * 1024 / MEMORY_FOR_ONE).max(1))
}

/// What the runners of all test programs say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
}

impl Summary {
    /// Reads one line of output: `test result: ok. 3 passed; 0 failed; 1 ignored; ...` or `test name ... FAILED`.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            // The first count comes after the verdict.
            let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
            for count in counts.split(';') {
                let mut words = count.split_whitespace();
                let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                    continue;
                };
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        } else if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            // A runner may set names in a column.
            self.failures.push(name.trim_end().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn sums_up_what_the_runners_say() {
        let mut summary = Summary::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test c   ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.30s",
            "test result: ok. 10 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 61.02s",
        ] {
            summary.read(line);
        }
        assert_eq!(summary, Summary { passed: 12, failed: 1, ignored: 2, failures: vec!["c".to_owned()] });
    }
}
