//! What a quota is in the kernel: the files of a container's cgroup on the real node.

use std::time::Duration;

use anyhow::{Result, ensure};
use catamaran_e2e::{node::Node, wait::eventually};
use comfy_table::{Table, presets::NOTHING};

/// How long a value may take to get into the kernel: a resize takes 2 s, the agent looks each second; a machine that
/// emulates a processor is slow at times.
const WITHIN: Duration = Duration::from_secs(60);

/// A field of the quota, and what the kernel makes of it.
pub(super) struct Knob {
    /// Field and value in `spec.quota`.
    pub(super) field: &'static str,
    /// The file of the cgroup.
    pub(super) file: &'static str,
    /// What the file then says.
    pub(super) value: &'static str,
    /// Who writes it.
    pub(super) by: &'static str,
}

/// Waits until the files of a cgroup say what was asked for, and shows them.
pub(super) async fn held(node: &Node, cgroup: &str, knobs: &[Knob]) -> Result<String> {
    let files: Vec<_> = knobs.iter().map(|knob| knob.file).collect();
    let command = format!("cd '{cgroup}' && for file in {}; do cat $file; done", files.join(" "));
    eventually("the kernel holds the quota", WITHIN, || async {
        let text = node.shell(&command).await?;
        let found: Vec<_> = text.lines().collect();
        let wanted: Vec<_> = knobs.iter().map(|knob| knob.value).collect();
        ensure!(found == wanted, "{files:?} say {found:?}");
        Ok(Some(()))
    })
    .await?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["IN spec.quota", "FILE OF THE CGROUP", "THE KERNEL SAYS", "WRITTEN BY"]);
    for Knob { field, file, value, by } in knobs {
        table.add_row([field, file, value, by]);
    }
    Ok(table.to_string())
}

/// CPU time of cgroups together, in microseconds.
pub(super) async fn used(node: &Node, cgroups: &[String]) -> Result<u64> {
    let files: Vec<_> = cgroups.iter().map(|cgroup| format!("'{cgroup}/cpu.stat'")).collect();
    let text = node.shell(&format!("cat {}", files.join(" "))).await?;
    text.lines()
        .filter_map(|line| line.strip_prefix("usage_usec "))
        .map(|number| Ok(number.trim().parse::<u64>()?))
        .sum()
}
