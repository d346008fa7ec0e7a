//! What the demo shows: lines of what happens, and below them a table of the workloads.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

/// A workload in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// What its replicas are to be.
    pub(super) hull: String,
    /// Replicas that are wanted, are of the wanted revision, and are available.
    pub(super) counts: [i32; 3],
    /// Ready and all containers that live.
    pub(super) containers: (usize, usize),
    /// Ready and all virtual machines that live.
    pub(super) machines: (usize, usize),
    /// The reason of its condition Ready.
    pub(super) reason: String,
}

/// Standard output. On a terminal the table is redrawn in place; elsewhere each change is a line.
pub(super) struct Screen {
    started: Instant,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<String, Row>,
    /// Demand and usage of workloads, in cores.
    loads: BTreeMap<String, (f64, f64)>,
    /// Lines of the table that is on the terminal now.
    drawn: usize,
}

impl Screen {
    /// Times are shown from `started` on.
    pub(super) fn new(started: Instant) -> Self {
        Self { started, terminal: io::stdout().is_terminal(), state: Mutex::default() }
    }

    /// Shows a line above the table.
    pub(super) fn say(&self, text: &str) {
        let mut state = self.state();
        let mut out = state.erase();
        out += &format!("{:5.1} s  {text}\n", self.started.elapsed().as_secs_f64());
        self.draw(&mut state, out);
    }

    /// Shows text as it is, above the table.
    pub(super) fn print(&self, text: &str) {
        let mut state = self.state();
        let out = state.erase() + text + "\n";
        self.draw(&mut state, out);
    }

    /// Shows the workloads as they are now.
    pub(super) fn show(&self, rows: BTreeMap<String, Row>) {
        let mut state = self.state();
        if self.terminal {
            state.rows = rows;
            let out = state.erase();
            self.draw(&mut state, out);
            return;
        }
        let mut out = String::new();
        for (name, row) in &rows {
            // Until the operator has written a status there is nothing to tell.
            if state.rows.get(name) != Some(row) && !row.hull.is_empty() {
                let [desired, updated, available] = row.counts;
                out += &format!(
                    "{:5.1} s    {name}: {}, {available} of {desired} available, {updated} up to date; containers {}, VMs {}; {}\n",
                    self.started.elapsed().as_secs_f64(),
                    row.hull,
                    ratio(row.containers),
                    ratio(row.machines),
                    row.reason
                );
            }
        }
        state.rows = rows;
        self.draw(&mut state, out);
    }

    /// Shows the load of a workload: demand and usage, in cores. Only a terminal has it, as it is never the same twice.
    pub(super) fn load(&self, name: &str, demand: f64, used: f64) {
        let mut state = self.state();
        state.loads.insert(name.to_owned(), (demand, used));
        if self.terminal {
            let out = state.erase();
            self.draw(&mut state, out);
        }
    }

    /// The load of a workload is of no interest any more.
    pub(super) fn unload(&self, name: &str) {
        self.state().loads.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, state: &mut State, mut out: String) {
        if self.terminal && !state.rows.is_empty() {
            let table = state.table();
            state.drawn = table.lines().count();
            out += &table;
            out.push('\n');
        }
        let mut stdout = io::stdout().lock();
        // A reader that has gone away (`| head`) is no reason to leave the control plane behind.
        let _ = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush());
    }
}

impl State {
    /// What takes the drawn table off a terminal.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header([
            "WORKLOAD",
            "HULL",
            "DESIRED",
            "UP-TO-DATE",
            "AVAILABLE",
            "CONTAINERS",
            "VMS",
            "DEMAND",
            "USAGE",
            "STATUS",
        ]);
        for (name, row) in &self.rows {
            let [desired, updated, available] = row.counts.map(|count| count.to_string());
            let (containers, machines) = (ratio(row.containers), ratio(row.machines));
            let cores = |cores: f64| format!("{cores:.2}");
            let [demand, usage] = match self.loads.get(name) {
                Some((demand, used)) => [cores(*demand), cores(*used)],
                None => ["-", "-"].map(str::to_owned),
            };
            table.add_row([
                name,
                &row.hull,
                &desired,
                &updated,
                &available,
                &containers,
                &machines,
                &demand,
                &usage,
                &row.reason,
            ]);
        }
        table.to_string()
    }
}

fn ratio((ready, all): (usize, usize)) -> String {
    if all == 0 { "-".to_owned() } else { format!("{ready}/{all}") }
}
