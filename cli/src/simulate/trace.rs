//! A trace: what was asked of a workload over time, as CSV. Between two rows the values of the earlier one hold; the
//! last row holds as long as the one before it.

use catamaran_autoscale::{quantity::milli, samples::MOST_CORES};
use csv::{ErrorKind, ReaderBuilder, StringRecord, Trim};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

/// The latest time in seconds: the year 5138, well within what a [`Timestamp`] holds.
const LATEST: f64 = 1e11;

/// A trace, checked: at least two rows, times ascending, no demand below zero.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The time of the first row.
    pub start: Timestamp,
    /// How times are shown.
    pub clock: Clock,
    /// The time of each row, in milliseconds after the first.
    times: Vec<i64>,
    /// Until when the last row holds, in milliseconds after the first.
    end: i64,
    /// The demand of each row, in millicores. Where the cell is empty it is that of the row before.
    demand: Vec<i64>,
    /// Whether the cell is empty: the demand goes on, and nobody can measure it.
    unmeasured: Vec<bool>,
    columns: Vec<Column>,
}

/// How the times of a trace are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As dates.
    Dates,
    /// As seconds, from nowhere in particular.
    Seconds,
}

/// A column besides time and demand.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    /// In thousandths; `None` where the metric has no value.
    values: Vec<Option<i64>>,
}

/// Why a trace cannot be used.
#[derive(Debug, Error)]
pub enum InvalidTrace {
    /// The CSV itself is wrong.
    #[error("line {line}: {message}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// A value is wrong.
    #[error("line {line}, column {column}: {message}")]
    Cell {
        /// Counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What is wrong.
        message: String,
    },
    /// It cannot be read, or is too short.
    #[error("{0}")]
    Whole(String),
}

/// The forms that a column's name can have, for messages.
const FORMS: &str = "time, demand, memory, throttling, metric:NAME, metrics[INDEX] or pressure:RESOURCE:KIND";

impl Trace {
    /// Reads a trace. Times in seconds count from `origin`; without it from 1970, so that Unix times are dates as well.
    ///
    /// # Errors
    /// When a line or a cell cannot be used; the error names it.
    pub fn read(text: &[u8], origin: Option<Timestamp>) -> Result<Self, InvalidTrace> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(text);
        let header = reader.headers().map_err(of_csv)?.clone();
        let place = |name: &str| {
            header.iter().position(|column| column == name).ok_or_else(|| InvalidTrace::Line {
                line: 1,
                message: format!(
                    "there is no column {name}; the first line names the columns, for example time,demand"
                ),
            })
        };
        let (time, demand) = (place("time")?, place("demand")?);
        check_header(&header)?;
        let mut rows = Rows { clock: None, origin: origin.unwrap_or(Timestamp::UNIX_EPOCH), stamps: Vec::new() };
        let mut columns: Vec<(usize, Column)> = header
            .iter()
            .enumerate()
            .filter(|(index, _)| ![time, demand].contains(index))
            .map(|(index, name)| (index, Column { name: name.to_owned(), values: Vec::new() }))
            .collect();
        let (mut demands, mut unmeasured) = (Vec::new(), Vec::new());
        for record in reader.records() {
            let record = record.map_err(of_csv)?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |column: &str, message: String| InvalidTrace::Cell { line, column: column.to_owned(), message };
            rows.push(cell(&record, time)).map_err(|message| wrong("time", message))?;
            let asked = value(cell(&record, demand)).map_err(|message| wrong("demand", message))?;
            unmeasured.push(asked.is_none());
            demands.push(match (asked, demands.last()) {
                (Some(asked), _) if asked > MOST_CORES * 1000 => {
                    return Err(wrong(
                        "demand",
                        format!("{} is too large: no machine has that", cell(&record, demand)),
                    ));
                }
                (Some(asked), _) if asked < 0 => return Err(wrong("demand", "must not be below 0".to_owned())),
                (Some(asked), _) => asked,
                (None, Some(before)) => *before,
                (None, None) => return Err(wrong("demand", "is empty; the first row has to have a demand".to_owned())),
            });
            for (index, column) in &mut columns {
                let value = value(cell(&record, *index)).map_err(|message| wrong(&column.name, message))?;
                column.values.push(value);
            }
        }
        let (start, clock, times) = rows.finish(origin.is_some())?;
        // There are at least two rows.
        let gap = times.iter().rev().take(2).copied().reduce(|last, before| last - before).unwrap_or(0);
        let end = times.last().map_or(0, |last| last.saturating_add(gap));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        Ok(Self { start, clock, times, end, demand: demands, unmeasured, columns })
    }

    /// How long it is, in milliseconds.
    pub fn length(&self) -> i64 {
        self.end
    }

    /// The smallest time between two rows, in milliseconds.
    pub fn finest(&self) -> i64 {
        let gaps = self.times.iter().zip(self.times.iter().skip(1)).map(|(before, after)| after - before);
        gaps.min().unwrap_or(self.end)
    }

    /// Which column has this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The names of the columns besides time and demand.
    pub fn column_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// When a row ends, in milliseconds; the end of the trace for the last one.
    pub fn row_end(&self, row: usize) -> i64 {
        self.times.get(row + 1).copied().unwrap_or(self.end)
    }

    /// The demand in a row, in millicores.
    pub fn demand(&self, row: usize) -> i64 {
        self.demand.get(row).copied().unwrap_or(0)
    }

    /// Whether the usage that the demand makes can be measured in a row.
    pub fn is_measured(&self, row: usize) -> bool {
        !self.unmeasured.get(row).copied().unwrap_or(true)
    }

    /// The value of a column in a row, in thousandths.
    pub fn value(&self, column: usize, row: usize) -> Option<i64> {
        self.columns.get(column).and_then(|column| *column.values.get(row)?)
    }

    /// The time so many milliseconds after the first row.
    pub fn at(&self, offset: i64) -> Timestamp {
        let end = if offset < 0 { Timestamp::MIN } else { Timestamp::MAX };
        self.start.checked_add(SignedDuration::from_millis(offset)).unwrap_or(end)
    }

    /// A time as the trace has them.
    pub fn show(&self, offset: i64) -> String {
        match self.clock {
            Clock::Dates => self.at(offset).to_string(),
            Clock::Seconds => {
                let milli = self.at(offset).as_millisecond();
                let (whole, rest) = (milli / 1000, milli % 1000);
                if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}") }
            }
        }
    }
}

/// The times of the rows so far.
struct Rows {
    /// `None` before the first one.
    clock: Option<Clock>,
    origin: Timestamp,
    stamps: Vec<Timestamp>,
}

impl Rows {
    fn push(&mut self, text: &str) -> Result<(), String> {
        let as_date = || text.parse::<Timestamp>().ok();
        let as_seconds = || {
            let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=LATEST).contains(seconds))?;
            self.origin.checked_add(SignedDuration::from_millis((seconds * 1000.0).round() as i64)).ok()
        };
        let (clock, stamp) = match self.clock {
            None => as_date().map(|date| (Clock::Dates, date)).or_else(|| Some((Clock::Seconds, as_seconds()?))),
            Some(Clock::Dates) => as_date().map(|date| (Clock::Dates, date)),
            Some(Clock::Seconds) => as_seconds().map(|stamp| (Clock::Seconds, stamp)),
        }
        .ok_or_else(|| match self.clock {
            None => format!("{text:?} is no time; write seconds, or a date like 2026-03-02T12:00:00Z"),
            Some(Clock::Dates) => format!("{text:?} is no date like 2026-03-02T12:00:00Z, as in the rows before"),
            Some(Clock::Seconds) => format!("{text:?} is no number of seconds, as in the rows before"),
        })?;
        if self.stamps.last().is_some_and(|before| stamp.as_millisecond() <= before.as_millisecond()) {
            return Err(format!("{text} is not after the row before; sort the rows by time"));
        }
        self.clock = Some(clock);
        self.stamps.push(stamp);
        Ok(())
    }

    fn finish(self, dated: bool) -> Result<(Timestamp, Clock, Vec<i64>), InvalidTrace> {
        let (Some(clock), [start, _, ..]) = (self.clock, self.stamps.as_slice()) else {
            return Err(InvalidTrace::Whole(
                "there have to be at least two rows: the last one holds as long as the one before it".to_owned(),
            ));
        };
        // Seconds that are a date: those after --start, and Unix times.
        const A_YEAR: i64 = 365 * 86_400;
        let clock = if dated || start.as_second() >= A_YEAR { Clock::Dates } else { clock };
        let times = self.stamps.iter().map(|stamp| stamp.as_millisecond() - start.as_millisecond()).collect();
        Ok((*start, clock, times))
    }
}

fn check_header(header: &StringRecord) -> Result<(), InvalidTrace> {
    for (index, name) in header.iter().enumerate() {
        let wrong = |message: String| InvalidTrace::Cell { line: 1, column: (index + 1).to_string(), message };
        let known = ["time", "demand", "memory", "throttling"].contains(&name)
            || name.strip_prefix("metric:").is_some_and(|name| !name.is_empty())
            || name.strip_prefix("metrics[").and_then(|rest| rest.strip_suffix(']')?.parse::<usize>().ok()).is_some()
            || name.starts_with("pressure:");
        if !known {
            return Err(wrong(format!("{name:?} is no name of a column; write {FORMS}")));
        }
        if header.iter().take(index).any(|before| before == name) {
            return Err(wrong(format!("{name} is there twice")));
        }
    }
    Ok(())
}

fn cell(record: &StringRecord, index: usize) -> &str {
    record.get(index).unwrap_or("")
}

/// A value in thousandths; `None` for an empty cell.
fn value(text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    milli(&Quantity(text.to_owned())).map(Some).map_err(|error| error.to_string())
}

fn of_csv(error: csv::Error) -> InvalidTrace {
    let line = |position: &Option<csv::Position>| position.as_ref().map_or(0, csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let message = format!("{len} values, and {expected_len} columns");
            InvalidTrace::Line { line: line(pos), message }
        }
        ErrorKind::Utf8 { pos, .. } => InvalidTrace::Line { line: line(pos), message: "is not UTF-8".to_owned() },
        _ => InvalidTrace::Whole(error.to_string()),
    }
}
