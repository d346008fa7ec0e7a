//! Many workloads whose usage arrives every second under a constant load, many replicas in one, and many of both: how
//! long a decision takes, what it costs, and whether the lease is renewed in time.

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
};
use clap::ValueEnum;
use futures::{TryStreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::report::{Figures, Outcome};

const NAMESPACE: &str = "scale";
/// Of workloads that are created, and of workloads that the operator reconciles at once.
const CONCURRENCY: usize = 16;
/// How long replicas may take to be available, for each thousand that is new. What is there by then is measured, and
/// told.
const THOUSAND_WITHIN: Duration = Duration::from_secs(120);
/// After that: until every window of usage is full.
const SETTLE: Duration = Duration::from_secs(20);
/// For how long is measured.
const MEASURED: Duration = Duration::from_secs(60);
/// Pods of one simulated node, which holds 500: in a rollout there are more.
const PODS_OF_A_NODE: u32 = 400;
/// The metric of the operator that is read.
const LATENCY: &str = "catamaran_scaling_sample_to_decision_seconds";
/// The unit of /proc/PID/stat: USER_HZ is 100 wherever Linux shows it (proc(5)).
const TICKS: f64 = 100.0;

/// A size at which is measured. Each has a control plane of its own, but for those that grow into each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Row {
    /// 1,000, 5,000 and 10,000 workloads of one replica
    Workloads,
    /// One workload of 20,000 replicas
    Replicas,
    /// 10,000 workloads of 10 replicas
    Both,
}

/// So many workloads of so many replicas.
#[derive(Clone, Copy)]
struct Size {
    workloads: u32,
    replicas: u32,
    /// Of what is seen with it.
    names: [&'static str; 8],
}

/// Names of figures that begin with the size.
macro_rules! size {
    ($workloads:literal x $replicas:literal as $name:literal) => {
        Size {
            workloads: $workloads,
            replicas: $replicas,
            names: [
                concat!($name, " cores"),
                concat!($name, " decisionsPerSecond"),
                concat!($name, " memoryMiB"),
                concat!($name, " p50Seconds"),
                concat!($name, " p99Seconds"),
                concat!($name, " writes"),
                concat!($name, " longestLeaseGapSeconds"),
                concat!($name, " replicas"),
            ],
        }
    };
}

impl Row {
    fn sizes(self) -> Vec<Size> {
        match self {
            Self::Workloads => {
                vec![size!(1_000 x 1 as "1000"), size!(5_000 x 1 as "5000"), size!(10_000 x 1 as "10000")]
            }
            Self::Replicas => vec![size!(1 x 20_000 as "1x20000")],
            Self::Both => vec![size!(10_000 x 10 as "10000x10")],
        }
    }
}

impl Size {
    fn all(self) -> u32 {
        self.workloads * self.replicas
    }
}

/// What was seen at one size.
struct Measured {
    decisions: f64,
    p50: f64,
    p99: f64,
    cores: f64,
    mebibytes: f64,
    writes: usize,
    /// The longest time from one renewal of the lease to the next, in seconds.
    lease: f64,
}

pub(super) async fn run(rows: &[Row]) -> Result<Outcome> {
    let (mut figures, mut linear) = (Figures::new(), Figures::new());
    let (mut first, mut ratio) = (None, f64::NAN);
    let rows = if rows.is_empty() { Row::value_variants() } else { rows };
    for row in rows {
        for (size, cores) in run_row(*row, &mut figures).await? {
            if *row != Row::Workloads {
                continue;
            }
            let (of, first_cores) = *first.get_or_insert((size.workloads, cores));
            let grown = first_cores * f64::from(size.workloads) / f64::from(of);
            linear.insert(size.names[0], grown);
            ratio = grown / cores;
        }
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

/// Measures one row, from small to large. Gives the cores at each size.
async fn run_row(row: Row, figures: &mut Figures) -> Result<Vec<(Size, f64)>> {
    let sizes = row.sizes();
    let pods = sizes.iter().map(|size| size.all()).max().unwrap_or_default();
    let nodes = pods.div_ceil(PODS_OF_A_NODE).max(24);
    let control_plane = ControlPlane::builder().in_haste().kwok_nodes(nodes).start().await?;
    let client = control_plane.client();
    control_plane.create_namespace(NAMESPACE).await?;
    let values = json!({"workers": CONCURRENCY, "usage": {"enabled": true, "certificateSecret": "usage-tls"}});
    let installation = Installation::install(&control_plane, values).await?;
    let mut operator = installation.start(&control_plane, "operator").await?;
    let usage = operator.usage().context("the operator takes usage")?;
    let mut settings = Settings::new(vec![usage.address], &usage.server_name, usage.ca_file.clone());
    // 80 % of what is asked for, as the target says: nothing to do. Usage is in whole thousandths of a core, rounded
    // up.
    settings.load = Load { base_cores: 0.08, noise: 0.05, ..Load::default() };
    let _simulator = UsageSimulator::start(client.clone(), settings)?;
    let (mut before, mut cores) = (0, Vec::new());
    for size in sizes {
        create(&client, before..size.workloads, size.replicas, nodes).await?;
        let new = (size.workloads - before) * size.replicas;
        let replicas = available(&client, size.all(), THOUSAND_WITHIN * new.div_ceil(1_000)).await?;
        before = size.workloads;
        sleep(SETTLE).await;
        let seen = measure(&control_plane, &mut operator).await?;
        eprintln!(
            "scale, {} workloads, {replicas} of {} replicas: {:.0} decisions a second, sample to decision p50 {:.0} ms, \
             p99 {:.0} ms; {:.2} cores, {:.0} MiB, {} writes; at most {:.1} s between two renewals of the lease",
            size.workloads,
            size.all(),
            seen.decisions,
            seen.p50 * 1e3,
            seen.p99 * 1e3,
            seen.cores,
            seen.mebibytes,
            seen.writes,
            seen.lease,
        );
        figures.extend(size.names.into_iter().zip([
            seen.cores,
            seen.decisions,
            seen.mebibytes,
            seen.p50,
            seen.p99,
            f64::from(u32::try_from(seen.writes)?),
            seen.lease,
            f64::from(replicas),
        ]));
        cores.push((size, seen.cores));
    }
    Ok(cores)
}

/// Creates workloads. Where each has many replicas they name their node, so that the scheduler is not waited for; one
/// that has all of them would need thousands of pods on a node.
async fn create(client: &Client, numbers: std::ops::Range<u32>, replicas: u32, nodes: u32) -> Result<()> {
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), NAMESPACE);
    let workloads = &workloads;
    stream::iter(numbers.map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(CONCURRENCY, |number| async move {
            let container = json!({"name": "main", "image": "registry.test/web:1"});
            let hull = match replicas {
                2..PODS_OF_A_NODE => json!({"template": {"spec": {
                    "nodeName": format!("node-{}", number % nodes), "containers": [container],
                }}}),
                _ => json!({"image": container["image"]}),
            };
            let workload: ElasticWorkload = serde_json::from_value(json!({
                "apiVersion": "catamaran.dev/v1alpha1",
                "kind": "ElasticWorkload",
                "metadata": {"name": format!("workload-{number:05}")},
                "spec": {
                    "container": hull,
                    "quota": {"cpu": {"request": "100m"}},
                    "scaling": {"minReplicas": replicas, "maxReplicas": replicas + 3, "metrics": [
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

/// Waits until so many replicas are available, but not for longer than that; gives how many are.
async fn available(client: &Client, wanted: u32, within: Duration) -> Result<u32> {
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), NAMESPACE);
    let (started, mut last) = (Instant::now(), Instant::now());
    loop {
        let (mut count, asked) = (0, Instant::now());
        let mut page = ListParams::default().limit(1_000);
        loop {
            let list = workloads.list(&page).await?;
            let of_each = list.iter().filter_map(|one| Some(one.status.as_ref()?.available_replicas));
            count += of_each.map(|replicas| u32::try_from(replicas).unwrap_or_default()).sum::<u32>();
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        let after = started.elapsed();
        if count >= wanted || after > within {
            eprintln!("scale: {count} of {wanted} replicas are available after {:.0} s", after.as_secs_f64());
            return Ok(count);
        }
        if last.elapsed() > Duration::from_secs(30) {
            last = Instant::now();
            eprintln!("  {count} of {wanted} replicas are available, {:.0} s", after.as_secs_f64());
        }
        // A list of many is work for the API server, which has better things to do.
        sleep(Duration::from_secs(2).max(asked.elapsed() * 10)).await;
    }
}

async fn measure(control_plane: &ControlPlane, operator: &mut Operator) -> Result<Measured> {
    let pid = operator.process().id();
    let (from, started) = (Timestamp::now(), Instant::now());
    let (ticks, buckets) = (ticks(pid)?, Buckets::parse(&operator.metrics().await?)?);
    sleep(MEASURED).await;
    let (used, seen) = (ticks_since(pid, ticks)?, Buckets::parse(&operator.metrics().await?)?.since(&buckets));
    let seconds = started.elapsed().as_secs_f64();
    let writes = control_plane.audit().writes_between(from, Timestamp::now())?;
    let (leases, writes): (Vec<_>, Vec<_>) = writes
        .iter()
        .filter(|write| write.user == operator_user() && write.took_effect())
        .partition(|write| write.resource == "leases");
    Ok(Measured {
        decisions: seen.count() / seconds,
        p50: seen.quantile(0.5),
        p99: seen.quantile(0.99),
        cores: used / TICKS / seconds,
        #[allow(clippy::cast_precision_loss)]
        mebibytes: operator.resident_memory()? as f64 / f64::from(1 << 20),
        writes: writes.len(),
        lease: longest_gap(leases.iter().map(|write| write.time).collect()),
    })
}

/// The longest time from one moment to the next, in seconds.
fn longest_gap(mut moments: Vec<Timestamp>) -> f64 {
    moments.sort();
    let gaps = moments.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
    gaps.fold(0.0, f64::max)
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
    fn parse(text: &str) -> Result<Self> {
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
    use jiff::Timestamp;

    use super::{Buckets, LATENCY, longest_gap};

    #[test]
    fn the_longest_gap_is_between_neighbours() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert!((longest_gap(vec![at(9), at(1), at(3)]) - 6.0).abs() < 1e-9);
        assert!(longest_gap(vec![at(9)]).abs() < 1e-9);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let line = |bound: &str, count: u32| format!("{LATENCY}_bucket{{le=\"{bound}\"}} {count}\n");
        let text = [line("0.1", 50), line("0.2", 90), line("1.0", 100), line("+Inf", 100)].concat();
        let buckets = Buckets::parse(&text).expect("a histogram");
        assert!((buckets.quantile(0.5) - 0.1).abs() < 1e-9);
        assert!((buckets.quantile(0.95) - 0.6).abs() < 1e-9);
        let later = Buckets::parse(&text).expect("a histogram").since(&buckets);
        assert!(later.count() == 0.0 && later.quantile(0.5).is_nan());
        assert!(Buckets::parse("").is_err());
    }
}
