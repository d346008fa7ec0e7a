//! The result for people: a summary, and the decisions that changed the count.

use std::io::{Result, Write};

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use super::{Simulated, summary::Summary, trace::Trace};

/// One line of the summary.
struct Line {
    name: String,
    /// `None` where a workload has no such figure.
    of: fn(&Summary) -> Option<f64>,
    /// Digits behind the point.
    digits: usize,
    unit: &'static str,
}

/// Writes one or two workloads.
pub fn write(output: &mut impl Write, simulated: &[Simulated], trace: &Trace) -> Result<()> {
    writeln!(output, "{} to {}", trace.show(0), trace.show(trace.length()))?;
    writeln!(output, "\n{}", summary(simulated))?;
    for note in simulated.iter().flat_map(|one| &one.notes) {
        writeln!(output, "note: {note}")?;
    }
    for one in simulated {
        writeln!(output, "\n{}: decisions that changed the count", one.label)?;
        writeln!(output, "{}", changes(one, trace))?;
    }
    Ok(())
}

fn lines(currency: Option<&str>) -> Vec<Line> {
    let line = |name: &str, of, digits, unit| Line { name: name.to_owned(), of, digits, unit };
    let cost = currency.map_or_else(|| "cost".to_owned(), |currency| format!("cost ({currency})"));
    vec![
        line("replicas, fewest", |summary| Some(f64::from(summary.replicas_min)), 0, ""),
        line("replicas, mean", |summary| Some(summary.replicas_mean), 2, ""),
        line("replicas, most", |summary| Some(f64::from(summary.replicas_max)), 0, ""),
        line("changes of the count", |summary| Some(summary.changes as f64), 0, ""),
        line("replica-hours", |summary| Some(summary.replica_hours), 2, ""),
        line("requested CPU (core-hours)", |summary| summary.cpu_core_hours, 2, ""),
        line("requested memory (GiB-hours)", |summary| summary.memory_gib_hours, 2, ""),
        line("requested CPU that is used", |summary| summary.cpu_used_share.map(|share| share * 100.0), 1, " %"),
        line("demand (core-hours)", |summary| Some(summary.demand_core_hours), 2, ""),
        line("unserved demand (core-seconds)", |summary| Some(summary.unserved_core_seconds), 1, ""),
        line("unserved demand", |summary| Some(summary.unserved_share * 100.0), 3, " %"),
        line("time with unserved demand", |summary| Some(summary.short_share * 100.0), 3, " %"),
        line(&cost, |summary| summary.cost, 2, ""),
    ]
}

fn summary(simulated: &[Simulated]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut header = vec![String::new()];
    header.extend(simulated.iter().map(|one| one.label.clone()));
    if simulated.len() == 2 {
        header.extend(["difference".to_owned(), String::new()]);
    }
    table.set_header(header);
    let currency = simulated.first().and_then(|one| one.summary.currency.as_deref());
    for Line { name, of, digits, unit } in lines(currency) {
        let figures: Vec<Option<f64>> = simulated.iter().map(|one| of(&one.summary)).collect();
        if figures.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![name];
        row.extend(figures.iter().map(|figure| match figure {
            Some(figure) => format!("{figure:.digits$}{unit}"),
            None => "-".to_owned(),
        }));
        if let [Some(first), Some(second)] = figures.as_slice() {
            let difference = second - first;
            row.push(format!("{difference:+.digits$}{unit}"));
            let relative = difference / first * 100.0;
            row.push(if unit.is_empty() && relative.is_finite() {
                format!("({relative:+.0} %)")
            } else {
                String::new()
            });
        }
        table.add_row(row);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    trimmed(&table)
}

fn changes(one: &Simulated, trace: &Trace) -> String {
    if one.outcome.changes.is_empty() {
        return "  none".to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["time", "from", "to", "reason", "why"]);
    for change in &one.outcome.changes {
        // The headline is in the columns before.
        let cause = change.message.split_once(": ").map_or(change.message.as_str(), |(_, cause)| cause);
        let why = match change.metrics.as_slice() {
            [] => cause.to_owned(),
            metrics => format!("{cause} ({})", metrics.join("; ")),
        };
        table.add_row([
            trace.show(change.at),
            change.from.to_string(),
            change.to.to_string(),
            change.reason.to_owned(),
            why,
        ]);
    }
    trimmed(&table)
}

/// Without the blanks that fill up the last column.
fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
