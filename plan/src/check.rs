//! What must hold for every plan, whatever was observed. Checked on every plan in debug builds and in every test.

use catamaran_protocol::node_quota::NodeQuota;

use crate::{
    facts::{Facts, Members},
    goal::Goal,
    plan::{Action, Plan, Step},
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

/// Checks a plan against what it was made from.
///
/// # Errors
/// The first promise that is broken.
pub fn check(desired: &Goal, observed: &Facts, plan: &Plan) -> Result<(), Violation> {
    let bounds = desired.rollout.bounds(desired.replicas);
    let min_ready = desired.rollout.min_ready_seconds;
    let (mut total, mut total_before, mut kept, mut kept_before) = (0u32, 0u32, 0u32, 0u32);
    for set in &observed.sets {
        let counts = set.counts(observed.now, min_ready);
        let update = plan.steps.iter().find_map(|step| match &step.action {
            Action::UpdateSet(update) if update.set.uid == set.uid => update.replicas,
            _ => None,
        });
        let victims = match &set.members {
            Members::Pods(_) => 0,
            Members::Instances(instances) => {
                crate::facts::count(instances.live().filter(|instance| deletes(plan, &instance.uid)))
            }
        };
        let asked = update.unwrap_or_else(|| set.asked_for());
        let left = asked.min(counts.live.saturating_sub(victims)).min(counts.available);
        // Unavailable ones go first, so as many available ones stay as fit.
        kept += left;
        kept_before += counts.available.min(set.replicas);
        total += asked.max(counts.live);
        total_before += set.asked_for().max(counts.live);
    }
    for (index, step) in plan.steps.iter().enumerate() {
        match &step.action {
            Action::CreateSet(set) => total += set.replicas,
            Action::DeleteInstance { name, uid } => {
                let safe = observed.sets.iter().any(|set| match &set.members {
                    Members::Instances(instances) => {
                        instances.paused && instances.pause_seen && instances.instances.iter().any(|i| i.uid == *uid)
                    }
                    Members::Pods(_) => false,
                });
                if !safe {
                    return Err(Violation::UnsafeDeletion(name.clone()));
                }
            }
            Action::DeleteSet(reference) => {
                let empty = observed.sets.iter().any(|set| {
                    set.uid == reference.uid && set.replicas == 0 && set.counts(observed.now, min_ready).live == 0
                });
                if !empty {
                    return Err(Violation::DeletedWithReplicas(reference.name.clone()));
                }
            }
            Action::ResizePod { name, uid, container: _, quota } => {
                if burst_after(observed, &plan.steps[..index], uid)
                    > quota.cpu_limit.map(|limit| limit.saturating_mul(100))
                {
                    return Err(Violation::BurstAboveLimit(name.clone()));
                }
            }
            Action::UpdateSet(_)
            | Action::MarkPod { .. }
            | Action::PauseInstance { .. }
            | Action::AnnotatePod { .. }
            | Action::ApplyService { .. }
            | Action::DeleteService { .. } => {}
        }
    }
    let bound = bounds.max_total.max(total_before);
    if total > bound {
        return Err(Violation::TooMany { total, bound });
    }
    let bound = bounds.min_available.min(kept_before);
    if kept < bound {
        return Err(Violation::TooFew { kept, bound });
    }
    let has = |type_: &str| {
        plan.status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    if (has("Ready") && (has("Stalled") || has("Reconciling"))) || (has("Stalled") && has("Reconciling")) {
        return Err(Violation::Conditions(format!("{:?}", plan.status.conditions)));
    }
    Ok(())
}

fn deletes(plan: &Plan, instance: &str) -> bool {
    plan.steps.iter().any(|step| matches!(&step.action, Action::DeleteInstance { uid, .. } if uid == instance))
}

/// The burst that a pod's annotation asks for after some steps, in microseconds.
fn burst_after(observed: &Facts, steps: &[Step], pod: &str) -> Option<u64> {
    let written = steps.iter().rev().find_map(|step| match &step.action {
        Action::AnnotatePod { name: _, uid, annotation } if uid == pod => Some(annotation.as_deref()),
        _ => None,
    });
    let seen = observed.sets.iter().find_map(|set| match &set.members {
        Members::Pods(pods) => pods.pods.iter().find(|seen| seen.uid == pod)?.quota.annotation.as_deref(),
        Members::Instances(_) => None,
    });
    NodeQuota::parse(written.unwrap_or(seen)?).ok()?.cpu_burst_usec
}

/// In debug builds, a broken promise ends the process: it is a bug of this crate.
pub(crate) fn debug_check(desired: &Goal, observed: &Facts, plan: &Plan) {
    if cfg!(debug_assertions)
        && let Err(violation) = check(desired, observed, plan)
    {
        panic!("{violation}\n{desired:#?}\n{observed:#?}\n{plan}");
    }
}
