//! What the node is: its cgroups, its clocks, and how many files may be open.

use std::{fmt, io, path::Path, time::Duration};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// Which cgroups a root has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// cgroup v2, the unified hierarchy: what the agent needs.
    V2,
    /// cgroup v1, or both ("hybrid"), which has the controllers under v1.
    V1,
    /// Neither.
    None,
}

impl Cgroups {
    /// What is at a root such as /sys/fs/cgroup.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        let has = |name: &str| root.join(name).exists();
        // Every cgroup of v2 has it, so a folder below the root is good as well.
        if has("cgroup.controllers") {
            Self::V2
        } else if has("cpu") || has("memory") || has("unified") || has("cgroup.procs") {
            Self::V1
        } else {
            Self::None
        }
    }
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "cgroup v2",
            Self::V1 => {
                "this node has cgroup v1: usage is not sampled and quotas are not enforced here; \
                 boot it with systemd.unified_cgroup_hierarchy=1"
            }
            Self::None => "there is no cgroup tree at --cgroup-root: mount the node's /sys/fs/cgroup there",
        })
    }
}

/// CLOCK_MONOTONIC: never steps, and goes on from one process to the next until the node boots again.
#[must_use]
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The wall clock, in microseconds since 1970.
#[must_use]
pub fn unix_usec() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Names the life of [`monotonic`].
///
/// # Errors
/// When /proc does not say it.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_ascii().to_owned())
}

/// Lets this process open as many files as it may: eleven are kept for a pod with one container, and runtimes start
/// processes with a soft limit of 1024. The limit then.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // No capability is needed up to the hard limit.
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}
