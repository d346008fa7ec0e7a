//! What was seen, at the end of the demo.

use std::collections::BTreeMap;

use anyhow::Result;
use catamaran_e2e::{audit::Mark, control_plane::ControlPlane, installation::operator_user};
use comfy_table::{CellAlignment, Table, presets::NOTHING};

use super::screen::Screen;

/// What the demo promises, and whether it was kept.
#[derive(Default)]
pub(super) struct Promises(Vec<(bool, String)>);

impl Promises {
    /// Notes one.
    pub(super) fn note(&mut self, kept: bool, text: String) {
        self.0.push((kept, text));
    }

    /// Whether all were kept.
    pub(super) fn kept(&self) -> bool {
        self.0.iter().all(|(kept, _)| *kept)
    }

    /// Shows them all.
    pub(super) fn print(&self, screen: &Screen) {
        screen.print("\nWhat was seen");
        for (kept, text) in &self.0 {
            screen.print(&format!("  {}  {text}", if *kept { "ok    " } else { "BROKEN" }));
        }
        screen.print("");
    }
}

/// Shows who wrote how much in a namespace, by the audit log, and how often the operator renewed its lease.
pub(super) fn writes(control_plane: &ControlPlane, namespace: &str, screen: &Screen) -> Result<()> {
    let mut users: BTreeMap<String, [usize; 5]> = BTreeMap::new();
    for write in control_plane.audit().writes_since(Mark::START)? {
        let lease = write.resource == "leases" && write.user == operator_user();
        if !write.took_effect() || !(write.namespace == namespace || lease) {
            continue;
        }
        let column = match write.verb.as_str() {
            _ if lease => 3,
            "create" => 0,
            "delete" | "deletecollection" => 2,
            _ => 1,
        };
        let user = write.user.rsplit(':').next().unwrap_or_default().to_owned();
        let counts = users.entry(user).or_default();
        counts[column] += 1;
        counts[4] += 1;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["WRITES BY", "CREATE", "CHANGE", "DELETE", "LEASE", "ALL"]);
    for (user, counts) in users {
        table.add_row([user].into_iter().chain(counts.map(|count| count.to_string())));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    screen.print(&format!("\n{table}"));
    Ok(())
}
