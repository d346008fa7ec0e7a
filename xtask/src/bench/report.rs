//! What a benchmark gives.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

/// Figures by name; the name tells the unit.
pub(super) type Figures = BTreeMap<&'static str, f64>;

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

impl Outcome {
    /// For people.
    pub(super) fn table(&self) -> String {
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

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median([5.0, 1.0, 3.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }
}
