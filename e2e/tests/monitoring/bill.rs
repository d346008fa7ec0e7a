//! The hour of a bill by Prometheus (`cli/src/bill/increase.promql`), played by promtool: the engine of Prometheus with
//! a clock of its own.

use std::{fs, ops::Range};

use anyhow::Result;
use serde_json::{Value, json};

use crate::alerts::promtool;

const INCREASE: &str = include_str!("../../../cli/src/bill/increase.promql");
/// Seconds between two scrapes.
const SCRAPE: usize = 30;
/// Scrapes from ten minutes before the hour to some after it.
const ALL: Range<usize> = 0..160;
/// In the middle of the hour.
const HALF: usize = 80;

/// What was scraped of one replica of the operator: the counter, and whether it led.
struct Replica {
    counter: Vec<Option<f64>>,
    leads: Vec<Option<f64>>,
}

impl Replica {
    /// One that is there for a time, counts a second each second, and leads for a part of the time.
    fn there(there: Range<usize>, leads: Range<usize>) -> Self {
        let at = |value: &dyn Fn(usize) -> f64| ALL.map(|at| there.contains(&at).then(|| value(at))).collect();
        Self {
            counter: at(&|at| seconds(at - there.start)),
            leads: at(&|at| if leads.contains(&at) { 1.0 } else { 0.0 }),
        }
    }

    /// Not scraped at these times.
    fn without(mut self, lost: impl Fn(usize) -> bool) -> Self {
        for at in ALL.filter(|at| lost(*at)) {
            (self.counter[at], self.leads[at]) = (None, None);
        }
        self
    }

    /// The process ended just after a scrape, and was back 20 s later.
    fn restarted(mut self, from: usize) -> Self {
        for at in from..ALL.end {
            self.counter[at] = Some(seconds(at - from) + 10.0);
        }
        self
    }
}

#[allow(clippy::cast_precision_loss)]
fn seconds(scrapes: usize) -> f64 {
    (scrapes * SCRAPE) as f64
}

pub fn is_right_to_a_hundredth() -> Result<()> {
    let there = Replica::there;
    let cases = [
        ("one replica", vec![there(ALL, ALL)]),
        ("two replicas", vec![there(ALL, ALL), there(ALL, 0..0)]),
        ("a roll at half past", vec![there(0..HALF, ALL), there(HALF..ALL.end, HALF + 1..ALL.end)]),
        ("a roll with a minute of nobody", vec![there(0..HALF, ALL), there(HALF + 2..ALL.end, HALF + 3..ALL.end)]),
        (
            "three rolls",
            vec![
                there(0..40, ALL),
                there(40..HALF, 41..ALL.end),
                there(HALF..120, 81..ALL.end),
                there(120..ALL.end, ALL),
            ],
        ),
        ("a failover", vec![there(0..HALF, ALL), there(ALL, HALF + 1..ALL.end)]),
        ("a restart", vec![there(ALL, ALL).restarted(HALF)]),
        (
            "three minutes lost twice",
            vec![there(ALL, ALL).without(|at| (60..66).contains(&at) || (100..106).contains(&at))],
        ),
        ("every third scrape lost", vec![there(ALL, ALL).without(|at| at % 3 == 0)]),
        ("a scrape each minute", vec![there(ALL, ALL).without(|at| at % 2 == 1)]),
    ];
    let tests: Vec<Value> = cases.into_iter().map(|(name, replicas)| case(name, &replicas)).collect();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tests.json");
    fs::write(&file, json!({"rule_files": [], "evaluation_interval": "30s", "tests": tests}).to_string())?;
    promtool(&["test", "rules"], &file)
}

/// One replica of the workload is there for the whole hour.
fn case(name: &str, replicas: &[Replica]) -> Value {
    let series: Vec<Value> = replicas
        .iter()
        .enumerate()
        .flat_map(|(number, replica)| {
            let of = format!(r#"job="catamaran",instance="{number}""#);
            let counter = format!(
                r#"replica_seconds_total{{namespace="shop",workload="web",class="small",hull="container",{of}}}"#
            );
            [
                json!({"series": counter, "values": values(&replica.counter)}),
                json!({"series": format!("catamaran_leader{{{of}}}"), "values": values(&replica.leads)}),
            ]
        })
        .collect();
    let hour = INCREASE.replace("$counter", "replica_seconds_total");
    let right = format!("abs(({hour}) - 3600) < bool 36");
    let labels = r#"{namespace="shop",workload="web",class="small",hull="container"}"#;
    json!({
        "name": name, "interval": format!("{SCRAPE}s"), "input_series": series,
        "promql_expr_test": [{"expr": right, "eval_time": "70m", "exp_samples": [{"labels": labels, "value": 1}]}],
    })
}

fn values(samples: &[Option<f64>]) -> String {
    let samples = samples.iter().map(|sample| sample.map_or_else(|| "_".to_owned(), |value| value.to_string()));
    samples.collect::<Vec<_>>().join(" ")
}
