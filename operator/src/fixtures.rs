//! What tests of several modules begin with.

use catamaran_autoscale::{Bounds, Decision, History, Policy, decide};
use jiff::Timestamp;

/// The decision for a workload with so many replicas, of which nothing is measured.
pub(crate) fn decision(policy: &Policy, replicas: i32, history: &History, now: Timestamp) -> Decision {
    let bounds = Bounds::at(policy.min, policy.max, &policy.schedules, now);
    let observed = decide::Observed {
        replicas,
        status_replicas: replicas,
        bounds: &bounds,
        pods: &[],
        samples: &[],
        taken: &[],
        scaled_to_zero: false,
    };
    decide(policy, &observed, history, now)
}
