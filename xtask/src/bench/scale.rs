//! Many workloads whose usage arrives every second under a constant load: how long a decision takes, and what it costs.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    control_plane::ControlPlane,
    installation::{Installation, Operator, operator_user},
    usage::{
        simulator::{Settings, UsageSimulator},
        world::Load,
    },
    workloads::condition,
};
use futures::{TryStreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    reconcile::in_haste,
    report::{Figures, Outcome},
};

const NAMESPACE: &str = "scale";
const SIZES: [u32; 3] = [1_000, 5_000, 10_000];
/// Of workloads that are created, and of workloads that the operator reconciles at once.
const CONCURRENCY: usize = 16;
/// How long all workloads may take to be ready, for each thousand that is new.
const THOUSAND_READY_WITHIN: Duration = Duration::from_secs(240);
/// After all are ready: until every window of usage is full.
const SETTLE: Duration = Duration::from_secs(20);
/// For how long is measured.
const MEASURED: Duration = Duration::from_secs(60);
/// The metric of the operator that is read.
const LATENCY: &str = "catamaran_scaling_sample_to_decision_seconds";
/// The unit of /proc/PID/stat: USER_HZ is 100 wherever Linux shows it (proc(5)).
const TICKS: f64 = 100.0;

/// What was seen with so many workloads.
struct Measured {
    decisions: f64,
    p50: f64,
    p99: f64,
    cores: f64,
    mebibytes: f64,
    writes: usize,
}

pub(super) async fn run() -> Result<Outcome> {
    let control_plane = in_haste(ControlPlane::builder().kwok_nodes(24)).start().await?;
    let client = control_plane.client();
    control_plane.create_namespace(NAMESPACE).await?;
    let values = json!({"workers": CONCURRENCY, "usage": {"enabled": true, "certificateSecret": "usage-tls"}});
    let installation = Installation::install(&control_plane, values).await?;
    let mut operator = installation.start(&control_plane, "operator").await?;
    let usage = operator.usage().context("the operator takes usage")?;
    let mut settings = Settings::new(vec![usage.address], &usage.server_name, usage.ca_file.clone());
    // 80 % of what is asked for, as the target says: nothing to do. Usage is in whole thousandths of a core, rounded up.
    settings.load = Load { base_cores: 0.08, noise: 0.05, ..Load::default() };
    let _simulator = UsageSimulator::start(client.clone(), settings)?;
    let (mut figures, mut linear) = (Figures::new(), Figures::new());
    let (mut before, mut first) = (0, None);
    let mut ratio = f64::NAN;
    for size in SIZES {
        create(&client, before..size).await?;
        ready(&client, size, THOUSAND_READY_WITHIN * (size - before).div_ceil(1_000)).await?;
        before = size;
        sleep(SETTLE).await;
        let seen = measure(&control_plane, &mut operator).await?;
        eprintln!(
            "scale, {size} workloads: {:.0} decisions a second, sample to decision p50 {:.0} ms, p99 {:.0} ms; {:.2} cores, {:.0} MiB, {} writes",
            seen.decisions,
            seen.p50 * 1e3,
            seen.p99 * 1e3,
            seen.cores,
            seen.mebibytes,
            seen.writes
        );
        let names = names(size);
        figures.extend(names.into_iter().zip([
            seen.cores,
            seen.decisions,
            seen.mebibytes,
            seen.p50,
            seen.p99,
            f64::from(u32::try_from(seen.writes)?),
        ]));
        let first_cores = *first.get_or_insert(seen.cores);
        let grown = first_cores * f64::from(size) / f64::from(SIZES[0]);
        linear.insert(names[0], grown);
        ratio = grown / seen.cores;
    }
    Ok(Outcome {
        name: "scale",
        figures,
        peer: "linear from 1,000",
        peer_figures: linear,
        ratio,
        ratio_of: "cores with 10,000 workloads",
    })
}

/// The names of the figures of one size.
fn names(size: u32) -> [&'static str; 6] {
    match size {
        1_000 => [
            "1000 cores",
            "1000 decisionsPerSecond",
            "1000 memoryMiB",
            "1000 p50Seconds",
            "1000 p99Seconds",
            "1000 writes",
        ],
        5_000 => [
            "5000 cores",
            "5000 decisionsPerSecond",
            "5000 memoryMiB",
            "5000 p50Seconds",
            "5000 p99Seconds",
            "5000 writes",
        ],
        _ => [
            "10000 cores",
            "10000 decisionsPerSecond",
            "10000 memoryMiB",
            "10000 p50Seconds",
            "10000 p99Seconds",
            "10000 writes",
        ],
    }
}

async fn create(client: &Client, numbers: std::ops::Range<u32>) -> Result<()> {
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), NAMESPACE);
    let workloads = &workloads;
    stream::iter(numbers.map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(CONCURRENCY, |number| async move {
            let workload: ElasticWorkload = serde_json::from_value(json!({
                "apiVersion": "catamaran.dev/v1alpha1",
                "kind": "ElasticWorkload",
                "metadata": {"name": format!("workload-{number:05}")},
                "spec": {
                    "container": {"image": "registry.test/web:1"},
                    "quota": {"cpu": {"request": "100m"}},
                    "scaling": {"minReplicas": 1, "maxReplicas": 4, "metrics": [
                        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
                    ]},
                },
            }))?;
            workloads.create(&PostParams::default(), &workload).await?;
            Ok(())
        })
        .await
        .context("creating the workloads")
}

/// Waits until so many workloads are ready.
async fn ready(client: &Client, size: u32, within: Duration) -> Result<()> {
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), NAMESPACE);
    let (started, mut told) = (Instant::now(), Instant::now());
    loop {
        let mut count = 0;
        let mut page = ListParams::default().limit(1_000);
        loop {
            let list = workloads.list(&page).await?;
            count +=
                list.iter().filter(|one| condition(one, "Ready").is_some_and(|ready| ready.status == "True")).count();
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        if count >= size as usize {
            eprintln!("scale: {size} workloads are ready after {:.0} s", started.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(started.elapsed() < within, "only {count} of {size} workloads are ready after {within:?}");
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            eprintln!("  {count} of {size} are ready");
        }
        sleep(Duration::from_secs(2)).await;
    }
}

async fn measure(control_plane: &ControlPlane, operator: &mut Operator) -> Result<Measured> {
    let pid = operator.process().id();
    let (from, started) = (Timestamp::now(), Instant::now());
    let (ticks, buckets) = (ticks(pid)?, Buckets::of(&operator.metrics().await?)?);
    sleep(MEASURED).await;
    let (used, seen) = (ticks_since(pid, ticks)?, Buckets::of(&operator.metrics().await?)?.since(&buckets));
    let seconds = started.elapsed().as_secs_f64();
    let writes = control_plane.audit().writes_between(from, Timestamp::now())?;
    let writes = writes.iter().filter(|write| write.user == operator_user() && write.resource != "leases").count();
    Ok(Measured {
        decisions: seen.count() / seconds,
        p50: seen.quantile(0.5),
        p99: seen.quantile(0.99),
        cores: used / TICKS / seconds,
        #[allow(clippy::cast_precision_loss)]
        mebibytes: operator.resident_memory()? as f64 / f64::from(1 << 20),
        writes,
    })
}

/// User and system time so far.
fn ticks(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in brackets, may have spaces.
    let (_, fields) = stat.rsplit_once(')').context("the kernel tells the program's name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |index: usize| anyhow::Ok(fields.get(index).context("utime and stime")?.parse::<f64>()?);
    Ok(field(11)? + field(12)?)
}

fn ticks_since(pid: u32, before: f64) -> Result<f64> {
    Ok(ticks(pid)? - before)
}

/// A histogram: upper bounds and how many values are below each.
#[derive(Debug, PartialEq)]
struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    fn of(text: &str) -> Result<Self> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(LATENCY)?.strip_prefix("_bucket{le=\""));
        let buckets = lines.map(|line| {
            let (bound, rest) = line.split_once('"').context("a bucket has a bound")?;
            let count = rest.rsplit(' ').next().context("a bucket has a count")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
            Ok((bound, count.parse()?))
        });
        let buckets = buckets.collect::<Result<Vec<_>>>()?;
        ensure!(!buckets.is_empty(), "the operator does not tell {LATENCY}");
        Ok(Self(buckets))
    }

    fn since(self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|((bound, now), (_, then))| (*bound, now - then)).collect())
    }

    fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// As Prometheus' `histogram_quantile` has it: in the bucket of the rank, values are taken to be spread evenly.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count();
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= rank && *count > below {
                return if bound.is_infinite() {
                    lower
                } else {
                    lower + (bound - lower) * (rank - below) / (count - below)
                };
            }
            (lower, below) = (*bound, *count);
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::{Buckets, LATENCY};

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let line = |bound: &str, count: u32| format!("{LATENCY}_bucket{{le=\"{bound}\"}} {count}\n");
        let text = [line("0.1", 50), line("0.2", 90), line("1.0", 100), line("+Inf", 100)].concat();
        let buckets = Buckets::of(&text).expect("a histogram");
        assert!((buckets.quantile(0.5) - 0.1).abs() < 1e-9);
        assert!((buckets.quantile(0.95) - 0.6).abs() < 1e-9);
        let later = Buckets::of(&text).expect("a histogram").since(&buckets);
        assert!(later.count() == 0.0 && later.quantile(0.5).is_nan());
        assert!(Buckets::of("").is_err());
    }
}
