//! Condition OutOfMemory: processes of replicas were killed lately for want of memory, and what to do about it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    facts::{Facts, OomKill},
    goal::Goal,
    quantity::from_bytes,
    status::kept_condition,
};

/// The condition's type.
pub const OUT_OF_MEMORY: &str = "OutOfMemory";

/// For how long a kill is told.
const TOLD_FOR: SignedDuration = SignedDuration::from_hours(1);
const MIB: u64 = 1 << 20;

/// The condition while there are kills to tell of, and until when there are.
pub(crate) fn condition(desired: &Goal, observed: &Facts) -> Option<(Condition, Timestamp)> {
    let until = |kill: &OomKill| kill.at.checked_add(TOLD_FOR).unwrap_or(Timestamp::MAX);
    let open: Vec<&OomKill> = observed
        .out_of_memory
        .iter()
        .filter(|kill| until(kill) > observed.now && !is_outgrown(desired, kill))
        .collect();
    // The one that needs most: kills come again and again, and the message stays the same.
    let worst = open.iter().max_by(|a, b| needed(a).cmp(&needed(b)).then_with(|| b.pod.cmp(&a.pod)))?;
    let message = message(desired, worst);
    let last = open.iter().map(|kill| until(kill)).max()?;
    let condition = kept_condition(
        &observed.status,
        OUT_OF_MEMORY,
        "True",
        "OOMKilled",
        &message,
        desired.generation,
        observed.now,
    );
    Some((condition, last))
}

/// Whether the quota was raised above the limit at which it happened.
fn is_outgrown(desired: &Goal, kill: &OomKill) -> bool {
    let wanted = desired.in_place.resources.and_then(|quota| quota.memory_limit);
    is_of_quota(desired, kill) && wanted.zip(kill.limit).is_some_and(|(wanted, limit)| wanted > limit)
}

fn is_of_quota(desired: &Goal, kill: &OomKill) -> bool {
    kill.container.as_ref().is_none_or(|container| *container == desired.in_place.container)
}

fn needed(kill: &OomKill) -> u64 {
    kill.peak.unwrap_or(0).max(kill.limit.unwrap_or(0))
}

/// A quarter more than what was not enough, in whole MiB.
fn suggestion(kill: &OomKill) -> u64 {
    let needed = needed(kill);
    needed.saturating_add(needed / 4).div_ceil(MIB).saturating_mul(MIB)
}

fn message(desired: &Goal, kill: &OomKill) -> String {
    let OomKill { pod, container, at: _, limit, peak } = kill;
    let whose = container.as_ref().map_or_else(|| "a process".to_owned(), |container| format!("container {container}"));
    let peak = peak.map(|peak| format!(", memory.peak of the pod {}", text(peak))).unwrap_or_default();
    let raise = if is_of_quota(desired, kill) {
        "spec.quota.memory.limit".to_owned()
    } else {
        format!("the memory limit of {whose}")
    };
    match limit {
        Some(limit) => format!(
            "{whose} of Pod {pod} was killed for want of memory (limit {}{peak}); raise {raise} to {} or more",
            text(*limit),
            text(suggestion(kill))
        ),
        None => format!(
            "{whose} of Pod {pod} was killed for want of memory without a limit of its own{peak}: the node ran out of it; set {raise} and its request"
        ),
    }
}

/// Bytes as people read them: KiB at least, or MiB where that is exact enough.
fn text(bytes: u64) -> String {
    let rounded = if bytes < MIB { bytes } else { bytes.div_ceil(MIB).saturating_mul(MIB) };
    from_bytes(rounded).0
}
