//! What a benchmark gives.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

/// Figures by name; the name tells the unit.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// A result that people can read.
pub(super) trait Shown: Serialize {
    /// For people.
    fn table(&self) -> String;
}

/// The result of one benchmark.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    /// What was measured.
    pub(super) figures: Figures,
    /// Who the peer is.
    pub(super) peer: &'static str,
    /// The same of the peer.
    pub(super) peer_figures: Figures,
    /// The peer's figure divided by ours: above 1 is better than the peer.
    pub(super) ratio: f64,
    /// Of which figure.
    pub(super) ratio_of: &'static str,
}

impl Shown for Outcome {
    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([self.name, "catamaran", self.peer]);
        let names: BTreeSet<_> = self.figures.keys().chain(self.peer_figures.keys()).collect();
        for name in names {
            let shown = |figures: &Figures| figures.get(name).map_or_else(|| "-".to_owned(), |figure| number(*figure));
            table.add_row([(*name).to_owned(), shown(&self.figures), shown(&self.peer_figures)]);
        }
        table.add_row([
            format!("ratio ({}: peer / catamaran)", self.ratio_of),
            format!("{:.2}", self.ratio),
            String::new(),
        ]);
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        format!("{table}\n")
    }
}

/// The result of a benchmark without a peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alone {
    pub(super) name: &'static str,
    pub(super) figures: Figures,
}

impl Shown for Alone {
    fn table(&self) -> String {
        let lines = self.figures.iter().map(|(name, figure)| format!("{name:<15} {figure:>6.2}\n"));
        format!("{}\n{}", self.name, lines.collect::<String>())
    }
}

fn number(figure: f64) -> String {
    if figure.fract() == 0.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}

/// The middle one of some figures, or the mean of the two in the middle.
pub(super) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        length if length % 2 == 0 => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}

/// From the lowest to the highest.
pub(super) fn sorted(seconds: &[f64]) -> Vec<f64> {
    let mut seconds = seconds.to_vec();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// By nearest rank: of 20 values, the 99th percentile is the highest.
pub(super) fn distribution(seconds: &[f64]) -> Figures {
    let sorted = sorted(seconds);
    let rank =
        |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(f64::NAN);
    Figures::from([
        ("minSeconds", rank(0)),
        ("medianSeconds", median(sorted.iter().copied())),
        ("p90Seconds", rank(90)),
        ("p99Seconds", rank(99)),
        ("maxSeconds", rank(100)),
    ])
}

#[cfg(test)]
mod tests {
    use super::{distribution, median};

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median([5.0, 1.0, 3.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let figures = distribution(&(1..=20).rev().map(f64::from).collect::<Vec<_>>());
        let of = |name: &str| figures[name];
        assert_eq!(
            [of("minSeconds"), of("medianSeconds"), of("p90Seconds"), of("p99Seconds")],
            [1.0, 10.5, 18.0, 20.0]
        );
    }
}
