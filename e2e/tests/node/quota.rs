//! What the kubelet makes of limits.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    node::{BUSYBOX, LOAD},
    wait::eventually,
    workloads::restarts,
};
use serde_json::json;
use tokio::time::sleep;

use crate::ground::Ground;

pub(crate) async fn limits_are_in_the_cgroup(ground: &Ground) -> Result<()> {
    let resources = json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let container = json!({"image": LOAD, "args": ["cpu", "--stay"], "resources": resources});
    let pod = ground.run("limited", container).await?;
    for cgroup in [ground.node.cgroup_of_pod(&pod).await?, ground.node.cgroup_of(&pod, "main").await?] {
        ensure!(ground.read(&cgroup, "cpu.max").await? == "20000 100000", "{cgroup}");
        ensure!(ground.read(&cgroup, "memory.max").await? == (64 << 20).to_string(), "{cgroup}");
    }
    // The kernel holds it to that: periods go by in which it had to wait.
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    eventually("the container is throttled", Duration::from_secs(30), || async {
        let (_, stopped) = periods(ground, &cgroup).await?;
        Ok((stopped > 0).then_some(()))
    })
    .await?;
    ground.delete("limited").await
}

pub(crate) async fn a_resize_changes_the_cgroup_in_place(ground: &Ground) -> Result<()> {
    let resources = json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let pod = ground.run("resized", json!({"image": LOAD, "resources": resources})).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    let to =
        json!({"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "300m", "memory": "96Mi"}}}]}});
    ground.kubectl(&["patch", "pod", "resized", "--subresource", "resize", "--patch", &to.to_string()]).await?;
    eventually("the cgroup has the new limits", Duration::from_secs(60), || async {
        let found = (ground.read(&cgroup, "cpu.max").await?, ground.read(&cgroup, "memory.max").await?);
        Ok((found == ("30000 100000".to_owned(), (96 << 20).to_string())).then_some(()))
    })
    .await?;
    let pod = ground.pods().get("resized").await?;
    ensure!(restarts(&pod) == 0 && ground.node.cgroup_of(&pod, "main").await? == cgroup);
    ground.delete("resized").await
}

/// CPU time and the time, both in seconds, read by one command.
async fn reading(ground: &Ground, cgroup: &str) -> Result<(f64, f64)> {
    let text = ground.node.shell(&format!("cat '{cgroup}/cpu.stat' /proc/uptime")).await?;
    let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("usage_usec")?;
    let uptime = text.lines().last().and_then(|line| line.split(' ').next()).context("uptime")?;
    Ok((used.trim().parse::<f64>()? / 1e6, uptime.parse()?))
}

/// How many CPUs a cgroup uses, over 10 s.
async fn cpus(ground: &Ground, cgroup: &str) -> Result<f64> {
    let before = reading(ground, cgroup).await?;
    // The time over which is measured.
    sleep(Duration::from_secs(10)).await;
    let after = reading(ground, cgroup).await?;
    Ok((after.0 - before.0) / (after.1 - before.1))
}

/// Periods so far in which a cgroup wanted to run, and those of them in which it was stopped at its limit.
async fn periods(ground: &Ground, cgroup: &str) -> Result<(u64, u64)> {
    let stat = ground.read(cgroup, "cpu.stat").await?;
    let count = |name: &str| -> Result<u64> {
        let count = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(count.with_context(|| name.to_owned())?.parse()?)
    };
    Ok((count("nr_periods")?, count("nr_throttled")?))
}

pub(crate) async fn the_cpu_share_is_the_limit(ground: &Ground) -> Result<()> {
    let resources = json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "200m"}});
    let pod = ground.run("share", json!({"image": LOAD, "args": ["cpu"], "resources": resources})).await?;
    let used = cpus(ground, &ground.node.cgroup_of(&pod, "main").await?).await?;
    println!("a limit of 0.2 CPUs gave {used:.4}");
    ensure!((used / 0.2 - 1.0).abs() < 0.05, "{used}");
    ground.delete("share").await
}

pub(crate) async fn containers_are_isolated(ground: &Ground) -> Result<()> {
    let hold = json!({"image": BUSYBOX, "command": ["sh", "-c", "trap exit TERM; sleep 100000 & wait"]});
    let pod = ground.run("isolated", hold).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    let process = ground.read(&cgroup, "cgroup.procs").await?;
    let process = process.lines().next().context("a process")?.to_owned();
    for namespace in ["pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let of = |process: String| async move {
            ground.node.shell(&format!("readlink /proc/{process}/ns/{namespace}")).await
        };
        let (inside, outside) = (of(process.clone()).await?, of("self".to_owned()).await?);
        ensure!(inside.starts_with(namespace) && inside != outside, "{namespace}: {inside} {outside}");
    }
    // The same from within: it sees itself as the first process, at the root of all cgroups, and nothing of the node.
    let inside = async |command: &str| ground.kubectl(&["exec", "isolated", "--", "sh", "-c", command]).await;
    ensure!(inside("cat /proc/self/cgroup").await? == "0::/\n");
    ensure!(inside("cat /proc/1/comm").await? == "sh\n");
    let pids = inside("ls -d /proc/[0-9]* | wc -l").await?;
    ensure!(pids.trim().parse::<u32>()? < 8, "{pids} processes are seen");
    ensure!(inside("ls /sys/fs/cgroup").await?.lines().all(|line| !line.contains("kubepods")));
    ensure!(inside("cat /sys/fs/cgroup/cgroup.procs | wc -l").await?.trim() != "0", "it sees its own cgroup");
    let refused =
        inside("echo 100 > /sys/fs/cgroup/pids.max 2>&1").await.err().context("limits are not its own to set")?;
    ensure!(refused.to_string().contains("ended with"), "{refused}");
    ensure!(inside("ls /data /seed 2>/dev/null || true").await?.is_empty(), "the node's files are not there");
    ground.delete("isolated").await
}

/// Both together ask for all that the node has.
pub(crate) async fn a_neighbour_at_its_limit_slows_nobody(ground: &Ground) -> Result<()> {
    let load = |threads: &str, request: &str, limit: &str| {
        let resources = json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        json!({"image": LOAD, "args": ["cpu", "--threads", threads], "resources": resources})
    };
    let quiet = ground.run("quiet", load("1", "500m", "500m")).await?;
    let cgroup = ground.node.cgroup_of(&quiet, "main").await?;
    let alone = cpus(ground, &cgroup).await?;
    let noisy = ground.run("noisy", load("4", "100m", "800m")).await?;
    let noisy = ground.node.cgroup_of(&noisy, "main").await?;
    let before = periods(ground, &noisy).await?;
    let (beside, neighbour) = tokio::try_join!(cpus(ground, &cgroup), cpus(ground, &noisy))?;
    let after = periods(ground, &noisy).await?;
    let (all, stopped) = (after.0 - before.0, after.1 - before.1);
    println!("alone {alone:.3} CPUs, beside a neighbour that takes {neighbour:.3}: {beside:.3}");
    ensure!(beside > alone * 0.9, "{alone} {beside}");
    // That it is at its limit the kernel knows: on a busy machine it may not get all of it in each period.
    ensure!(stopped * 2 > all && neighbour < 0.8 * 1.1, "stopped in {stopped} of {all} periods: {neighbour}");
    ground.delete("noisy").await?;
    ground.delete("quiet").await
}
