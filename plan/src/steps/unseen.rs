//! What is planned while the API server does not list KubeVirt's kinds: what may have virtual machines is left alone.

use catamaran_crds::{ElasticWorkloadStatus, Hull};
use jiff::SignedDuration;

use crate::{
    facts::{Facts, KubeVirt},
    goal::Goal,
    plan::{Plan, Problem, Wait},
    status::{self, Progress},
};

/// How soon a workload that waits for KubeVirt's kinds to be listed is looked at again.
const UNTIL_LISTED: SignedDuration = SignedDuration::from_secs(5);

/// Whether virtual machines that are not seen may belong to a workload: it wants them, has them, or comes from a
/// revision that is not among its sets.
pub fn may_have_machines(goal: &Goal, facts: &Facts) -> bool {
    let is_seen = |revision: &String| facts.sets.iter().any(|set| set.revision == *revision);
    let may_have = goal.hull() == Hull::VirtualMachine
        || facts.status.hull == Some(Hull::VirtualMachine)
        || facts.sets.iter().any(|set| set.hull() == Hull::VirtualMachine)
        || facts.status.current_revision.as_ref().is_some_and(|revision| !is_seen(revision));
    facts.kubevirt == KubeVirt::Unknown && may_have
}

/// Nothing is touched, the condition says why.
pub fn leave_alone(goal: &Goal, facts: &Facts) -> Plan {
    let (previous, now) = (&facts.status, facts.now);
    let progress = Progress::Stopped { problem: &Problem::KubeVirtUnknown };
    let status = ElasticWorkloadStatus {
        observed_generation: Some(goal.generation),
        conditions: status::conditions(previous, goal.generation, now, &progress),
        ..previous.clone()
    };
    Plan {
        steps: Vec::new(),
        waits: vec![Wait::KubeVirtListed],
        bounds: None,
        announcements: status::announcements(previous, &status),
        status,
        requeue_at: now.checked_add(UNTIL_LISTED).ok(),
    }
}
