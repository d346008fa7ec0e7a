//! Condition OutOfMemory: processes of replicas were killed lately by the OOM killer, and what to do about it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    draft::Context,
    facts::OomKill,
    goal::Goal,
    quantity::from_bytes,
    status::conditions::{OUT_OF_MEMORY, kept_condition},
};

/// For how long a kill is told.
const TOLD_FOR: SignedDuration = SignedDuration::from_hours(1);
const MIB: u64 = 1 << 20;

/// The condition while there are kills to tell of, and until when there are.
pub(crate) fn condition(context: &Context<'_>) -> Option<(Condition, Timestamp)> {
    let (goal, facts) = (context.goal, context.facts);
    let until = |kill: &OomKill| kill.at.checked_add(TOLD_FOR).unwrap_or(Timestamp::MAX);
    let open: Vec<&OomKill> =
        facts.out_of_memory.iter().filter(|kill| until(kill) > facts.now && !is_outgrown(goal, kill)).collect();
    // The one that needs most: kills come again and again, and the message stays the same.
    let worst = open.iter().max_by(|a, b| needed(a).cmp(&needed(b)).then_with(|| b.pod.cmp(&a.pod)))?;
    let message = message(goal, worst);
    let last = open.iter().map(|kill| until(kill)).max()?;
    let condition =
        kept_condition(&facts.status, OUT_OF_MEMORY, "True", "OOMKilled", &message, goal.generation, facts.now);
    Some((condition, last))
}

/// Whether the quota was raised above the limit at which it happened.
fn is_outgrown(goal: &Goal, kill: &OomKill) -> bool {
    let wanted = goal.in_place.resources.and_then(|quota| quota.memory_limit);
    is_of_quota(goal, kill) && wanted.zip(kill.limit).is_some_and(|(wanted, limit)| wanted > limit)
}

fn is_of_quota(goal: &Goal, kill: &OomKill) -> bool {
    kill.container.as_ref().is_none_or(|container| *container == goal.in_place.container)
}

fn needed(kill: &OomKill) -> u64 {
    kill.peak.unwrap_or(0).max(kill.limit.unwrap_or(0))
}

/// A quarter more than what was not enough, in whole MiB.
fn suggestion(kill: &OomKill) -> u64 {
    let needed = needed(kill);
    needed.saturating_add(needed / 4).div_ceil(MIB).saturating_mul(MIB)
}

fn message(goal: &Goal, kill: &OomKill) -> String {
    let OomKill { pod, container, at: _, limit, peak } = kill;
    let whose = container.as_ref().map_or_else(|| "a process".to_owned(), |container| format!("container {container}"));
    let peak = peak.map(|peak| format!(", memory.peak of the pod {}", text(peak))).unwrap_or_default();
    let raise = if is_of_quota(goal, kill) {
        "spec.quota.memory.limit".to_owned()
    } else {
        format!("the memory limit of {whose}")
    };
    match limit {
        Some(limit) => format!(
            "{whose} of Pod {pod} was killed by the OOM killer (limit {}{peak}); raise {raise} to {} or more",
            text(*limit),
            text(suggestion(kill))
        ),
        None => format!(
            "{whose} of Pod {pod} was killed by the OOM killer without a limit of its own{peak}: the node ran out of it; set {raise} and its request"
        ),
    }
}

/// Bytes as people read them: KiB at least, or MiB where that is exact enough.
fn text(bytes: u64) -> String {
    let rounded = if bytes < MIB { bytes } else { bytes.div_ceil(MIB).saturating_mul(MIB) };
    from_bytes(rounded).0
}
