//! Alerts over series that are made up, by promtool.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use catamaran_e2e::tools::{Tool, Tools};
use serde_json::{Value, json};

use crate::chart::Chart;

/// Series in promtool's notation: `a+bxn` is n more values, each b more than the one before; one a minute. `$` stands
/// for the labels that the scrape gives.
type Series = &'static [(&'static str, &'static str)];

/// What fires, or does not, at some time.
struct Case {
    alert: &'static str,
    series: Series,
    quiet_at: &'static str,
    fires_at: Option<&'static str>,
}

const HEALTHY: Series = &[
    ("up{$}", "1x180"),
    ("catamaran_leader{$}", "1x180"),
    (r#"catamaran_leader{$,pod="standby"}"#, "0x180"),
    ("catamaran_queue_depth{$}", "0 5 0 2x177"),
    ("catamaran_reconcile_duration_seconds_count{$}", "0+30x180"),
    (r#"catamaran_reconcile_errors_total{$,class="conflict"}"#, "0+5x180"),
    (r#"catamaran_reconcile_errors_total{$,class="transient"}"#, "3x180"),
    (r#"catamaran_workloads{$,hull="container",state="Ready"}"#, "20x180"),
    (r#"catamaran_scaling_decisions_total{$,outcome="unchanged",limit="none"}"#, "0+900x180"),
    (r#"catamaran_scaling_decisions_total{$,outcome="unchanged",limit="maxReplicas"}"#, "0+100x180"),
    (r#"catamaran_scaling_decisions_total{$,outcome="held",limit="missingMetrics"}"#, "0+10x180"),
    (r#"catamaran_scaling_sample_to_decision_seconds_bucket{$,le="1.0"}"#, "0+999x180"),
    (r#"catamaran_scaling_sample_to_decision_seconds_bucket{$,le="2.5"}"#, "0+1000x180"),
    (r#"catamaran_scaling_sample_to_decision_seconds_bucket{$,le="+Inf"}"#, "0+1000x180"),
    ("catamaran_usage_streams{$}", "3x180"),
    (r#"catamaran_usage_age_seconds_bucket{$,le="5.0"}"#, "0+99x180"),
    (r#"catamaran_usage_age_seconds_count{$}"#, "0+100x180"),
    (r#"catamaran_usage_refused_streams_total{$,reason="Token"}"#, "7x180"),
];

const CASES: &[Case] = &[
    Case { alert: "CatamaranAbsent", series: &[("up{$}", "0x20")], quiet_at: "4m", fires_at: Some("6m") },
    Case {
        alert: "CatamaranAbsent",
        series: &[(r#"up{namespace="elsewhere",job="catamaran-metrics"}"#, "1x20")],
        quiet_at: "4m",
        fires_at: Some("6m"),
    },
    Case {
        alert: "CatamaranNoLeader",
        series: &[("catamaran_leader{$}", "1x10 0x20"), (r#"catamaran_leader{$,pod="b"}"#, "0x30")],
        quiet_at: "12m",
        fires_at: Some("15m"),
    },
    Case {
        alert: "CatamaranNoLeader",
        series: &[("catamaran_leader{$}", "1x30"), (r#"catamaran_leader{$,pod="b"}"#, "1x30")],
        quiet_at: "2m",
        fires_at: Some("4m"),
    },
    Case {
        alert: "CatamaranQueueStuck",
        series: &[
            ("catamaran_queue_depth{$}", "0x20 3x40"),
            ("catamaran_reconcile_duration_seconds_count{$}", "0+5x20 100x40"),
        ],
        quiet_at: "25m",
        fires_at: Some("35m"),
    },
    Case {
        alert: "CatamaranReconcileErrors",
        series: &[(r#"catamaran_reconcile_errors_total{$,class="transient"}"#, "0+1x60")],
        quiet_at: "14m",
        fires_at: Some("20m"),
    },
    Case {
        alert: "CatamaranWorkloadStalled",
        series: &[(r#"catamaran_workloads{$,hull="virtualMachine",state="Stalled"}"#, "1x60")],
        quiet_at: "14m",
        fires_at: Some("16m"),
    },
    Case {
        alert: "CatamaranScalingWithoutMetrics",
        series: &[
            (r#"catamaran_scaling_decisions_total{$,outcome="unchanged",limit="none"}"#, "0+60x60"),
            (r#"catamaran_scaling_decisions_total{$,outcome="unchanged",limit="fallback"}"#, "0+10x60"),
        ],
        quiet_at: "14m",
        fires_at: Some("20m"),
    },
    Case {
        alert: "CatamaranScalingWithoutMetrics",
        series: &[
            (r#"catamaran_scaling_decisions_total{$,outcome="idle",limit="none"}"#, "0+900x60"),
            (r#"catamaran_scaling_decisions_total{$,outcome="held",limit="missingMetrics"}"#, "0+10x60"),
        ],
        quiet_at: "14m",
        fires_at: Some("20m"),
    },
    Case {
        alert: "CatamaranScalingAtMax",
        series: &[
            (r#"catamaran_scaling_decisions_total{$,outcome="unchanged",limit="none"}"#, "0+40x180"),
            (r#"catamaran_scaling_decisions_total{$,outcome="unchanged",limit="maxReplicas"}"#, "0+60x180"),
        ],
        quiet_at: "55m",
        fires_at: Some("65m"),
    },
    Case {
        alert: "CatamaranScalingSlow",
        series: &[
            (r#"catamaran_scaling_sample_to_decision_seconds_bucket{$,le="2.5"}"#, "0+90x60"),
            (r#"catamaran_scaling_sample_to_decision_seconds_bucket{$,le="5.0"}"#, "0+100x60"),
            (r#"catamaran_scaling_sample_to_decision_seconds_bucket{$,le="+Inf"}"#, "0+100x60"),
        ],
        quiet_at: "14m",
        fires_at: Some("20m"),
    },
    Case {
        alert: "CatamaranUsageLost",
        series: &[(r#"catamaran_usage_streams{$,pod="a"}"#, "0x60"), (r#"catamaran_usage_streams{$,pod="b"}"#, "3x60")],
        quiet_at: "9m",
        fires_at: Some("11m"),
    },
    Case {
        alert: "CatamaranUsageStale",
        series: &[
            (r#"catamaran_usage_age_seconds_bucket{$,le="5.0"}"#, "0+80x60"),
            ("catamaran_usage_age_seconds_count{$}", "0+100x60"),
        ],
        quiet_at: "9m",
        fires_at: Some("15m"),
    },
    Case {
        alert: "CatamaranIntakeRefusesAgents",
        series: &[(r#"catamaran_usage_refused_streams_total{$,reason="Token"}"#, "0+1x60")],
        quiet_at: "14m",
        fires_at: Some("20m"),
    },
    // A queue that is never empty, and is worked on.
    Case {
        alert: "CatamaranQueueStuck",
        series: &[("catamaran_queue_depth{$}", "50x60"), ("catamaran_reconcile_duration_seconds_count{$}", "0+1x60")],
        quiet_at: "40m",
        fires_at: None,
    },
];

/// promtool's own check, with its lints.
pub fn check(rules: &Value) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.json");
    fs::write(&file, rules.to_string())?;
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &file)
}

/// Plays all cases.
pub fn test(chart: &Chart) -> Result<()> {
    for alert in chart.alerts()?.keys() {
        let fires = CASES.iter().any(|case| case.alert == alert && case.fires_at.is_some());
        ensure!(fires, "no case lets {alert} fire");
    }
    let healthy = ["10m", "1h", "2h", "3h"].map(|at| firing("", at, false));
    let mut tests = vec![played("healthy", HEALTHY, healthy.to_vec())];
    tests.extend(CASES.iter().map(|case| {
        let fires = case.fires_at.map(|at| firing(case.alert, at, true));
        let checks = [firing(case.alert, case.quiet_at, false)].into_iter().chain(fires).collect();
        played(case.alert, case.series, checks)
    }));
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("rules.json"), chart.groups()?.to_string())?;
    let file = folder.path().join("tests.json");
    fs::write(&file, json!({"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests}).to_string())?;
    promtool(&["test", "rules"], &file)
}

fn played(name: &str, series: Series, checks: Vec<Value>) -> Value {
    let labels = r#"namespace="catamaran-system",job="catamaran-metrics""#;
    let series: Vec<Value> = series
        .iter()
        .map(|(series, values)| json!({"series": series.replace('$', labels), "values": values}))
        .collect();
    json!({"name": name, "interval": "1m", "input_series": series, "promql_expr_test": checks})
}

/// Whether an alert fires at that time; of any, without a name.
fn firing(alert: &str, at: &str, fires: bool) -> Value {
    let name = if alert.is_empty() { String::new() } else { format!(r#",alertname="{alert}""#) };
    let expression = format!(r#"group by (alertname) (ALERTS{{alertstate="firing"{name}}})"#);
    let samples: Vec<Value> =
        fires.then(|| json!({"labels": format!(r#"{{alertname="{alert}"}}"#), "value": 1})).into_iter().collect();
    json!({"expr": expression, "eval_time": at, "exp_samples": samples})
}

pub fn promtool(arguments: &[&str], file: &Path) -> Result<()> {
    let tools = Tools::prepare(&[Tool::Promtool])?;
    let output = Command::new(tools.path(Tool::Promtool)?).args(arguments).arg(file).output()?;
    let told = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&told));
    Ok(())
}
