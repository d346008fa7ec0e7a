//! Condition QuotaEnforced: whether the kernels of the nodes hold the replicas to what was asked for them.
//!
//! CPU and memory are the kubelet's, whose word is the pod's status; the rest is the node agent's, whose word comes
//! with its usage. A status is written only where the answer changes, so a message names one pod and no counts.

use catamaran_crds::ElasticWorkloadStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    draft::Context,
    facts::{Enforcement, QuotaReport},
    plan::Resizing,
    status::conditions::{QUOTA_ENFORCED, kept_condition, resize_message},
};

/// The answer, and when it may be another one although nothing is seen.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) condition: Option<Condition>,
    pub(crate) look_again: Option<Timestamp>,
}

/// Whether replicas are held to their quota. No condition where none is asked for.
pub(crate) fn answer(context: &Context<'_>, resizing: &Resizing) -> Answer {
    let goal = context.goal;
    let in_place = &goal.in_place;
    let asked = in_place.resources.is_some() || in_place.node_quota.is_some() || !context.facts.enforcement.is_empty();
    if !asked {
        return Answer::default();
    }
    let (previous, now) = (&context.facts.status, context.facts.now);
    let condition = |status: &str, reason: &str, message: &str| Answer {
        condition: Some(kept_condition(previous, QUOTA_ENFORCED, status, reason, message, goal.generation, now)),
        look_again: None,
    };
    let live = context.live();
    // Whoever waits for the condition after `kubectl apply` is not to be told before there is anything to hold.
    let none_runs = live == 0 || (in_place.node_quota.is_some() && context.facts.enforcement.is_empty());
    if context.replicas > 0 && none_runs {
        return condition("Unknown", "NoReplicas", "no replica runs yet");
    }
    let mut open = None;
    for Enforcement { pod, node, told } in &context.facts.enforcement {
        match told {
            QuotaReport::Held => {}
            QuotaReport::NotHeld(why) => {
                return condition("False", "NotEnforced", &format!("Pod {pod} on node {node}: {why}"));
            }
            QuotaReport::NotYet(why) => {
                open.get_or_insert_with(|| {
                    format!("Pod {pod} on node {node} is not known to be held to its quota: {why}")
                });
            }
            QuotaReport::Nothing => {
                open.get_or_insert_with(|| {
                    format!(
                        "Pod {pod} on node {node} is not known to be held to its quota: no node agent has reported it; if this \
                         stays, see kubectl get pods -A -l app.kubernetes.io/part-of=catamaran -o wide: install the agents \
                         with agent.enabled=true in the chart, or see the logs of the one on {node}"
                    )
                });
            }
        }
    }
    if resizing.open > 0 {
        let status = if resizing.held_up.is_some() { "False" } else { "Unknown" };
        let (reason, message) = resize_message(resizing);
        return condition(status, reason, &message);
    }
    if let Some(changed) = &resizing.changed {
        return condition("False", "ChangedAtAdmission", &changed.to_string());
    }
    match (open, context.facts.usage_due.zip(before(previous))) {
        // The operator has begun to listen lately: until the agents are back, what they said last counts.
        (Some(_), Some((until, before))) => Answer { condition: Some(before.clone()), look_again: Some(until) },
        (Some(message), None) => condition("Unknown", "NotReported", &message),
        (None, _) => condition("True", "Enforced", "every replica that runs is held to its quota"),
    }
}

fn before(status: &ElasticWorkloadStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == QUOTA_ENFORCED)
}
