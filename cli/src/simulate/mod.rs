//! `kubectl catamaran simulate`: plays a workload through a trace of demand, by the operator's own decisions. It does
//! not look at a cluster. The user's page is docs/simulate.md.

mod feed;
mod gauges;
mod output;
mod plant;
mod plot;
mod summary;
mod table;
mod trace;
mod workload;

use std::{
    fs,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use feed::feeds;
use plant::{Outcome, Timing, simulate};
use summary::{Prices, Summary};
use trace::Trace;

/// The most steps of a simulation: 46 days of seconds.
const MOST_STEPS: i64 = 4_000_000;

/// The same decisions as the operator's, on a simple model of replicas: they share the demand once they are ready, up
/// to their CPU limit. For the columns of a trace, the model and the output see docs/simulate.md.
#[derive(Args)]
pub struct Arguments {
    /// The manifest: one ElasticWorkload, and the WorkloadClass that it names; - is standard input
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    /// A second manifest, to be compared with the first
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// The trace, as CSV: time,demand and a column for each metric that demand does not tell; - is standard input
    #[arg(short, long, value_name = "FILE")]
    trace: PathBuf,
    /// The time that seconds in the trace count from
    #[arg(long, value_name = "DATE")]
    start: Option<Timestamp>,
    /// From one decision to the next, 1s to 1h [default: that of the trace, but 1s to 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    step: Option<SignedDuration>,
    /// From the creation of a replica until it is ready, up to 1h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    startup: SignedDuration,
    /// What a requested core costs for an hour
    #[arg(long, value_name = "PRICE", value_parser = price)]
    price_core_hour: Option<f64>,
    /// What a requested GiB of memory costs for an hour
    #[arg(long, value_name = "PRICE", value_parser = price)]
    price_gib_hour: Option<f64>,
    /// What the prices are in, for example EUR
    #[arg(long)]
    currency: Option<String>,
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Also draw a plot into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A summary, and the decisions that changed the count
    Table,
    /// A row for each step
    Csv,
    /// All of it
    Json,
}

/// A workload and what came of it.
struct Simulated {
    /// What it is called: its name, or its file where two have the same name.
    label: String,
    outcome: Outcome,
    /// What a replica asks for, in millicores.
    request: Option<i64>,
    summary: Summary,
    /// What has to be said about it.
    notes: Vec<String>,
}

/// Simulates, prints and draws.
///
/// # Errors
/// When the manifest or the trace cannot be used, or a file not be read or written.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let trace = read(&arguments.trace)?;
    let trace = Trace::read(&trace, arguments.start).with_context(|| arguments.trace.display().to_string())?;
    let step = arguments.step.map_or_else(
        || trace.finest().clamp(1000, 10_000) / 1000 * 1000,
        |step| i64::try_from(step.as_millis()).unwrap_or(i64::MAX),
    );
    ensure!((1000..=3_600_000).contains(&step), "--step has to be between 1s and 1h");
    let startup = i64::try_from(arguments.startup.as_millis()).unwrap_or(i64::MAX);
    ensure!((0..=3_600_000).contains(&startup), "--startup has to be between 0s and 1h");
    ensure!(
        trace.length() / step <= MOST_STEPS,
        "the trace has {} steps of {} s, and {MOST_STEPS} is the most; raise --step or shorten the trace",
        trace.length() / step,
        step / 1000
    );
    let timing = Timing { step, startup };
    let prices = Prices {
        core_hour: arguments.price_core_hour,
        gib_hour: arguments.price_gib_hour,
        currency: arguments.currency.clone(),
    };
    let files: Vec<&Path> =
        [Some(&arguments.filename), arguments.compare.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
    let mut simulated = Vec::with_capacity(files.len());
    let mut unused: Vec<&str> = trace.column_names().collect();
    for file in &files {
        let one = play(file, &trace, timing, &prices, &mut unused);
        simulated.push(one.with_context(|| file.display().to_string())?);
    }
    for column in unused {
        eprintln!("warning: {}: no metric uses column {column}", arguments.trace.display());
    }
    if let [first, second] = simulated.as_mut_slice()
        && first.label == second.label
    {
        (first.label, second.label) = (
            arguments.filename.display().to_string(),
            files.last().map_or_else(String::new, |file| file.display().to_string()),
        );
    }
    let mut output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = match arguments.output {
        Form::Table => table::write(&mut output, &simulated, &trace),
        Form::Csv => output::csv(&mut output, &simulated, &trace),
        Form::Json => output::json(&mut output, &simulated, &trace, timing),
    }
    .and_then(|()| output.flush());
    match written {
        // Whoever reads has seen enough, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("standard output cannot be written")?,
    }
    if let Some(file) = &arguments.svg {
        let svg = plot::svg(&simulated, &trace).context("the plot cannot be drawn")?;
        fs::write(file, svg).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn play(file: &Path, trace: &Trace, timing: Timing, prices: &Prices, unused: &mut Vec<&str>) -> Result<Simulated> {
    let text = String::from_utf8(read(file)?).context("is not UTF-8")?;
    let workload = workload::read(&text)?;
    let feeds = feeds(&workload, trace)?;
    let used: Vec<&str> = feeds.iter().filter_map(|feed| trace.column_names().nth(feed.column()?)).collect();
    unused.retain(|column| !used.contains(column));
    let outcome = simulate(&workload, &feeds, trace, timing);
    let summary = Summary::new(&workload, &outcome, prices)?;
    let mut notes: Vec<String> = workload.note().into_iter().collect();
    if workload.replica.limit.is_none() {
        notes.push(format!(
            "{}: no cpu limit; a ready replica serves whatever comes, so demand is unserved only while none is ready",
            workload.name
        ));
    }
    Ok(Simulated { label: workload.name, request: workload.replica.requests.cpu, outcome, summary, notes })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text).context("standard input cannot be read")?;
        return Ok(text);
    }
    fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// `10s`, `2m`, or seconds.
fn duration(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(SignedDuration::from_secs(i64::from(seconds))),
        Err(_) => text.parse().map_err(|_| "write for example 10s or 2m".to_owned()),
    }
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        Ok(_) | Err(_) => Err("a price is a number, 0 or more".to_owned()),
    }
}
