//! What usage costs: bytes on the wire and CPU time of the intake. Two processes over loopback, so that the intake's
//! own time is seen.
//!
//! `cargo run --release -p catamaran-operator --example usage_cost -- [NODES] [PODS OF A NODE] [SECONDS]`

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use catamaran_operator::intake::{
    Intake,
    authentication::{Authenticator, Identity, ReviewError},
    hooks::{Observer, Placed, Placement},
    metrics::IntakeMetrics,
    serve,
    settings::{Account, Timing},
    store::{Keep, Reading, UsageStore},
    tls::CertificateFiles,
};
use catamaran_protocol::stream::{
    Counters,
    encode::Encoder,
    identity::{ContainerIdentity, PodIdentity},
    proto::{Pressure, StreamRequest, Throttling, stream_request::Message},
    reporter::{Config, Replicas, Reporter},
    session::Session,
    snapshot::{PodReading, Snapshot},
};
use futures::{FutureExt, future::BoxFuture};
use prometheus_client::registry::Registry;
use prost::Message as _;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const NAME: &str = "usage.test";

/// Stands in for the API server and the stores: the token is the node's name, and every pod is where it is reported.
struct Everybody;

impl Authenticator for Everybody {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>> {
        let username = "system:serviceaccount:system:agent".to_owned();
        std::future::ready(Ok(Identity { username, node: Some(token.to_owned()) })).boxed()
    }
}

impl Placement for Everybody {
    fn check(&self, _: &PodIdentity, _: &str) -> Placed {
        Placed::Here
    }
}

impl Observer for Everybody {
    fn reported(&self, _: &[Arc<PodIdentity>]) {}
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, folder] = arguments.as_slice()
        && mode == "serve"
    {
        return run_intake(Path::new(folder)).await;
    }
    let number = |index: usize, default: u32| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let (nodes, pods, seconds) = (number(0, 100)?, number(1, 100)?, number(2, 20)?);
    println!("{nodes} nodes with {pods} pods of one container each, one report a second");
    let fleet: Vec<_> = (0..nodes).map(|node| identities(node, pods)).collect::<Result<_>>()?;
    codec(&fleet);
    over_loopback(&fleet, u64::from(seconds)).await
}

fn identities(node: u32, pods: u32) -> Result<Vec<Arc<PodIdentity>>> {
    let pod = |pod: u32| {
        // As long as real ones are.
        let id = format!("{node:032x}{pod:032x}");
        let uid = format!("{node:08x}-0000-4000-8000-{pod:012x}");
        let container = ContainerIdentity::new("web", format!("containerd:{id}"))?;
        Ok(Arc::new(PodIdentity::new("team-shop", format!("web-6f7d9c5b8-{node:x}-{pod:x}"), uid, [container])?))
    };
    (0..pods).map(pod).collect()
}

/// A day of use, with throttling and some pressure: the varints have the width that they have in practice.
fn snapshot(pods: &[Arc<PodIdentity>], second: u64) -> Snapshot {
    let uptime = 86_400 + second;
    let readings = pods.iter().zip(0_u64..).map(|(pod, n)| {
        let counters = Counters {
            cpu_usage_usec: uptime * (250_000 + n * 1_009 % 100_000),
            memory_working_set_bytes: (200 << 20) + n * 4_096,
            throttling: Some(Throttling {
                nr_periods: uptime * 10,
                nr_throttled: uptime * (n % 3),
                throttled_usec: uptime * (n % 3) * 20_000,
            }),
            pressure: Some(Pressure {
                cpu_some_usec: uptime * (n % 7) * 1_000,
                cpu_full_usec: uptime * (n % 3) * 1_000,
                memory_some_usec: n % 5 * 900,
                memory_full_usec: n % 5 * 400,
                io_some_usec: uptime * 50,
                io_full_usec: uptime * 40,
            }),
        };
        PodReading::new(pod.clone(), vec![counters])
    });
    let unix_usec = jiff::Timestamp::now().as_microsecond();
    Snapshot { taken: Duration::from_secs(uptime), unix_usec, pods: readings.flatten().collect() }
}

/// Encoding, decoding and the store alone, on one thread.
fn codec(fleet: &[Vec<Arc<PodIdentity>>]) {
    const ROUNDS: u64 = 30;
    let store = UsageStore::new(Keep::default());
    let mut streams: Vec<_> = fleet.iter().map(|_| (Encoder::default(), Session::default())).collect();
    let (mut first_bytes, mut bytes, mut samples) = (0_usize, 0_usize, 0_usize);
    let (mut encoding, mut decoding, mut recording) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for second in 0..ROUNDS {
        for ((pods, (encoder, session)), node) in fleet.iter().zip(&mut streams).zip(0_u32..) {
            let (snapshot, node) = (snapshot(pods, second), Arc::from(format!("node-{node}")));
            let start = busy();
            let report = encoder.encode(&snapshot).report;
            let message = StreamRequest { message: Some(Message::Report(report)) }.encode_to_vec();
            let encoded = busy();
            let request = StreamRequest::decode(message.as_slice()).expect("our own message");
            let accepted = session.accept(request).expect("our own stream");
            let decoded = busy();
            let arrived = Duration::from_secs(second);
            let reading = Reading { node: &node, clock: 1, taken: accepted.taken, arrived };
            for pod in &accepted.readings {
                store.record(&reading, pod, |_| {});
            }
            let recorded = busy();
            if second == 0 {
                first_bytes += message.len();
            } else {
                bytes += message.len();
                samples += accepted.readings.len();
                encoding += encoded - start;
                decoding += decoded - encoded;
                recording += recorded - decoded;
            }
        }
    }
    let samples = samples as f64;
    let per_10_000 = |time: Duration| time.as_secs_f64() * 1e3 * 1e4 / samples;
    println!("first report of a stream: {:.0} bytes a pod", first_bytes as f64 / (store.len() as f64));
    println!("later reports: {:.1} bytes a sample", bytes as f64 / samples);
    let (encode, decode, record) = (per_10_000(encoding), per_10_000(decoding), per_10_000(recording));
    println!(
        "CPU time for 10,000 samples: encode {encode:.2} ms, decode and check {decode:.2} ms, record {record:.2} ms"
    );
    let asked = busy();
    let mut found = 0_u32;
    for pod in fleet.iter().flatten() {
        let usage = store.pod_at(pod.namespace(), pod.name(), Duration::from_secs(ROUNDS));
        found += u32::from(usage.is_some());
    }
    println!(
        "asking the store: {:.0} ns a pod ({found} pods)",
        (busy() - asked).as_secs_f64() * 1e9 / f64::from(found)
    );
}

/// The whole way: reporters here, the intake in another process.
async fn over_loopback(fleet: &[Vec<Arc<PodIdentity>>], seconds: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().context("its output")?).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse().context("the intake's address")?;
    let reporters = fleet.iter().zip(0_u32..).map(|(_, node)| {
        let token_file = folder.path().join(format!("token-{node}"));
        std::fs::write(&token_file, format!("node-{node}"))?;
        Ok(Reporter::start(Config {
            node: format!("node-{node}"),
            boot_id: "boot".to_owned(),
            replicas: Replicas::Addresses(vec![address]),
            server_name: NAME.to_owned(),
            ca_file: folder.path().join("ca.crt"),
            token_file,
        }))
    });
    let reporters: Vec<Reporter> = reporters.collect::<Result<_>>()?;
    // The first seconds are for connecting.
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let (warm, mut before, mut started) = (5, None, Instant::now());
    for second in 0..=warm + seconds {
        ticks.tick().await;
        if second == warm {
            before = Some((cpu_time(child.id())?, acknowledged(&reporters, address)));
            started = Instant::now();
        } else if second == warm + seconds {
            break;
        }
        for (reporter, pods) in reporters.iter().zip(fleet) {
            reporter.report(snapshot(pods, second));
        }
    }
    let (cpu, reports) = before.context("at least one second")?;
    let (used, wall) = (cpu_time(child.id())? - cpu, started.elapsed().as_secs_f64());
    let reports = acknowledged(&reporters, address) - reports;
    let samples = reports as f64 * fleet.first().map_or(0, Vec::len) as f64;
    println!("over TLS and HTTP/2: {reports} reports in {wall:.1} s, {samples:.0} samples");
    println!(
        "CPU time of the intake: {:.2} ms for 10,000 samples, {:.1} % of a core, RSS {} MB",
        used.as_secs_f64() * 1e3 * 1e4 / samples,
        used.as_secs_f64() / wall * 100.0,
        resident_kib(child.id())? / 1024,
    );
    // It ends with its input.
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

fn acknowledged(reporters: &[Reporter], address: SocketAddr) -> u64 {
    reporters.iter().filter_map(|reporter| Some(reporter.status().get(&address)?.acknowledged)).sum()
}

async fn run_intake(folder: &Path) -> Result<()> {
    let files = CertificateFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
    let authority = CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    std::fs::write(folder.join("ca.crt"), authority.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    std::fs::write(&files.certificate, CertificateParams::new([NAME.to_owned()])?.signed_by(&key, &authority)?.pem())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let intake = Intake {
        certificate: files,
        account: Account { namespace: "system".to_owned(), name: "agent".to_owned() },
        max_streams: 5_000,
        timing: Timing::default(),
        authenticator: Arc::new(Everybody),
        placement: Arc::new(Everybody),
        observer: Arc::new(Everybody),
        store: UsageStore::new(Keep::default()),
        metrics: IntakeMetrics::register(&mut Registry::default()),
    };
    let stop = CancellationToken::new();
    // The end of its input is the end of the other process.
    let (token, input) = (stop.clone(), std::io::stdin());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut input.lock(), &mut std::io::sink());
        token.cancel();
    });
    serve(listener, intake, stop).await;
    Ok(())
}

/// The time that this thread has run on a CPU: others on the machine do not count.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// User and system time of a process.
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a command in brackets")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [Some(user), Some(system)] =
        [11, 12].map(|index| fields.get(index).and_then(|field| field.parse::<u64>().ok()))
    else {
        bail!("no times in {stat}");
    };
    // USER_HZ is 100 on every Linux.
    Ok(Duration::from_millis((user + system) * 10))
}

fn resident_kib(pid: u32) -> Result<u64> {
    let mut status = String::new();
    std::fs::File::open(format!("/proc/{pid}/status"))?.read_to_string(&mut status)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
