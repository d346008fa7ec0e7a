//! What the kubelet makes of limits.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    node::{BUSYBOX, LOAD},
    wait::eventually,
    workloads::restarts,
};
use serde_json::json;

use crate::ground::Ground;

/// How long a container may take to be at its limit in some periods of 100 ms: a busy host leaves a guest few of them.
const STOPPED_WITHIN: Duration = Duration::from_secs(120);

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
    let before = Counted::read(ground, &cgroup).await?;
    count_until(ground, &cgroup, before, "is stopped at its limit", |counted| counted.stopped > 0).await?;
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

/// What the kernel counted of a cgroup at its CPU limit.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// Periods in which it wanted to run.
    periods: u64,
    /// Those of them in which it was stopped at its limit.
    stopped: u64,
    /// CPU time.
    used: Duration,
}

impl Counted {
    async fn read(ground: &Ground, cgroup: &str) -> Result<Self> {
        let stat = ground.read(cgroup, "cpu.stat").await?;
        let count = |name: &str| -> Result<u64> {
            let count = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(count.with_context(|| name.to_owned())?.trim().parse()?)
        };
        Ok(Self {
            periods: count("nr_periods")?,
            stopped: count("nr_throttled")?,
            used: Duration::from_micros(count("usage_usec")?),
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            periods: self.periods - before.periods,
            stopped: self.stopped - before.stopped,
            used: self.used.saturating_sub(before.used),
        }
    }

    /// Whether it had its quota in each period and no more, by the kernel's own count of periods: how many of them
    /// there are in a second, and how much of one the host leaves to the guest, is of no interest. What was handed out
    /// to a CPU and not used in a period (a slice of 5 ms) may be used in the next. A CPU that the host stopped for a
    /// while charges all of it at once to whoever ran: a debt, which the next periods pay, so ask again later.
    fn kept_to(self, quota: Duration) -> bool {
        let periods = u32::try_from(self.periods).unwrap_or(u32::MAX);
        self.used <= quota * (periods + 2) + Duration::from_millis(5)
    }

    /// Whether it had all of its quota in each period in which it was stopped. What it owed before (see
    /// [`Self::kept_to`]) weighs less and less.
    fn had(self, quota: Duration) -> bool {
        let stopped = u32::try_from(self.stopped).unwrap_or(u32::MAX);
        self.used >= quota.mul_f64(0.9) * stopped.saturating_sub(1)
    }
}

/// Waits until that is true of what is counted from `before` on.
async fn count_until(
    ground: &Ground,
    cgroup: &str,
    before: Counted,
    what: &str,
    is: impl Fn(Counted) -> bool,
) -> Result<()> {
    eventually(&format!("{cgroup} {what}"), STOPPED_WITHIN, || async {
        let counted = Counted::read(ground, cgroup).await?.since(before);
        ensure!(is(counted), "{counted:?}");
        Ok(Some(()))
    })
    .await
}

pub(crate) async fn the_limit_is_what_a_container_has_in_each_period(ground: &Ground) -> Result<()> {
    let resources = json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "200m"}});
    let pod = ground.run("share", json!({"image": LOAD, "args": ["cpu"], "resources": resources})).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    ensure!(ground.read(&cgroup, "cpu.max").await? == "20000 100000");
    let before = Counted::read(ground, &cgroup).await?;
    let quota = Duration::from_millis(20);
    count_until(ground, &cgroup, before, "is stopped 50 times with its quota and no more", |counted| {
        counted.stopped >= 50 && counted.kept_to(quota) && counted.had(quota)
    })
    .await?;
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
pub(crate) async fn a_neighbour_at_its_limit_keeps_nobody_from_its_own(ground: &Ground) -> Result<()> {
    let load = |threads: &str, request: &str, limit: &str| {
        let resources = json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        json!({"image": LOAD, "args": ["cpu", "--threads", threads], "resources": resources})
    };
    let quiet = ground.run("quiet", load("1", "500m", "500m")).await?;
    let noisy = ground.run("noisy", load("4", "100m", "800m")).await?;
    let (quiet, noisy) = (ground.node.cgroup_of(&quiet, "main").await?, ground.node.cgroup_of(&noisy, "main").await?);
    let (before, neighbour) = (Counted::read(ground, &quiet).await?, Counted::read(ground, &noisy).await?);
    // Beside one that would take all four times over, it goes on to have all that it may have.
    let (own, theirs) = (Duration::from_millis(50), Duration::from_millis(80));
    count_until(ground, &quiet, before, "is stopped 20 times with its quota and no more", |counted| {
        counted.stopped >= 20 && counted.kept_to(own) && counted.had(own)
    })
    .await?;
    count_until(ground, &noisy, neighbour, "is stopped and has its quota and no more", |counted| {
        counted.stopped > 0 && counted.kept_to(theirs)
    })
    .await?;
    ground.delete("noisy").await?;
    ground.delete("quiet").await
}
