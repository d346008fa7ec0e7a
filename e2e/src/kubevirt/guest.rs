//! The life of one VMI: what virt-controller, virt-handler and the guest do next, without I/O.

use std::time::Duration;

use catamaran_crds::kubevirt::{
    KubeVirtCondition, PhaseTransition, VirtualMachineInstance, VirtualMachineInstancePhase as Phase,
    VirtualMachineInstanceStatus,
};
use k8s_openapi::{
    api::core::v1::{ContainerState, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    knobs::{Guest, Image},
    launcher::{COMPUTE, GATE},
};

/// What is known of a VMI besides the object.
pub(super) struct Situation<'a> {
    pub(super) pod: Option<&'a Pod>,
    /// The cache has shown a launcher pod of this VMI, so that its absence is a loss.
    pub(super) had_pod: bool,
    /// A launcher pod was made, whether or not the cache shows it.
    pub(super) launched: bool,
    /// The node of the pod reports; where it does not, nothing of virt-handler and the guest happens.
    pub(super) node_reports: bool,
    /// The node is a real one: what happens to the pod's containers is its kubelet's to do and to tell.
    pub(super) real_node: bool,
    pub(super) guest: Guest,
    pub(super) paused: bool,
    /// How long the VMI has been in its phase.
    pub(super) in_phase: Duration,
    /// How long ago virt-handler took it over.
    pub(super) scheduled: Duration,
    /// How long the pod has been terminating.
    pub(super) terminating: Duration,
}

/// One write, or a wait.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Make the launcher pod.
    Launch,
    /// Write the status.
    Status(Box<VirtualMachineInstanceStatus>),
    /// Open or close the readiness gate of the pod.
    Gate(bool),
    /// Delete the pod with its grace period.
    DeletePod,
    /// The kubelet saw the end of the pod's containers. KWOK does not know it.
    PodEnds,
    /// The kubelet cannot pull the disk's image. KWOK does not know it either.
    PodCannotPull,
    /// The kubelet is through with the pod. KWOK is made to leave launcher pods alone.
    RemovePod,
    /// Take the finalizer off.
    Release,
    /// Nothing before this time, unless something changes.
    Wait(Duration),
    /// Nothing unless something changes.
    Nothing,
}

/// The next thing that happens.
pub(super) fn next(instance: &VirtualMachineInstance, now: &Time, situation: &Situation<'_>) -> Next {
    let status = instance.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let deleted = instance.metadata.deletion_timestamp.is_some();
    let Some(pod) = situation.pod else {
        return match phase {
            _ if deleted && (situation.had_pod || !situation.launched) => Next::Release,
            Phase::Pending | Phase::Unknown if !situation.launched => Next::Launch,
            Phase::Scheduling | Phase::Scheduled | Phase::Running if situation.had_pod => {
                let ended = enter(&status, Phase::Failed, now);
                Next::Status(Box::new(ready(&ended, "False", Some("PodNotExists"), now)))
            }
            _ => Next::Nothing,
        };
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return terminate(&status, phase, now, situation);
    }
    if deleted {
        return Next::DeletePod;
    }
    let pod_phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase.is_final() {
        return if situation.node_reports && !situation.real_node && !matches!(pod_phase, Some("Failed" | "Succeeded")) {
            Next::PodEnds
        } else {
            Next::Nothing
        };
    }
    // virt-controller counts the VMI as finished from here on; its phase becomes final only once it is being deleted.
    if matches!(pod_phase, Some("Failed" | "Succeeded")) || has_ended(pod) {
        let leaving = ready(&status, "False", Some("PodTerminating"), now);
        return if leaving == status { Next::Nothing } else { Next::Status(Box::new(leaving)) };
    }
    let gate = !situation.paused && !situation.guest.never_ready;
    match phase {
        Phase::Pending | Phase::Unknown => {
            let scheduling = enter(&status, Phase::Scheduling, now);
            Next::Status(Box::new(ready(&scheduling, "False", Some("GuestNotRunning"), now)))
        }
        Phase::Scheduling => {
            let scheduled = copy_scheduled(&status, pod, now);
            if scheduled != status {
                return Next::Status(Box::new(scheduled));
            }
            if condition(pod, "PodScheduled").is_none_or(|(status, ..)| status != "True") {
                return Next::Nothing;
            }
            if situation.guest.image == Image::Unpullable {
                return if cannot_pull(pod) || pod_phase != Some("Running") {
                    Next::Nothing
                } else {
                    Next::PodCannotPull
                };
            }
            if gate_differs(pod, gate) {
                return Next::Gate(gate);
            }
            if condition(pod, "ContainersReady").is_none_or(|(status, ..)| status != "True") {
                return Next::Nothing;
            }
            let mut scheduled = enter(&status, Phase::Scheduled, now);
            scheduled.node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            Next::Status(Box::new(scheduled))
        }
        Phase::Scheduled if !situation.node_reports => Next::Nothing,
        Phase::Scheduled => boot(&status, now, situation),
        Phase::Running => run(&status, pod, gate, now, situation),
        Phase::Succeeded | Phase::Failed => Next::Nothing,
    }
}

/// From virt-handler's first look until the guest runs.
fn boot(status: &VirtualMachineInstanceStatus, now: &Time, situation: &Situation<'_>) -> Next {
    let guest = situation.guest;
    if guest.image == Image::NoDisk {
        let mut wanted = status.clone();
        set(&mut wanted, "Synchronized", "False", Some("Synchronizing with the Domain failed."), now);
        for condition in wanted.conditions.iter_mut().flatten().filter(|condition| condition.type_ == "Synchronized") {
            condition.message = Some(NO_DISK.to_owned());
        }
        return if wanted == *status { Next::Nothing } else { Next::Status(Box::new(wanted)) };
    }
    let running = guest.boot_delay.saturating_sub(situation.in_phase);
    let dies = guest.launcher_dies_after.map(|after| after.saturating_sub(situation.scheduled));
    match dies {
        Some(rest) if rest.is_zero() => Next::PodEnds,
        Some(rest) if !running.is_zero() => Next::Wait(rest.min(running)),
        None if !running.is_zero() => Next::Wait(running),
        Some(_) | None => Next::Status(Box::new(enter(status, Phase::Running, now))),
    }
}

fn run(status: &VirtualMachineInstanceStatus, pod: &Pod, gate: bool, now: &Time, situation: &Situation<'_>) -> Next {
    let guest = situation.guest;
    let ends = [(guest.crash_after, Phase::Failed), (guest.power_off_after, Phase::Succeeded)]
        .into_iter()
        .filter_map(|(after, phase)| Some((after?.saturating_sub(situation.in_phase), phase)))
        .filter(|_| situation.node_reports)
        .min_by_key(|(rest, _)| *rest);
    if let Some((rest, phase)) = ends
        && rest.is_zero()
    {
        return Next::Status(Box::new(enter(status, phase, now)));
    }
    let dies = guest.launcher_dies_after.map(|after| after.saturating_sub(situation.scheduled));
    if dies.is_some_and(|rest| rest.is_zero()) {
        return Next::PodEnds;
    }
    if gate_differs(pod, gate) {
        return Next::Gate(gate);
    }
    let (value, reason, _) = condition(pod, "Ready").unwrap_or(("False", None, None));
    let mut wanted = ready(status, value, reason, now);
    if situation.paused {
        set(&mut wanted, "Paused", "True", Some("PausedByUser"), now);
    } else if let Some(conditions) = &mut wanted.conditions {
        conditions.retain(|condition| condition.type_ != "Paused");
    }
    if wanted != *status {
        return Next::Status(Box::new(wanted));
    }
    ends.map(|(rest, _)| rest).into_iter().chain(dies).min().map_or(Next::Nothing, Next::Wait)
}

/// The pod is going: the guest powers off, then the pod is gone.
fn terminate(status: &VirtualMachineInstanceStatus, phase: Phase, now: &Time, situation: &Situation<'_>) -> Next {
    let leaving = ready(status, "False", Some("PodTerminating"), now);
    if leaving != *status && !phase.is_final() && phase != Phase::Pending {
        return Next::Status(Box::new(leaving));
    }
    if !situation.node_reports {
        return Next::Nothing;
    }
    let started = matches!(phase, Phase::Scheduled | Phase::Running);
    let ended = situation.pod.is_some_and(has_ended);
    let shutdown = if ended { Duration::ZERO } else { situation.guest.shutdown_delay };
    let lingers = if started || phase.is_final() { shutdown + situation.guest.linger } else { Duration::ZERO };
    let left = |until: Duration| until.saturating_sub(situation.terminating);
    match left(shutdown) {
        rest if started && !rest.is_zero() => Next::Wait(rest),
        // Guests that power off when they are told to often end as Failed.
        _ if started => Next::Status(Box::new(enter(status, Phase::Failed, now))),
        _ if situation.real_node => Next::Nothing,
        _ if !left(lingers).is_zero() => Next::Wait(left(lingers)),
        _ => Next::RemovePod,
    }
}

/// What virt-handler says of an image without a disk.
const NO_DISK: &str = "server error. command SyncVMI failed: \"failed to find disk file from ImageVolume\"";

/// Whether virt-launcher has ended.
fn has_ended(pod: &Pod) -> bool {
    compute(pod).is_some_and(|state| state.terminated.is_some())
}

fn cannot_pull(pod: &Pod) -> bool {
    compute(pod).is_some_and(|state| state.waiting.is_some())
}

fn compute(pod: &Pod) -> Option<&ContainerState> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find(|container| container.name == COMPUTE)?.state.as_ref()
}

fn enter(status: &VirtualMachineInstanceStatus, phase: Phase, now: &Time) -> VirtualMachineInstanceStatus {
    let mut status = status.clone();
    status.phase = Some(phase);
    let entered = PhaseTransition { phase, phase_transition_timestamp: now.clone() };
    status.phase_transition_timestamps.get_or_insert_default().push(entered);
    status
}

fn ready(
    status: &VirtualMachineInstanceStatus,
    value: &str,
    reason: Option<&str>,
    now: &Time,
) -> VirtualMachineInstanceStatus {
    let mut status = status.clone();
    set(&mut status, "Ready", value, reason, now);
    status
}

/// Sets a condition; the time stays while the value does.
fn set(status: &mut VirtualMachineInstanceStatus, type_: &str, value: &str, reason: Option<&str>, now: &Time) {
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().position(|condition| condition.type_ == type_).map(|index| conditions.remove(index));
    let since =
        before.as_ref().filter(|before| before.status == value).and_then(|before| before.last_transition_time.clone());
    conditions.push(KubeVirtCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: reason.map(ToOwned::to_owned),
        message: None,
        last_probe_time: None,
        last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// A pod that finds no node: the VMI says so as long as it is true.
fn copy_scheduled(status: &VirtualMachineInstanceStatus, pod: &Pod, now: &Time) -> VirtualMachineInstanceStatus {
    let mut status = status.clone();
    match condition(pod, "PodScheduled") {
        Some(("False", reason, message)) => {
            set(&mut status, "PodScheduled", "False", reason, now);
            for condition in
                status.conditions.iter_mut().flatten().filter(|condition| condition.type_ == "PodScheduled")
            {
                condition.message = message.map(ToOwned::to_owned);
            }
        }
        Some(_) | None => {
            if let Some(conditions) = &mut status.conditions {
                conditions.retain(|condition| condition.type_ != "PodScheduled");
            }
        }
    }
    status
}

fn gate_differs(pod: &Pod, open: bool) -> bool {
    condition(pod, GATE).map(|(status, ..)| status == "True") != Some(open)
}

/// Status, reason and message of a pod's condition.
fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, Option<&'a str>, Option<&'a str>)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&condition.status, condition.reason.as_deref(), condition.message.as_deref()))
}
