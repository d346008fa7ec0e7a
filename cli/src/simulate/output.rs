//! The result for programs: CSV and JSON.

use std::io::{Error, Result, Write};

use serde::Serialize;

use super::{
    Simulated,
    plant::{Step, Timing},
    summary::Summary,
    trace::Trace,
};

/// One step. CPU is in cores, on average over the step.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
struct Row<'a> {
    workload: &'a str,
    time: String,
    demand: f64,
    served: f64,
    unserved: f64,
    capacity: Option<f64>,
    replicas: i32,
    ready: i32,
    wanted: i32,
    recommended: Option<i32>,
    min: Option<i32>,
    max: Option<i32>,
    reason: &'a str,
}

impl<'a> Row<'a> {
    fn new(workload: &'a str, step: &'a Step, trace: &Trace) -> Self {
        let cores = |sum: i128| sum as f64 / 1000.0 / step.totals.time as f64;
        Self {
            workload,
            time: trace.show(step.at),
            demand: cores(step.totals.offered),
            served: cores(step.totals.served),
            unserved: cores(step.totals.unserved),
            capacity: step.totals.capacity.map(cores),
            replicas: step.replicas,
            ready: step.ready,
            wanted: step.wanted,
            recommended: step.recommended,
            min: step.bounds.map(|(min, _)| min),
            max: step.bounds.map(|(_, max)| max),
            reason: step.reason,
        }
    }
}

/// Writes a row for each step of each workload.
pub fn csv(output: &mut impl Write, simulated: &[Simulated], trace: &Trace) -> Result<()> {
    let mut writer = ::csv::Writer::from_writer(output);
    for one in simulated {
        for step in &one.outcome.steps {
            writer.serialize(Row::new(&one.label, step, trace)).map_err(of_csv)?;
        }
    }
    writer.flush()
}

/// The error of the output itself, whose kind tells whether the reader has left.
fn of_csv(error: ::csv::Error) -> Error {
    if !error.is_io_error() {
        return Error::other(error);
    }
    match error.into_kind() {
        ::csv::ErrorKind::Io(error) => error,
        other => Error::other(format!("{other:?}")),
    }
}

/// The whole result.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    start: String,
    end: String,
    step_seconds: i64,
    startup_seconds: f64,
    workloads: Vec<OfWorkload<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfWorkload<'a> {
    name: &'a str,
    summary: &'a Summary,
    notes: &'a [String],
    changes: Vec<OfChange<'a>>,
    steps: Vec<Row<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfChange<'a> {
    time: String,
    from: i32,
    to: i32,
    reason: &'a str,
    message: &'a str,
    metrics: &'a [String],
}

/// Writes everything as one object.
pub fn json(output: &mut impl Write, simulated: &[Simulated], trace: &Trace, timing: Timing) -> Result<()> {
    let workloads = simulated.iter().map(|one| OfWorkload {
        name: &one.label,
        summary: &one.summary,
        notes: &one.notes,
        changes: one
            .outcome
            .changes
            .iter()
            .map(|change| OfChange {
                time: trace.show(change.at),
                from: change.from,
                to: change.to,
                reason: change.reason,
                message: &change.message,
                metrics: &change.metrics,
            })
            .collect(),
        steps: one.outcome.steps.iter().map(|step| Row::new(&one.label, step, trace)).collect(),
    });
    let document = Document {
        start: trace.show(0),
        end: trace.show(trace.length()),
        step_seconds: timing.step / 1000,
        startup_seconds: timing.startup as f64 / 1000.0,
        workloads: workloads.collect(),
    };
    serde_json::to_writer(&mut *output, &document)?;
    writeln!(output)
}
