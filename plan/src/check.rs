//! What must hold for every plan, whatever was observed. Its callers check it: the operator in debug builds, tests
//! always.

use std::collections::{BTreeMap, BTreeSet};

use catamaran_protocol::node_quota::NodeQuota;

use crate::{
    facts::{Facts, Instance, Members, SetFacts, count},
    goal::Goal,
    plan::{Action, Plan},
};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// More replicas could exist than the upper bound allows, and than there are already.
    #[error("the plan allows {total} replicas, at most {bound} may exist")]
    TooMany {
        /// What could exist.
        total: u32,
        /// The bound, or what there was before if that is more.
        bound: u32,
    },
    /// Fewer available replicas would be left than the lower bound asks for, and than there are.
    #[error("the plan keeps {kept} available replicas, at least {bound} have to stay")]
    TooFew {
        /// What would be left.
        kept: u32,
        /// The bound, or what there was before if that is less.
        bound: u32,
    },
    /// An instance is deleted although its set would replace it.
    #[error("instance {0} is deleted while its set is not seen to be paused")]
    UnsafeDeletion(String),
    /// A set with replicas is deleted.
    #[error("replica set {0} is deleted with replicas")]
    DeletedWithReplicas(String),
    /// A CPU limit is lowered below the burst, which the kernel refuses.
    #[error("pod {0} is resized below its burst")]
    BurstAboveLimit(String),
    /// Ready and Stalled, or Stalled and Reconciling, at once.
    #[error("the conditions contradict each other: {0}")]
    Conditions(String),
}

/// Checks a plan against the facts that it was made from. Linear, as it is done for every plan in debug builds and
/// tests.
///
/// # Errors
/// The first promise that is broken.
pub fn check(goal: &Goal, facts: &Facts, plan: &Plan) -> Result<(), Violation> {
    check_deletions(facts, plan)?;
    check_bursts(facts, plan)?;
    check_bounds(goal, facts, plan)?;
    check_conditions(plan)
}

/// No instance goes while its set would replace it, and no set with replicas.
fn check_deletions(facts: &Facts, plan: &Plan) -> Result<(), Violation> {
    let paused = |set: &&SetFacts| match &set.members {
        Members::Instances(instances) => instances.paused && instances.pause_seen,
        Members::Pods(_) => false,
    };
    let safe: BTreeSet<&str> =
        facts.sets.iter().filter(paused).flat_map(instances).map(|instance| instance.uid.as_str()).collect();
    let empty: BTreeSet<&str> = facts
        .sets
        .iter()
        .filter(|set| set.replicas == 0 && set.counts(facts.now, 0).live == 0)
        .map(|set| set.uid.as_str())
        .collect();
    for step in &plan.steps {
        match &step.action {
            Action::DeleteInstance { name, uid } if !safe.contains(uid.as_str()) => {
                return Err(Violation::UnsafeDeletion(name.clone()));
            }
            Action::DeleteSet(set) if !empty.contains(set.uid.as_str()) => {
                return Err(Violation::DeletedWithReplicas(set.name.clone()));
            }
            Action::DeleteInstance { .. }
            | Action::DeleteSet(_)
            | Action::CreateSet(_)
            | Action::UpdateSet(_)
            | Action::MarkPod { .. }
            | Action::LeaveService { .. }
            | Action::PauseInstance { .. }
            | Action::AnnotatePod { .. }
            | Action::ResizePod { .. }
            | Action::ApplyService { .. }
            | Action::DeleteService { .. } => {}
        }
    }
    Ok(())
}

fn instances(set: &SetFacts) -> &[Instance] {
    match &set.members {
        Members::Instances(instances) => &instances.instances,
        Members::Pods(_) => &[],
    }
}

/// No CPU limit is lowered below the burst that the annotation asks for by then.
fn check_bursts(facts: &Facts, plan: &Plan) -> Result<(), Violation> {
    let pods = facts.sets.iter().filter_map(|set| match &set.members {
        Members::Pods(pods) => Some(&pods.pods),
        Members::Instances(_) => None,
    });
    let mut annotations: BTreeMap<&str, Option<&str>> =
        pods.flatten().map(|pod| (pod.uid.as_str(), pod.quota.annotation.as_deref())).collect();
    for step in &plan.steps {
        match &step.action {
            Action::AnnotatePod { name: _, uid, annotation } => {
                annotations.insert(uid, annotation.as_deref());
            }
            Action::ResizePod { name, uid, container: _, quota } => {
                let annotation = annotations.get(uid.as_str()).copied().flatten();
                let held = annotation.and_then(|text| NodeQuota::parse(text).ok());
                let burst = held.and_then(|quota| quota.cpu_burst_usec);
                if burst > quota.cpu_limit.map(|limit| limit.saturating_mul(100)) {
                    return Err(Violation::BurstAboveLimit(name.clone()));
                }
            }
            Action::CreateSet(_)
            | Action::UpdateSet(_)
            | Action::DeleteSet(_)
            | Action::DeleteInstance { .. }
            | Action::MarkPod { .. }
            | Action::LeaveService { .. }
            | Action::PauseInstance { .. }
            | Action::ApplyService { .. }
            | Action::DeleteService { .. } => {}
        }
    }
    Ok(())
}

/// What a plan makes of the counts, and what they were.
#[derive(Default)]
struct Totals {
    total: u32,
    total_before: u32,
    kept: u32,
    kept_before: u32,
}

/// Not more replicas than the upper bound, and not fewer available ones than the lower, or than there are.
fn check_bounds(goal: &Goal, facts: &Facts, plan: &Plan) -> Result<(), Violation> {
    let Some(bounds) = plan.bounds else { return Ok(()) };
    let Totals { total, total_before, kept, kept_before } = totals(goal, facts, plan);
    let bound = bounds.max_total.max(total_before);
    if total > bound {
        return Err(Violation::TooMany { total, bound });
    }
    let bound = bounds.min_available.min(kept_before);
    if kept < bound {
        return Err(Violation::TooFew { kept, bound });
    }
    Ok(())
}

fn totals(goal: &Goal, facts: &Facts, plan: &Plan) -> Totals {
    let mut sizes: BTreeMap<&str, u32> = BTreeMap::new();
    let mut victims: BTreeSet<&str> = BTreeSet::new();
    let mut totals = Totals::default();
    for step in &plan.steps {
        match &step.action {
            Action::UpdateSet(update) => {
                sizes.extend(update.spec.replicas.map(|replicas| (update.set.uid.as_str(), replicas)));
            }
            Action::DeleteInstance { name: _, uid } => {
                victims.insert(uid);
            }
            Action::CreateSet(set) => totals.total = totals.total.saturating_add(set.replicas),
            Action::DeleteSet(_)
            | Action::MarkPod { .. }
            | Action::LeaveService { .. }
            | Action::PauseInstance { .. }
            | Action::AnnotatePod { .. }
            | Action::ResizePod { .. }
            | Action::ApplyService { .. }
            | Action::DeleteService { .. } => {}
        }
    }
    for set in &facts.sets {
        let counts = set.counts(facts.now, goal.rollout.min_ready_seconds);
        let gone = instances(set).iter().filter(|instance| victims.contains(instance.uid.as_str()));
        let asked = sizes.get(set.uid.as_str()).copied().unwrap_or_else(|| set.asked_for());
        // Unavailable ones go first, so as many available ones stay as fit.
        totals.kept += asked.min(counts.live.saturating_sub(count(gone))).min(counts.available);
        totals.kept_before += counts.available.min(set.replicas);
        totals.total += asked.max(counts.live);
        totals.total_before += set.asked_for().max(counts.live);
    }
    totals
}

fn check_conditions(plan: &Plan) -> Result<(), Violation> {
    let has = |type_: &str| {
        plan.status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    if (has("Ready") && (has("Stalled") || has("Reconciling"))) || (has("Stalled") && has("Reconciling")) {
        return Err(Violation::Conditions(format!("{:?}", plan.status.conditions)));
    }
    Ok(())
}

/// In debug builds, a broken promise ends the process: it is a bug of this crate.
pub fn debug_check(goal: &Goal, facts: &Facts, plan: &Plan) {
    if cfg!(debug_assertions)
        && let Err(violation) = check(goal, facts, plan)
    {
        panic!("{violation}\n{goal:#?}\n{facts:#?}\n{plan}");
    }
}
