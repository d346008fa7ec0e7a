//! `simulate`: the same decisions as the operator's, on a model of replicas.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A workload that follows CPU, and falls back.
const WEB: &str = "
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: web}
spec:
  container: {image: 'docker.io/library/nginx:1.29'}
  quota: {cpu: {request: 500m, limit: 1}, memory: {request: 1Gi}}
  replicas: 2
  scaling:
    minReplicas: 2
    maxReplicas: 6
    metrics:
      - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
    behavior: {scaleDown: {stabilizationWindowSeconds: 60}}
    fallback: {afterSeconds: 60, replicas: 4}
";

/// Two cores for a minute, more than two replicas can do; then nothing can be measured; then calm.
const STORY: &str = "time,demand\n0,0.5\n60,3.05\n180,\n300,0.4\n600,0.4\n";

struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        Self(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kubectl-catamaran"))
            .arg("simulate")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .expect("the binary starts")
    }

    fn print(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.print(&[arguments, &["-o", "json"]].concat())).expect("JSON")
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn replicas(simulated: &Value) -> Vec<i64> {
    let steps = simulated["workloads"][0]["steps"].as_array().expect("steps");
    steps.iter().map(|step| step["replicas"].as_i64().expect("a count")).collect()
}

#[test]
fn a_short_story_is_told_as_a_table() {
    let folder = Folder::new(&[("web.yaml", WEB), ("trace.csv", STORY)]);
    let prices = ["--price-core-hour", "0.04", "--price-gib-hour", "0.005", "--currency", "EUR"];
    let table = folder.print(&[&["-f", "web.yaml", "-t", "trace.csv", "--startup", "25s"], &prices[..]].concat());
    insta::assert_snapshot!(table);
}

#[test]
fn two_manifests_are_compared() {
    let other = WEB.replace("averageUtilization: 60", "averageUtilization: 90");
    let folder = Folder::new(&[("web.yaml", WEB), ("other.yaml", &other), ("trace.csv", STORY)]);
    let table = folder.print(&["-f", "web.yaml", "--compare", "other.yaml", "-t", "trace.csv"]);
    let (summary, _) = table.split_once("\n\nweb.yaml:").expect("named by file: both are called web");
    insta::assert_snapshot!(summary);
    assert!(table.contains("\nother.yaml: decisions"), "{table}");
    let csv = folder.print(&["-f", "web.yaml", "--compare", "other.yaml", "-t", "trace.csv", "-o", "csv"]);
    assert_eq!(csv.lines().filter(|line| line.starts_with("web.yaml,")).count(), 90);
    assert_eq!(csv.lines().filter(|line| line.starts_with("other.yaml,")).count(), 90);
}

#[test]
fn the_same_input_gives_the_same_output() {
    let folder = Folder::new(&[("web.yaml", WEB), ("trace.csv", STORY)]);
    for form in ["table", "csv", "json"] {
        let once = || {
            let printed = folder.print(&["-f", "web.yaml", "-t", "trace.csv", "-o", form, "--svg", "plot.svg"]);
            (printed, fs::read_to_string(folder.0.path().join("plot.svg")).expect("a plot"))
        };
        let (first, second) = (once(), once());
        assert!(first == second, "{form}");
        assert!(first.1.starts_with("<svg") && first.1.contains("unserved demand"), "{}", first.1);
    }
}

/// Rows that fit no step, replicas that get ready within one, and more demand than they can serve.
#[test]
fn all_demand_is_either_served_or_not() {
    let trace = "time,demand\n0,0.4\n7.5,3.2\n31,0.9\n33.25,7\n61,\n90,1\n127,0.1\n";
    // The last row holds as long as the one before it.
    let demand = 7.5 * 0.4 + 23.5 * 3.2 + 2.25 * 0.9 + 27.75 * 7.0 + 29.0 * 7.0 + 37.0 * 1.0 + 37.0 * 0.1;
    let folder = Folder::new(&[("web.yaml", WEB), ("trace.csv", trace)]);
    for step in [1.0, 10.0, 60.0_f64] {
        let (text, startup) = (format!("{step}s"), "3s");
        let result = folder.json(&["-f", "web.yaml", "-t", "trace.csv", "--step", &text, "--startup", startup]);
        let (mut all, mut short, mut hours, mut at) = (0.0, 0.0, 0.0, 0.0_f64);
        for row in result["workloads"][0]["steps"].as_array().expect("steps") {
            let number = |name: &str| row[name].as_f64().expect("a number");
            let length = step.min(164.0 - at);
            assert!((number("served") + number("unserved") - number("demand")).abs() < 1e-9, "{row}");
            assert!(number("served") <= number("capacity") + 1e-9, "{row}");
            all += number("demand") * length;
            short += number("unserved") * length;
            hours += number("replicas") * length / 3600.0;
            at += length;
        }
        let summary = &result["workloads"][0]["summary"];
        let figure = |name: &str| summary[name].as_f64().expect("a figure");
        assert!((all - demand).abs() < 1e-6, "{all} {demand}");
        assert!((figure("demandCoreHours") * 3600.0 - demand).abs() < 1e-6, "{summary}");
        assert!(short > 0.0 && (figure("unservedCoreSeconds") - short).abs() < 1e-6, "{summary}");
        assert!((figure("replicaHours") - hours).abs() < 1e-9, "{summary}");
        assert!((figure("cpuCoreHours") - hours * 0.5).abs() < 1e-9, "{summary}");
    }
}

#[test]
fn a_longer_start_leaves_more_demand_unserved() {
    let folder = Folder::new(&[("web.yaml", WEB), ("trace.csv", STORY)]);
    let unserved = |startup: &str| {
        let result = folder.json(&["-f", "web.yaml", "-t", "trace.csv", "--startup", startup]);
        result["workloads"][0]["summary"]["unservedCoreSeconds"].as_f64().expect("a figure")
    };
    // Three replicas serve 3 of 3.05 cores, two serve 2: from the decision on, a second of start costs a core-second or
    // so.
    let (none, long) = (unserved("0s"), unserved("40s"));
    assert!(none > 0.0 && long > none + 30.0, "{none} {long}");
}

#[test]
fn a_queue_wakes_workers_and_lets_them_go() {
    let manifest = fs::read_to_string(docs().join("examples/scaled-queue.yaml")).expect("the example");
    let trace = "time,demand,metric:queue_messages_ready\n0,0,0\n600,0.5,4\n900,2,90\n1200,0,0\n1800,0,0\n";
    let folder = Folder::new(&[("queue.yaml", &manifest), ("trace.csv", trace)]);
    let counts = replicas(&folder.json(&["-f", "queue.yaml", "-t", "trace.csv"]));
    // After the window of the start it sleeps, at 4 messages too; 90 ask for three, and two minutes after the last they
    // go.
    assert_eq!((counts[0], counts[59], counts[61], counts[89]), (1, 0, 0, 0));
    assert_eq!((counts[90], counts[95], counts[120], counts[130], counts[131]), (3, 3, 3, 3, 0), "{counts:?}");
}

#[test]
fn a_metric_of_pods_is_shared_by_those_that_are_ready() {
    let pods =
        "      - {type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: 100}}}";
    let manifest = WEB.replace(WEB.lines().find(|line| line.contains("type: Resource")).expect("the metric"), pods);
    let trace = "time,demand,metric:requests\n0,0,200\n300,0,450\n600,0,450\n";
    let folder = Folder::new(&[("web.yaml", &manifest), ("trace.csv", trace)]);
    let counts = replicas(&folder.json(&["-f", "web.yaml", "-t", "trace.csv"]));
    assert_eq!((counts[29], counts[89]), (2, 5), "{counts:?}");
}

/// A target of type Value multiplies the count, once for each answer of its source: those come every 15 s, so every
/// 20 s with steps of 10 s.
#[test]
fn a_target_of_type_value_multiplies_once_for_each_answer() {
    let external = "      - {type: External, external: {metric: {name: latency}, target: {type: Value, value: 1}}}";
    let manifest = WEB.replace(WEB.lines().find(|line| line.contains("type: Resource")).expect("the metric"), external);
    let folder = Folder::new(&[("web.yaml", &manifest), ("t.csv", "time,demand,metrics[0]\n0,0,1.5\n120,0,1.5\n")]);
    let result = folder.json(&["-f", "web.yaml", "-t", "t.csv"]);
    let changes = result["workloads"][0]["changes"].as_array().expect("changes");
    let told: Vec<_> = changes.iter().map(|change| (change["time"].as_str(), change["to"].as_i64())).collect();
    assert_eq!(told, [(Some("0"), Some(3)), (Some("20"), Some(5)), (Some("40"), Some(6))]);
}

#[test]
fn without_auto_the_count_is_that_of_the_spec() {
    let folder = Folder::new(&[
        ("recommend.yaml", &WEB.replace("minReplicas: 2", "mode: Recommend\n    minReplicas: 2")),
        ("off.yaml", &WEB.replace("minReplicas: 2", "mode: 'Off'\n    minReplicas: 2")),
        ("trace.csv", STORY),
    ]);
    for (file, wanted, note) in
        [("recommend.yaml", 6, "web: mode Recommend; the count stays"), ("off.yaml", 2, "web: no scaling (none")]
    {
        let result = folder.json(&["-f", file, "-t", "trace.csv"]);
        assert!(replicas(&result).iter().all(|count| *count == 2), "{file}");
        let steps = result["workloads"][0]["steps"].as_array().expect("steps");
        assert_eq!(steps.iter().filter_map(|step| step["wanted"].as_i64()).max(), Some(wanted), "{file}");
        assert!(result["workloads"][0]["notes"][0].as_str().is_some_and(|told| told.starts_with(note)), "{file}");
        assert_eq!(result["workloads"][0]["summary"]["changes"], 0, "{file}");
    }
}

#[test]
fn the_quota_may_come_from_a_class() {
    let class = "
---
apiVersion: catamaran.dev/v1alpha1
kind: WorkloadClass
metadata: {name: small}
spec: {quota: {cpu: {request: 250m, limit: 500m}}}
";
    let quota = WEB.lines().find(|line| line.contains("quota:")).expect("the quota");
    let manifest = format!("{}{class}", WEB.replace(quota, "  className: small"));
    let folder = Folder::new(&[("web.yaml", &manifest), ("trace.csv", STORY)]);
    let result = folder.json(&["-f", "web.yaml", "-t", "trace.csv"]);
    assert_eq!(result["workloads"][0]["steps"][0]["capacity"], 1.0);
    assert_eq!(result["workloads"][0]["summary"]["memoryGibHours"], Value::Null);
}

#[test]
fn lines_may_end_as_on_windows_and_schedules_know_unix_times() {
    let manifest = fs::read_to_string(docs().join("examples/scaled-web.yaml")).expect("the example");
    // Monday, 6:55 UTC: office hours begin at 8 in Paris.
    let trace = "\u{feff}time, demand\r\n1772434500, 100m\r\n1772435100, 100m\r\n";
    let folder = Folder::new(&[("web.yaml", &manifest), ("trace.csv", trace)]);
    let result = folder.json(&["-f", "web.yaml", "-t", "trace.csv"]);
    assert_eq!(result["workloads"][0]["changes"][0]["time"], "2026-03-02T07:00:00Z");
    assert_eq!(result["workloads"][0]["changes"][0]["to"], 4);
}

/// What a manifest, a trace and arguments are refused with.
fn assert_refused(manifest: &str, trace: &str, arguments: &[&str], message: &str) {
    let folder = Folder::new(&[("web.yaml", manifest), ("trace.csv", trace)]);
    let output = folder.run(&[&["-f", "web.yaml", "-t", "trace.csv"], arguments].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.starts_with("error: ") && told.matches(message).count() == 1, "{message}\n{told}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{message}");
}

#[test]
fn a_trace_that_cannot_be_used_is_told() {
    for (trace, message) in [
        (
            "demand\n1\n",
            "trace.csv: line 1: there is no column time; the first line names the columns, for example time,demand",
        ),
        ("time,load\n0,1\n", "trace.csv: line 1: there is no column demand;"),
        (
            "time,demand,queue\n",
            "trace.csv: line 1, column 3: \"queue\" is no name of a column; write time, demand, memory,",
        ),
        ("time,demand,demand\n", "trace.csv: line 1, column 3: demand is there twice"),
        ("time,demand\n0,1\n10,much\n", "trace.csv: line 3, column demand: \"much\" is not a quantity;"),
        ("time,demand\n0,1\n10,-1\n", "trace.csv: line 3, column demand: must not be below 0"),
        ("time,demand\n0,1\n10,9E\n", "trace.csv: line 3, column demand: 9E is too large"),
        ("time,demand\n0,\n10,1\n", "trace.csv: line 2, column demand: is empty; the first row has to have a demand"),
        (
            "time,demand\n0,1\n10,1\n10,1\n",
            "trace.csv: line 4, column time: 10 is not after the row before; sort the rows by time",
        ),
        ("time,demand\nnoon,1\n", "trace.csv: line 2, column time: \"noon\" is no time; write seconds, or a date like"),
        (
            "time,demand\n0,1\n2026-03-02T12:00:00Z,1\n",
            "trace.csv: line 3, column time: \"2026-03-02T12:00:00Z\" is no number of seconds",
        ),
        ("time,demand\n0,1\n10\n", "trace.csv: line 3: 1 values, and 2 columns"),
        ("time,demand\n0,1\n", "trace.csv: there have to be at least two rows"),
        ("", "trace.csv: line 1: there is no column time;"),
        (
            "time,demand\n0,1\n99999999999,1\n",
            "the trace has 19999999999 steps of 10 s, and 4000000 is the most; raise --step",
        ),
    ] {
        assert_refused(WEB, trace, &[], message);
    }
}

#[test]
fn arguments_that_cannot_be_used_are_told() {
    for (arguments, message) in [
        (["--step", "100ms"], "--step has to be between 1s and 1h"),
        (["--startup", "2h"], "--startup has to be between 0s and 1h"),
    ] {
        assert_refused(WEB, STORY, &arguments, message);
    }
    let message = "web.yaml: web: --price-gib-hour needs a memory request of every container";
    assert_refused(&WEB.replace("memory: {request: 1Gi}", ""), STORY, &["--price-gib-hour", "1"], message);
}

/// A text of the manifest, what it is replaced by, and what is said.
const MANIFESTS: &[(&str, &str, &str)] = &[
    ("maxReplicas", "maxReplica", "web.yaml: document 1: ElasticWorkload: spec.scaling: missing field `maxReplicas`"),
    ("maxReplicas", "mode: Off\n    maxReplicas", "ElasticWorkload: spec.scaling.mode: invalid type: boolean `false`"),
    ("fallback:", "fallbacks:", "web.yaml: document 1: ElasticWorkload: unknown field spec.scaling.fallbacks;"),
    (
        "ElasticWorkload",
        "Deployment",
        "web.yaml: there is no ElasticWorkload of catamaran.dev; write one ElasticWorkload",
    ),
    ("minReplicas: 2", "minReplicas: 7", "web.yaml: web: spec.scaling: minReplicas 7 and maxReplicas 6:"),
    ("  replicas: 2", "  state: Stopped", "web.yaml: web: spec.state: is Stopped: nothing runs"),
    ("  replicas: 2", "  className: small", "web.yaml: web: spec.className: WorkloadClass \"small\" does not exist;"),
    (
        "cpu: {request: 500m, limit: 1}, ",
        "",
        "web.yaml: spec.scaling.metrics[0] (cpu): a target of type Utilization needs a cpu request",
    ),
    (
        CPU,
        "name: memory, target: {type: Utilization, averageUtilization: 60}",
        "(memory): the trace has no values for it; add a column memory: what each replica uses",
    ),
    (
        METRIC,
        "type: Throttling, throttling: {target: {averageUtilization: 5}}",
        "(cpu throttling): the trace has no values for it; add a column throttling: percent",
    ),
    (
        METRIC,
        "type: Pressure, pressure: {resource: io, target: {averageUtilization: 5}}",
        "(io pressure (some)): the trace has no values for it; add a column pressure:io:some:",
    ),
    (
        METRIC,
        "type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: 5}}",
        "(queue): the trace has no values for it; add a column metric:queue: the value",
    ),
    (
        METRIC,
        "type: Pods, pods: {metric: {name: rate}, target: {type: AverageValue, averageValue: 5}}",
        "add a column metric:rate: the sum over all replicas",
    ),
    (
        METRIC,
        "type: ContainerResource, containerResource: {name: cpu, container: proxy, target: {type: AverageValue, averageValue: 5}}",
        "(cpu of container proxy): a trace tells what container main uses, and nothing of others",
    ),
    (
        "fallback:",
        "schedules: [{name: day, start: 0 8 * * *, end: 0 18 * * *, minReplicas: 3}]\n    fallback:",
        "spec.scaling.schedules: they need to know the date, and the trace has seconds; say with --start",
    ),
];

const METRIC: &str = "type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}";
const CPU: &str = "name: cpu, target: {type: Utilization, averageUtilization: 60}";

#[test]
fn a_manifest_that_cannot_be_used_is_told() {
    for (text, replacement, message) in MANIFESTS {
        assert!(WEB.contains(text), "{text}");
        assert_refused(&WEB.replacen(text, replacement, 1), STORY, &[], message);
    }
}

#[test]
fn a_column_that_nothing_uses_is_told() {
    let folder = Folder::new(&[("web.yaml", WEB), ("trace.csv", "time,demand,metric:queu\n0,1,1\n10,1,1\n")]);
    let output = folder.run(&["-f", "web.yaml", "-t", "trace.csv"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "warning: trace.csv: no metric uses column metric:queu\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = Folder::new(&[("web.yaml", WEB), ("trace.csv", "time,demand\n0,1\n36000,1\n")]);
    for form in ["csv", "json"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-catamaran"))
            .args(["simulate", "-f", "web.yaml", "-t", "trace.csv", "-o", form])
            .current_dir(folder.0.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success() && output.stderr.is_empty(), "{form}: {output:?}");
    }
}

/// Seven days at steps of 10 s: how long that takes is measured by hand.
#[test]
fn a_week_goes_through_and_its_plot_stays_small() {
    let mut trace = "time,demand\n".to_owned();
    for row in 0..60_480_u32 {
        // A saw over each day, and one over each five minutes.
        let demand = f64::from(row % 8640) / 8640.0 * 3.0 + f64::from(row % 30) / 30.0;
        trace.push_str(&format!("{},{demand:.3}\n", row * 10));
    }
    let folder = Folder::new(&[("web.yaml", WEB), ("trace.csv", &trace)]);
    let csv = folder.print(&["-f", "web.yaml", "-t", "trace.csv", "-o", "csv", "--svg", "plot.svg"]);
    assert_eq!(csv.lines().count(), 60_481);
    assert!(csv.lines().last().is_some_and(|line| line.starts_with("web,604790,")), "{:?}", csv.lines().last());
    let plot = fs::metadata(folder.0.path().join("plot.svg")).expect("a plot").len();
    assert!(plot < 500_000, "{plot} bytes");
}

/// The command of docs/simulate.md.
#[test]
fn the_plot_of_the_documentation_is_what_its_command_draws() {
    let folder = Folder::new(&[]);
    let (manifest, trace) = (docs().join("examples/scaled-web.yaml"), docs().join("examples/trace.csv"));
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    folder.print(&["-f", &path(&manifest), "-t", &path(&trace), "--startup", "30s", "--svg", "plot.svg"]);
    let drawn = fs::read_to_string(folder.0.path().join("plot.svg")).expect("a plot");
    let shown = fs::read_to_string(docs().join("images/simulate.svg")).expect("docs/images/simulate.svg");
    assert!(drawn == shown, "docs/images/simulate.svg is another; run the command of docs/simulate.md");
}
