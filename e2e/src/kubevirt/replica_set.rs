//! What virt-controller does with a VMIRS (`pkg/virt-controller/watch/replicaset` of KubeVirt v1.9): the decision,
//! without I/O.

use catamaran_crds::kubevirt::{
    KubeVirtCondition, VirtualMachineInstance, VirtualMachineInstancePhase, VirtualMachineInstanceReplicaSet,
    VirtualMachineInstanceReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use rand::{Rng, seq::SliceRandom};

/// At most so many are created or deleted in one pass.
const BURST: usize = 250;

/// What one pass over a VMIRS does.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decision {
    /// How many VMIs to create.
    pub(super) create: usize,
    /// The names of VMIs to delete because there are too many.
    pub(super) delete: Vec<String>,
    /// The names of VMIs to delete because they have ended, or their pod goes.
    pub(super) finished: Vec<String>,
    /// How many VMIs count.
    pub(super) replicas: i32,
    /// How many of them are ready.
    pub(super) ready: i32,
}

/// Decides from the cache. `may_scale` is false while creations or deletions of an earlier pass are not yet in the
/// cache.
pub(super) fn decide(
    set: &VirtualMachineInstanceReplicaSet,
    instances: &[&VirtualMachineInstance],
    may_scale: bool,
    random: &mut impl Rng,
) -> Decision {
    let mut active: Vec<&&VirtualMachineInstance> = instances.iter().filter(|instance| is_active(instance)).collect();
    let ready =
        active.iter().filter(|instance| condition(instance, "Ready").is_some_and(|c| c.status == "True")).count();
    let mut decision = Decision {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        ready: i32::try_from(ready).unwrap_or(i32::MAX),
        ..Decision::default()
    };
    if !may_scale || set.spec.paused == Some(true) || set.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    decision.create = wanted.saturating_sub(active.len()).min(BURST);
    // The order of a Go map: readiness, phase and age do not count.
    active.shuffle(random);
    decision.delete = active.iter().skip(wanted).take(BURST).map(|instance| instance.name_any()).collect();
    decision.finished = instances
        .iter()
        .filter(|instance| !is_active(instance) && instance.metadata.deletion_timestamp.is_none())
        .map(|instance| instance.name_any())
        .collect();
    decision
}

/// Whether a VMI counts as a replica: not ended, not being deleted, and its pod is not going.
fn is_active(instance: &VirtualMachineInstance) -> bool {
    let phase = instance.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
    let pod_goes = condition(instance, "Ready")
        .is_some_and(|ready| ready.status == "False" && ready.reason.as_deref() == Some("PodTerminating"));
    !phase.is_final() && instance.metadata.deletion_timestamp.is_none() && !pod_goes
}

fn condition<'a>(instance: &'a VirtualMachineInstance, type_: &str) -> Option<&'a KubeVirtCondition> {
    instance.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == type_)
}

/// A failed creation or deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(super) reason: &'static str,
    /// What the API server answered.
    pub(super) message: String,
}

/// The status after a pass. Conditions are present only while true, and keep their first message.
pub(super) fn status(
    set: &VirtualMachineInstanceReplicaSet,
    decision: &Decision,
    failure: Option<&Failure>,
    selector: &str,
    now: &Time,
) -> VirtualMachineInstanceReplicaSetStatus {
    let before = set.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    let mut conditions = Vec::new();
    let mut keep = |type_: &str, reason: &str, message: &str| {
        let known = before.iter().find(|condition| condition.type_ == type_).cloned();
        conditions.push(known.unwrap_or_else(|| KubeVirtCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now.clone()),
        }));
    };
    if set.spec.paused == Some(true) {
        keep("ReplicaPaused", "Paused", "Controller got paused");
    }
    if let Some(failure) = failure {
        keep("ReplicaFailure", failure.reason, &failure.message);
    }
    VirtualMachineInstanceReplicaSetStatus {
        replicas: (decision.replicas > 0).then_some(decision.replicas),
        ready_replicas: (decision.ready > 0).then_some(decision.ready),
        label_selector: Some(selector.to_owned()),
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// The phase of a VMI that virt-controller has just made.
pub(super) const FIRST_PHASE: VirtualMachineInstancePhase = VirtualMachineInstancePhase::Pending;

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;
    use rand::{SeedableRng, rngs::StdRng};
    use serde_json::{Value, json};

    use super::*;

    fn set(replicas: i32, paused: bool) -> VirtualMachineInstanceReplicaSet {
        let mut set = VirtualMachineInstanceReplicaSet { metadata: ObjectMeta::default(), ..Default::default() };
        set.spec.replicas = Some(replicas);
        set.spec.paused = Some(paused);
        set
    }

    fn instance(name: &str, status: Value) -> VirtualMachineInstance {
        let mut instance = VirtualMachineInstance::new(name, Default::default());
        instance.status = serde_json::from_value(status).expect("a status");
        instance
    }

    fn running(name: &str, ready: &str, reason: Option<&str>) -> VirtualMachineInstance {
        instance(
            name,
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "reason": reason}]}),
        )
    }

    fn decided(set: &VirtualMachineInstanceReplicaSet, instances: &[VirtualMachineInstance], seed: u64) -> Decision {
        decide(set, &instances.iter().collect::<Vec<_>>(), true, &mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn what_counts_as_a_replica() {
        let instances = [
            running("ready", "True", None),
            running("unready", "False", Some("GuestNotRunning")),
            running("leaving", "False", Some("PodTerminating")),
            instance("pending", json!({"phase": "Pending"})),
            instance("failed", json!({"phase": "Failed"})),
        ];
        let decision = decided(&set(4, false), &instances, 0);
        assert_eq!((decision.replicas, decision.ready, decision.create), (3, 1, 1));
        assert_eq!(decision.finished, ["leaving", "failed"]);
    }

    #[test]
    fn victims_are_random_whether_ready_or_not() {
        let instances = [running("ready", "True", None), instance("pending", json!({"phase": "Pending"}))];
        let victims: std::collections::BTreeSet<String> =
            (0..32).flat_map(|seed| decided(&set(1, false), &instances, seed).delete).collect();
        assert_eq!(victims.into_iter().collect::<Vec<_>>(), ["pending", "ready"]);
    }

    #[test]
    fn a_paused_set_only_counts() {
        let instances = [running("a", "True", None), instance("failed", json!({"phase": "Failed"}))];
        let decision = decided(&set(3, true), &instances, 0);
        assert_eq!(decision, Decision { replicas: 1, ready: 1, ..Decision::default() });
    }

    #[test]
    fn zero_counts_are_left_out() {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let status = status(&set(0, true), &Decision::default(), None, "a=b", &now);
        let text = serde_json::to_value(&status).expect("JSON");
        assert_eq!(text["replicas"], Value::Null);
        assert_eq!(text["conditions"][0]["type"], "ReplicaPaused");
    }
}
