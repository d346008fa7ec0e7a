//! What sampling costs: 200 pods' files, read at 1 Hz by the sampler and by plain loops over the same files, and the
//! whole agent.
//!
//!     cargo run --release -p catamaran-agent --example sample_cost [-- PODS SECONDS]
//!
//! Each runs in a process of its own. The files are in a temporary folder: what the kernel computes when it is asked
//! for a cgroup's file comes on top for all of them alike, and makes the differences smaller.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use axum::{Router, body::Body, http::Uri};
use catamaran_agent::{
    layout::{ContainerId, Uid},
    node,
    pods::{Container, Pod},
    run,
    sample::Sampler,
    settings::Settings,
};
use catamaran_protocol::stream::encode::Encoder;
use clap::Parser;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

/// Files of a container that are read each second, and what they say.
const CONTAINER: [(&str, &str); 5] = [
    (
        "cpu.stat",
        "usage_usec 5271964\nuser_usec 4102342\nsystem_usec 1169622\ncore_sched.force_idle_usec 0\nnr_periods 120\n\
         nr_throttled 7\nthrottled_usec 350112\nnr_bursts 3\nburst_usec 90000\n",
    ),
    ("memory.current", "73400320\n"),
    ("cpu.pressure", PRESSURE),
    ("memory.pressure", PRESSURE),
    ("io.pressure", PRESSURE),
];
/// The same of a pod.
const POD: [(&str, &str); 4] = [
    ("cpu.stat", CONTAINER[0].1),
    ("memory.current", "73400320\n"),
    ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
    ("io.stat", "8:0 rbytes=1048576 wbytes=4096 rios=256 wios=1 dbytes=0 dios=0\n"),
];
const PRESSURE: &str =
    "some avg10=1.42 avg60=0.31 avg300=0.06 total=1834120\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=99\n";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--child", mode, root, pods, seconds, api] => {
            child(mode, Path::new(root), pods.parse()?, seconds.parse()?, api)
        }
        [pods, seconds] => parent(pods.parse()?, seconds.parse()?),
        [] => parent(200, 10),
        _ => bail!("usage: sample_cost [PODS SECONDS]"),
    }
}

fn parent(pods: usize, seconds: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for pod in 0..pods {
        let own = pod_folder(folder.path(), pod);
        let container = own.join(id(pod));
        fs::create_dir_all(&container)?;
        for (file, text) in POD {
            fs::write(own.join(file), text)?;
        }
        for (file, text) in CONTAINER {
            fs::write(container.join(file), text)?;
        }
        let stat: String = (0..50).map(|line| format!("some_counter_{line} {}\n", line * 1000)).collect();
        fs::write(container.join("memory.stat"), format!("{stat}inactive_file 4096\n"))?;
    }
    fs::write(folder.path().join("cgroup.controllers"), "cpu io memory pids\n")?;
    println!("{pods} pods of one container, {seconds} s at 1 Hz");
    println!("{:<44} {:>14} {:>10}", "", "CPU, us/round", "RSS, KiB");
    let mut cost = Vec::new();
    for (mode, name) in [
        ("keep", "plain loop, files kept open, one pread each"),
        ("open", "plain loop, open, read and close each"),
        ("sampler", "sampler and encoder"),
    ] {
        cost.push(run_child(mode, name, folder.path(), pods, seconds, "")?);
    }
    let [keep, open, sampler] = cost.as_slice() else { bail!("three modes") };
    println!("sampler : kept open = {:.2}, sampler : opened each time = {:.2}", sampler / keep, sampler / open);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let api = runtime.block_on(serve_api(pods))?;
    run_child("agent", "the whole agent, without an operator", folder.path(), pods, seconds, &api)?;
    Ok(())
}

fn run_child(mode: &str, name: &str, root: &Path, pods: usize, seconds: u64, api: &str) -> Result<f64> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--child", mode])
        .arg(root)
        .args([pods.to_string(), seconds.to_string(), api.to_owned()])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(child.stdout)?;
    let (cpu, rss) = text.trim().split_once(' ').context("a child's figures")?;
    let cpu: f64 = cpu.parse()?;
    println!("{name:<44} {cpu:>14.0} {rss:>10}");
    Ok(cpu)
}

fn child(mode: &str, root: &Path, pods: usize, seconds: u64, api: &str) -> Result<()> {
    node::raise_open_files();
    let start = match mode {
        "agent" => whole(root, seconds, api)?,
        "sampler" => {
            let pods: Vec<_> = (0..pods).map(|pod| known(pod).map(Arc::new)).collect::<Result<_>>()?;
            let (mut sampler, mut encoder, nothing) =
                (Sampler::new(root.to_owned()), Encoder::default(), foldhash::HashMap::default());
            rounds(seconds, || {
                let sampled = sampler.sample(&pods, &nothing, node::monotonic(), node::unix_usec());
                let report = encoder.encode(&sampled.snapshot);
                if sampled.errors > 0 || sampled.containers != pods.len() || report.report.samples.is_empty() {
                    bail!("not everything was sampled");
                }
                Ok(())
            })?
        }
        "keep" => {
            let files = paths(root, pods).map(|path| Ok(File::open(path)?)).collect::<Result<Vec<_>>>()?;
            let mut buffer = vec![0; 8192];
            rounds(seconds, || files.iter().try_for_each(|file| Ok(file.read_at(&mut buffer, 0).map(|_| ())?)))?
        }
        "open" => {
            let paths: Vec<_> = paths(root, pods).collect();
            rounds(seconds, || paths.iter().try_for_each(|path| Ok(fs::read(path).map(|_| ())?)))?
        }
        other => bail!("{other} is no mode"),
    };
    let status = fs::read_to_string("/proc/self/status")?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let cpu = cpu().saturating_sub(start).as_micros() / u128::from(seconds.max(1));
    println!("{cpu} {}", rss.trim().trim_end_matches(" kB"));
    Ok(())
}

/// Once a second, after a first round that is not counted; the CPU time at its end.
fn rounds(count: u64, mut round: impl FnMut() -> Result<()>) -> Result<Duration> {
    round()?;
    let (counted, mut due) = (cpu(), Instant::now());
    for _ in 0..count {
        due += Duration::from_secs(1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        round()?;
    }
    Ok(counted)
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The real process, but for its logs; the CPU time once it has settled.
fn whole(root: &Path, seconds: u64, api: &str) -> Result<Duration> {
    let settings = ["x", "--node", "node-1", "--usage-service", "127.0.0.1:9", "--cgroup-root"];
    let settings = Settings::try_parse_from(settings.map(Into::into).into_iter().chain([root.as_os_str().to_owned()]))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = kube::Client::try_from(kube::Config::new(api.parse()?))?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let stop = CancellationToken::new();
        let agent = run::serve(settings, client, listener, stop);
        let measure = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let start = cpu();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            start
        };
        tokio::select! {
            start = measure => Ok(start),
            ended = agent => bail!("the agent ended: {ended:?}"),
        }
    })
}

/// An API server that lists the pods and tells nothing more.
async fn serve_api(pods: usize) -> Result<String> {
    let items: Vec<_> = (0..pods).map(object).collect();
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": items,
    });
    let list = list.to_string();
    let router = Router::new().fallback(move |uri: Uri| {
        let watched = uri.query().is_some_and(|query| query.contains("watch=true"));
        let body = if watched {
            Body::from_stream(stream::pending::<Result<String, std::io::Error>>().boxed())
        } else {
            Body::from(list.clone())
        };
        std::future::ready(body)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}

fn object(pod: usize) -> serde_json::Value {
    // What a real pod has beside what the agent keeps.
    let padding = "x".repeat(8 * 1024);
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": format!("pod-{pod}"), "uid": uid(pod), "annotations": {"padding": padding},
        },
        "spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "1"}}}]},
        "status": {"containerStatuses": [
            {"name": "main", "containerID": format!("containerd://{}", id(pod)), "state": {"running": {}}},
        ]},
    })
}

fn known(pod: usize) -> Result<Pod> {
    let container = Container {
        name: "main".into(),
        id: ContainerId::from_status(&format!("containerd://{}", id(pod))).context("an id")?,
        cpu_limit_millicores: Some(1000),
    };
    Ok(Pod {
        namespace: "shop".into(),
        name: format!("pod-{pod}").into(),
        uid: Uid::new(&uid(pod)).context("a uid")?,
        terminating: false,
        containers: vec![container],
        annotation: None,
    })
}

fn paths(root: &Path, pods: usize) -> impl Iterator<Item = PathBuf> {
    (0..pods).flat_map(move |pod| {
        let own = pod_folder(root, pod);
        let container = own.join(id(pod));
        let of_pod = POD.map(|(file, _)| own.join(file));
        of_pod.into_iter().chain(CONTAINER.map(|(file, _)| container.join(file)))
    })
}

fn pod_folder(root: &Path, pod: usize) -> PathBuf {
    root.join(format!("kubepods/burstable/pod{}", uid(pod)))
}

fn uid(pod: usize) -> String {
    format!("3f1c9a52-0d3e-4b8a-9a3e-{pod:012}")
}

fn id(pod: usize) -> String {
    format!("{pod:064}")
}
