//! The plot: CPU above, replicas below, on one axis of time. A second workload is drawn beside the first in colours of
//! its own.
//!
//! However long the trace is, a line has at most two points for each pixel column: the lowest and the highest value of
//! it, so no peak is lost and the file stays small.

use anyhow::{Result, anyhow};
use jiff::{Timestamp, tz::TimeZone};
use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    Simulated,
    plant::Step,
    trace::{Clock, Trace},
};

const SIZE: (u32, u32) = (1200, 780);
/// Columns that a line is reduced to.
const COLUMNS: i64 = 900;
/// Of Okabe and Ito: told apart with any colour vision.
const DEMAND: RGBColor = RGBColor(0, 0, 0);
const SHORT: RGBColor = RGBColor(213, 94, 0);
const BOUNDS: RGBColor = RGBColor(130, 130, 130);
const OF_WORKLOADS: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(0, 158, 115)];
const FONT: &str = "sans-serif";
/// The height of a row that explains lines of a chart.
const LEGEND: i32 = 22;
/// How wide a letter is at most, on average: fonts are the viewer's.
const LETTER: i32 = 8;

/// A line as points (milliseconds, value).
type Points = Vec<(f64, f64)>;

/// One line of a chart.
struct Line {
    label: String,
    points: Points,
    colour: RGBAColor,
    width: u32,
    /// Whether the area below it is filled.
    filled: bool,
    /// Whether it may leave the chart: capacity is often far above all else.
    cut: bool,
}

/// Draws one or two workloads.
///
/// # Errors
/// When the plot cannot be drawn.
pub fn svg(simulated: &[Simulated], trace: &Trace) -> Result<String> {
    let mut text = String::new();
    draw(SVGBackend::with_string(&mut text, SIZE), simulated, trace).map_err(|error| anyhow!("{error}"))?;
    Ok(text)
}

fn draw(backend: SVGBackend<'_>, simulated: &[Simulated], trace: &Trace) -> Result<(), Box<dyn std::error::Error>> {
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let names: Vec<&str> = simulated.iter().map(|one| one.label.as_str()).collect();
    let title = format!("Simulation of {}", names.join(" and "));
    area.draw_text(&title, &(FONT, 22).into_text_style(&area).pos(Pos::new(HPos::Center, VPos::Top)), (600, 12))?;
    let (_, charts) = area.split_vertically(44);
    let (cpu, replicas) = charts.split_vertically((SIZE.1 - 44) * 53 / 100);
    chart(&cpu, "CPU (cores)", of_cpu(simulated), trace, "")?;
    let axis = match trace.clock {
        Clock::Dates => "time (UTC)",
        Clock::Seconds => "time from the start",
    };
    chart(&replicas, "replicas", of_replicas(simulated), trace, axis)?;
    area.present()?;
    Ok(())
}

fn of_cpu(simulated: &[Simulated]) -> Vec<Line> {
    let cores = |sum: i128, step: &Step| sum as f64 / 1000.0 / step.totals.time.max(1) as f64;
    let mut lines = Vec::new();
    for (index, (one, colour)) in simulated.iter().zip(OF_WORKLOADS).enumerate() {
        let steps = &one.outcome.steps;
        let of = name_of(simulated, one);
        if index == 0 {
            let points = reduced(steps, |step| Some(cores(step.totals.offered, step)));
            lines.push(Line {
                label: "demand".to_owned(),
                points,
                colour: DEMAND.mix(0.85),
                width: 1,
                filled: true,
                cut: false,
            });
        }
        let points = reduced(steps, |step| Some(cores(step.totals.capacity?, step)));
        if !points.is_empty() {
            let label = format!("capacity{of}");
            lines.push(Line { label, points, colour: colour.mix(0.5), width: 1, filled: false, cut: true });
        }
        if let ([_], Some(request)) = (simulated, one.request) {
            let points = reduced(steps, |step| Some(f64::from(step.replicas) * request as f64 / 1000.0));
            let label = format!("requested{of}");
            lines.push(Line { label, points, colour: colour.into(), width: 2, filled: false, cut: false });
        }
        if one.outcome.totals.unserved > 0 {
            let points = reduced(steps, |step| Some(cores(step.totals.unserved, step)));
            let colour = if index == 0 { SHORT.mix(0.9) } else { SHORT.mix(0.5) };
            lines.push(Line {
                label: format!("unserved demand{of}"),
                points,
                colour,
                width: 1,
                filled: true,
                cut: false,
            });
        }
    }
    lines
}

fn of_replicas(simulated: &[Simulated]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (one, colour) in simulated.iter().zip(OF_WORKLOADS) {
        let steps = &one.outcome.steps;
        let of = name_of(simulated, one);
        let line = |label: &str, colour: RGBAColor, width, count: fn(&Step) -> Option<i32>| Line {
            label: format!("{label}{of}"),
            points: reduced(steps, |step| count(step).map(f64::from)),
            colour,
            width,
            filled: false,
            cut: false,
        };
        if simulated.len() == 1 {
            lines.push(line("bounds", BOUNDS.mix(0.9), 1, |step| step.bounds.map(|(min, _)| min)));
            lines.push(line("", BOUNDS.mix(0.9), 1, |step| step.bounds.map(|(_, max)| max)));
        }
        lines.push(line("wanted", colour.mix(0.45), 3, |step| Some(step.wanted)));
        lines.push(line("ready", colour.into(), 1, |step| Some(step.ready)));
    }
    lines.retain(|line| !line.points.is_empty());
    lines
}

fn name_of(simulated: &[Simulated], one: &Simulated) -> String {
    if simulated.len() > 1 { format!(", {}", one.label) } else { String::new() }
}

/// A line of steps, reduced: in each column its first, lowest, highest and last value, in order, and nothing where it
/// goes on flat.
fn reduced(steps: &[Step], value: impl Fn(&Step) -> Option<f64>) -> Points {
    let Some(last) = steps.last() else { return Vec::new() };
    let end = last.at.saturating_add(i64::try_from(last.totals.time).unwrap_or(i64::MAX));
    let column = |at: i64| i128::from(at) * i128::from(COLUMNS) / i128::from(end.max(1));
    let mut points = Points::new();
    let values = steps.iter().filter_map(|step| Some((step.at, value(step)?)));
    let mut values = values.peekable();
    while let Some((at, first)) = values.next() {
        let (mut low, mut high, mut newest) = ((at, first), (at, first), (at, first));
        while let Some((next, value)) = values.next_if(|(next, _)| column(*next) == column(at)) {
            newest = (next, value);
            if value < low.1 {
                low = newest;
            }
            if value > high.1 {
                high = newest;
            }
        }
        let mut extremes = [(at, first), low, high, newest];
        extremes.sort_by_key(|(at, _)| *at);
        for (at, value) in extremes {
            push(&mut points, at as f64, value);
        }
    }
    if let Some((_, value)) = points.last().copied() {
        points.push((end as f64, value));
    }
    points
}

/// Goes on flat until `at`, and from there at `value`.
fn push(points: &mut Points, at: f64, value: f64) {
    match points.last().copied() {
        Some((_, before)) if before == value => {}
        Some((_, before)) => points.extend([(at, before), (at, value)]),
        None => points.push((at, value)),
    }
}

fn chart(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    lines: Vec<Line>,
    trace: &Trace,
    axis: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let end = trace.length() as f64;
    let highest = |cut: bool| {
        let points = lines.iter().filter(move |line| cut || !line.cut).flat_map(|line| &line.points);
        points.map(|(_, value)| *value).fold(0.0, f64::max)
    };
    // Twice as high as the rest: so the rest is still seen.
    let (all, rest) = (highest(true), highest(false));
    let top = if rest > 0.0 { all.min(rest * 2.0) * 1.05 } else { all.max(1.0) };
    let used = explain(area, &lines, all > top)?;
    let (_, area) = area.split_vertically(used);
    let mut chart = ChartBuilder::on(&area)
        .margin_left(14)
        .margin_right(46)
        .margin_top(8)
        .margin_bottom(4)
        .x_label_area_size(if axis.is_empty() { 26 } else { 52 })
        .y_label_area_size(58)
        .build_cartesian_2d(Ticks::new(trace), 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(BLACK.mix(0.6))
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 17))
        .x_desc(axis)
        .y_desc(title)
        .y_labels(8)
        .x_label_formatter(&|at| label(trace, *at))
        .y_label_formatter(&|value| number(*value, top))
        .draw()?;
    for mut line in lines {
        line.points.iter_mut().for_each(|(_, value)| *value = value.min(top));
        let style = line.colour.stroke_width(line.width);
        if line.filled {
            let fill = line.colour.mix(0.18);
            let mut outline = line.points.clone();
            outline.extend([(end, 0.0), (0.0, 0.0)]);
            chart.draw_series([Polygon::new(outline, fill)])?;
        }
        chart.draw_series([PathElement::new(line.points, style)])?;
    }
    Ok(())
}

/// Names the lines, in rows above their chart. Returns how high those are.
fn explain(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    lines: &[Line],
    cut: bool,
) -> Result<i32, Box<dyn std::error::Error>> {
    const STROKE: i32 = 26;
    const LEFT: i32 = 72;
    let right = i32::try_from(SIZE.0)? - 20;
    let (mut x, mut y) = (LEFT, LEGEND / 2);
    for line in lines.iter().filter(|line| !line.label.is_empty()) {
        let label = if line.cut && cut { format!("{} (cut off at the top)", line.label) } else { line.label.clone() };
        let letters = i32::try_from(label.chars().count()).unwrap_or(0);
        let width = letters.saturating_mul(LETTER).saturating_add(STROKE + 20);
        if x > LEFT && x.saturating_add(width) > right {
            (x, y) = (LEFT, y.saturating_add(LEGEND));
        }
        let style = line.colour.stroke_width(line.width.max(2));
        area.draw(&PathElement::new([(x, y), (x + STROKE, y)], style))?;
        let text = (FONT, 15).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(&label, &text, (x + STROKE + 6, y))?;
        x = x.saturating_add(width);
    }
    Ok(y.saturating_add(LEGEND / 2 + 4))
}

/// The axis of time: its marks are at whole minutes, hours or days.
struct Ticks {
    end: f64,
    marks: Vec<f64>,
}

impl Ticks {
    /// What may lie between two marks, in seconds.
    const DISTANCES: [i64; 18] = [
        1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000,
        31_536_000,
    ];

    fn new(trace: &Trace) -> Self {
        let distance = distance(trace);
        // Whole ones by the clock, not by the first row.
        let start = match trace.clock {
            Clock::Dates => trace.start.as_millisecond(),
            Clock::Seconds => 0,
        };
        let first = -start.rem_euclid(distance);
        let marks = (0..=trace.length() / distance + 1).map(|index| first + index * distance);
        let marks = marks.filter(|mark| (0..=trace.length()).contains(mark)).map(|mark| mark as f64).collect();
        Self { end: trace.length() as f64, marks }
    }
}

/// Between two marks, in milliseconds: so that there are at most twelve, as far as the list of distances goes.
fn distance(trace: &Trace) -> i64 {
    let wanted = trace.length() / 12;
    Ticks::DISTANCES.iter().map(|seconds| seconds * 1000).find(|distance| *distance >= wanted).unwrap_or(wanted)
}

impl Ranged for Ticks {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = if self.end > 0.0 { value / self.end } else { 0.0 };
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.marks.clone() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.end
    }
}

impl ValueFormatter<f64> for Ticks {
    fn format(value: &f64) -> String {
        value.to_string()
    }
}

/// A mark of the axis of time, in words.
fn label(trace: &Trace, at: f64) -> String {
    let distance = distance(trace);
    const DAY: i64 = 86_400_000;
    match trace.clock {
        Clock::Dates => {
            let time: Timestamp = trace.at(at as i64);
            let format = match distance {
                ..60_000 => "%H:%M:%S",
                60_000..43_200_000 if trace.length() <= DAY => "%H:%M",
                60_000..DAY => "%d %b %H:%M",
                DAY.. => "%a %d %b",
            };
            time.to_zoned(TimeZone::UTC).strftime(format).to_string()
        }
        Clock::Seconds => match distance {
            ..60_000 => format!("{} s", at / 1000.0),
            60_000..3_600_000 => format!("{} min", at / 60_000.0),
            3_600_000..DAY => format!("{} h", at / 3_600_000.0),
            DAY.. => format!("{} d", at / DAY as f64),
        },
    }
}

/// A number of cores or replicas, with as many digits as the axis needs.
fn number(value: f64, top: f64) -> String {
    match top {
        top if top >= 8.0 => format!("{value:.0}"),
        top if top >= 0.8 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
