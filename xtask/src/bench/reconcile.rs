//! 1,000 workloads from nothing to all replica sets and statuses, against a client that only writes the same objects.
//!
//! What is timed is the operator, so the ReplicaSet controller is left out there: on a small machine 5,000 pods would
//! take all of it. How much memory the operator takes is seen on a second control plane that has everything.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    audit::{Write, count},
    control_plane::ControlPlane,
    installation::{Installation, Operator, SYSTEM, operator_user},
    tools::Tool,
    wait::eventually,
    workloads::condition,
};
use futures::{TryStreamExt, stream};
use k8s_openapi::api::{apps::v1::ReplicaSet, coordination::v1::Lease};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use super::{
    peer::{Progress, Sample, write_the_same},
    report::{Figures, Outcome, median},
    settle::settled,
};

/// How many workloads there are.
pub(super) const WORKLOADS: u32 = 1000;
/// How many of them are created at once; the operator works on as many at once, and so does the peer.
pub(super) const CONCURRENCY: usize = 16;
const REPLICAS: u32 = 5;
const ROUNDS: u32 = 5;
/// How long all pods of all workloads may take to run.
const RUNNING_WITHIN: Duration = Duration::from_secs(900);

pub(super) async fn run() -> Result<Outcome> {
    let Timed { ours, theirs, writes } = timed().await?;
    let mut figures = Figures::from([("seconds", median(ours.iter().copied())), ("writesPerWorkload", writes)]);
    figures.extend(resident().await?);
    Ok(Outcome {
        name: "reconcile",
        // Of each round for itself: a machine that is slower for a while slows both down.
        ratio: median(ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours)),
        ratio_of: "seconds",
        figures,
        peer: "client that only writes",
        peer_figures: Figures::from([("seconds", median(theirs)), ("writesPerWorkload", writes.round())]),
    })
}

/// Seconds of both sides by round, and the operator's writes for one workload.
struct Timed {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    writes: f64,
}

/// Both sides on one control plane, in turns; who goes first changes.
async fn timed() -> Result<Timed> {
    let control_plane = ControlPlane::builder()
        .argument(Tool::KubeControllerManager, "--controllers=*,-replicaset-controller")
        .start()
        .await?;
    let installation = Installation::install(&control_plane, json!({"workers": CONCURRENCY})).await?;
    // Not counted: the first run finds the server cold, and shows the peer what to write.
    let (_, made, sample) = ours(&control_plane, &installation, "warm-up").await?;
    let (mut our_times, mut their_times, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let (namespace, peers_namespace) = (format!("ours-{round}"), format!("peer-{round}"));
        if round % 2 == 0 {
            their_times.push(theirs(&control_plane, &peers_namespace, &sample, made).await?);
        }
        let (seconds, made, _) = ours(&control_plane, &installation, &namespace).await?;
        our_times.push(seconds);
        writes.push(per_workload(made));
        if round % 2 == 1 {
            their_times.push(theirs(&control_plane, &peers_namespace, &sample, made).await?);
        }
        let (ours, theirs) = (our_times[our_times.len() - 1], their_times[their_times.len() - 1]);
        eprintln!("reconcile {round} of {ROUNDS}: catamaran {ours:.2} s, {} writes; peer {theirs:.2} s", made);
    }
    Ok(Timed { ours: our_times, theirs: their_times, writes: median(writes) })
}

/// One run of the operator: seconds, writes, and what it wrote for one workload.
async fn ours(control_plane: &ControlPlane, installation: &Installation, name: &str) -> Result<(f64, usize, Sample)> {
    let client = control_plane.client();
    control_plane.create_namespace(name).await?;
    let mut operator = leading(control_plane, installation, &format!("operator-{name}")).await?;
    let progress = Progress::start(&client, name).await?;
    let mark = control_plane.audit().mark()?;
    create(&client, name, |_| async { Ok(()) }).await?;
    let seconds = progress.finished().await?;
    let writes = settled(&control_plane.audit(), mark, |write| by_operator(write, name)).await?;
    operator.process().terminate(Duration::from_secs(30)).await?;
    let sample = Sample::take(&client, name, &count(&writes)).await?;
    clear(&client, name).await?;
    Ok((seconds, writes.len(), sample))
}

/// One run of the peer, which has to make about as many writes as the operator made: seconds.
async fn theirs(control_plane: &ControlPlane, namespace: &str, sample: &Sample, made: usize) -> Result<f64> {
    let client = control_plane.client();
    control_plane.create_namespace(namespace).await?;
    // As the operator does: its own connections, with the rights and the token of the same account.
    let config = control_plane.config_for_service_account(SYSTEM, "catamaran").await?;
    let progress = Progress::start(&client, namespace).await?;
    let mark = control_plane.audit().mark()?;
    write_the_same(&client, &Client::try_from(config)?, namespace, sample).await?;
    let seconds = progress.finished().await?;
    let writes = settled(&control_plane.audit(), mark, |write| by_operator(write, namespace)).await?;
    ensure!(writes.len().abs_diff(made) <= made / 10, "the peer made {} writes in place of {made}", writes.len());
    clear(&client, namespace).await?;
    Ok(seconds)
}

/// The memory of an operator that runs 1,000 workloads of 5 pods each.
async fn resident() -> Result<Figures> {
    // Only the operator is of interest: the rest may go as fast as it can.
    let control_plane = ControlPlane::builder().in_haste().kwok_nodes(12).start().await?;
    let installation = Installation::install(&control_plane, json!({"workers": CONCURRENCY})).await?;
    let mut operator = leading(&control_plane, &installation, "operator").await?;
    let namespace = "memory";
    control_plane.create_namespace(namespace).await?;
    let mark = control_plane.audit().mark()?;
    eprintln!("reconcile: {WORKLOADS} workloads of {REPLICAS} pods each, for the operator's memory ...");
    let client = control_plane.client();
    create(&client, namespace, |_| async { Ok(()) }).await?;
    let workloads: Api<ElasticWorkload> = Api::namespaced(client, namespace);
    let mut told = std::time::Instant::now();
    let deadline = told + RUNNING_WITHIN;
    loop {
        let ready = workloads.list(&ListParams::default()).await?.iter().filter(|workload| is_ready(workload)).count();
        if ready == usize::try_from(WORKLOADS)? {
            break;
        }
        ensure!(std::time::Instant::now() < deadline, "only {ready} workloads are ready after {RUNNING_WITHIN:?}");
        if told.elapsed() > Duration::from_secs(15) {
            told = std::time::Instant::now();
            eprintln!("  {ready} are ready");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let writes = settled(&control_plane.audit(), mark, |write| by_operator(write, namespace)).await?;
    let status = fs::read_to_string(format!("/proc/{}/status", operator.process().id()))?;
    Ok(Figures::from([
        ("operatorMemoryMiB", memory(&status, "VmRSS:")?),
        ("operatorPeakMemoryMiB", memory(&status, "VmHWM:")?),
        ("writesPerWorkloadUntilReady", per_workload(writes.len())),
    ]))
}

/// An operator that holds the lease.
async fn leading(control_plane: &ControlPlane, installation: &Installation, name: &str) -> Result<Operator> {
    let operator = installation.start(control_plane, name).await?;
    let leases: Api<Lease> = Api::namespaced(control_plane.client(), SYSTEM);
    eventually(&format!("{name} leads"), Duration::from_secs(30), || async {
        let leases = leases.list(&ListParams::default()).await?;
        let holder = leases.iter().find_map(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
        Ok(holder.is_some_and(|holder| holder.starts_with(name)).then_some(()))
    })
    .await?;
    Ok(operator)
}

/// The name of a workload.
fn name(number: u32) -> String {
    format!("workload-{number:04}")
}

/// Creates the workloads, and does what comes `then` with each.
pub(super) async fn create<Then, Done>(client: &Client, namespace: &str, then: Then) -> Result<()>
where
    Then: Fn(ElasticWorkload) -> Done,
    Done: Future<Output = Result<()>>,
{
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), namespace);
    let (workloads, then) = (&workloads, &then);
    stream::iter((0..WORKLOADS).map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(CONCURRENCY, |number| async move {
            let workload: ElasticWorkload = serde_json::from_value(json!({
                "apiVersion": "catamaran.dev/v1alpha1",
                "kind": "ElasticWorkload",
                "metadata": {"name": name(number)},
                "spec": {
                    "replicas": REPLICAS,
                    "container": {"image": "registry.test/web:1"},
                    "quota": {"cpu": {"request": "10m"}, "memory": {"request": "16Mi"}},
                },
            }))?;
            then(workloads.create(&PostParams::default(), &workload).await?).await
        })
        .await
        .context("creating the workloads")
}

/// Deletes all, so that each run begins with the same server.
async fn clear(client: &Client, namespace: &str) -> Result<()> {
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), namespace);
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    workloads.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    sets.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    eventually("the end of everything", Duration::from_secs(120), || async {
        let empty = workloads.list_metadata(&ListParams::default()).await?.items.is_empty()
            && sets.list_metadata(&ListParams::default()).await?.items.is_empty();
        Ok(empty.then_some(()))
    })
    .await
}

fn by_operator(write: &Write, namespace: &str) -> bool {
    write.user == operator_user() && write.namespace == namespace
}

fn is_ready(workload: &ElasticWorkload) -> bool {
    condition(workload, "Ready").is_some_and(|ready| ready.status == "True")
}

fn per_workload(writes: usize) -> f64 {
    f64::from(u32::try_from(writes).unwrap_or(u32::MAX)) / f64::from(WORKLOADS)
}

/// A line of /proc/PID/status, in MiB.
fn memory(status: &str, name: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
