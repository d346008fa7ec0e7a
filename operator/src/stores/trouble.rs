//! What keeps a replica from becoming ready, in the words of the scheduler, the kubelet or KubeVirt: those that
//! `kubectl get pods` and `kubectl get vmi` show.

use catamaran_crds::kubevirt::KubeVirtCondition;
use catamaran_plan::facts::Cause;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

/// Reasons for which a container waits while all is well.
const WELL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// What keeps a pod from becoming ready.
pub(super) fn of_pod(object: &Pod) -> Option<Cause> {
    let status = object.status.as_ref()?;
    if object.metadata.deletion_timestamp.is_some() || condition(status, "Ready", "True").is_some() {
        return None;
    }
    unscheduled(status).or_else(|| of_containers(status)).or_else(|| not_ready(object, status))
}

fn condition<'a>(
    status: &'a PodStatus,
    type_: &str,
    value: &str,
) -> Option<&'a k8s_openapi::api::core::v1::PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_ && condition.status == value)
}

fn unscheduled(status: &PodStatus) -> Option<Cause> {
    let scheduled = condition(status, "PodScheduled", "False")?;
    let reason = scheduled.reason.as_deref().unwrap_or("Unschedulable");
    let message = scheduled.message.as_deref().unwrap_or_default().trim_end_matches('.');
    let way_out = match reason {
        "SchedulingGated" => "whoever set its spec.schedulingGates opens them",
        _ => way_to_a_node(message),
    };
    Some(cause(reason, format!("{message}; {way_out}")))
}

/// By what the scheduler's plugins say (`pkg/scheduler/framework/plugins`): the first that holds for all nodes.
fn way_to_a_node(message: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["persistentvolumeclaim"]) {
        "create or correct the claim, or its name in the template"
    } else if says(&["Insufficient", "Too many pods"]) {
        "ask for less (spec.quota, or the template's requests), or add nodes"
    } else if says(&["topology spread"]) {
        "label nodes with the topologyKey, or change topologySpreadConstraints in spec.placement or the template"
    } else if says(&["node affinity", "node selector", "taint"]) {
        "label a node, or change nodeSelector, affinity or tolerations in spec.placement or the template"
    } else {
        "change spec.placement or the template, or add nodes"
    }
}

fn of_containers(status: &PodStatus) -> Option<Cause> {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.filter(|container| !container.ready).find_map(of_container)
}

fn of_container(status: &ContainerStatus) -> Option<Cause> {
    let (name, state) = (&status.name, status.state.as_ref()?);
    let ended = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    // Also while it runs once more: between two ends it is as broken as before.
    let crashed = ended.or(state.terminated.as_ref()).filter(|ended| ended.exit_code != 0 || status.restart_count > 0);
    if let Some(crashed) = crashed {
        let reason = crashed.reason.as_deref().unwrap_or("Error");
        let way_out = match reason {
            "OOMKilled" => "raise quota.memory.limit, or let it use less",
            _ => "see kubectl logs --previous",
        };
        let message = format!("container {name} ends with exit code {} ({reason}); {way_out}", crashed.exit_code);
        return Some(cause("CrashLoopBackOff", message));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !WELL.contains(reason))?;
    let message = waiting.message.clone().unwrap_or_default();
    Some(match reason {
        // The two take turns.
        "ErrImagePull" | "ImagePullBackOff" => {
            let image = &status.image;
            let message = format!(
                "container {name}: the image {image} cannot be pulled; kubectl describe pod has the registry's answer; correct the image or its pull secret"
            );
            cause("ImagePullBackOff", message)
        }
        "CreateContainerConfigError" => cause(reason, format!("container {name}: {message}; create what is missing")),
        _ => cause(reason, format!("container {name}: {message}")),
    })
}

/// It runs, and its probe does not say yes: no fault at first.
fn not_ready(object: &Pod, status: &PodStatus) -> Option<Cause> {
    let probed = object.spec.iter().flat_map(|spec| &spec.containers).filter(|found| found.readiness_probe.is_some());
    let mut waits = probed.filter(|container| {
        let found = status.container_statuses.iter().flatten().find(|status| status.name == container.name);
        found.is_some_and(|status| !status.ready && status.state.as_ref().is_some_and(|state| state.running.is_some()))
    });
    let name = &waits.next()?.name;
    let message = format!(
        "container {name} runs, and its readiness probe does not succeed; compare the path and port of the probe with \
         what it serves, and see kubectl logs"
    );
    Some(Cause { reason: "NotReady".to_owned(), message, fault: false })
}

/// What KubeVirt says of a guest that it cannot start. Its launcher pod may know more.
pub(super) fn of_instance(conditions: Option<&[KubeVirtCondition]>) -> Option<Cause> {
    let find = |type_: &str| {
        let mut all = conditions.unwrap_or_default().iter();
        all.find(|condition| condition.type_ == type_ && condition.status == "False")
    };
    let told = |condition: &KubeVirtCondition| {
        let reason = condition.reason.clone().filter(|reason| !reason.is_empty());
        let message = condition.message.clone().unwrap_or_default();
        Cause { reason: reason.unwrap_or_else(|| condition.type_.clone()), message, fault: true }
    };
    find("Synchronized").or_else(|| find("PodScheduled")).map(told)
}

fn cause(reason: &str, message: String) -> Cause {
    Cause { reason: reason.to_owned(), message, fault: true }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(status: Value) -> Option<(String, String, bool)> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web-1" },
            "spec": { "containers": [{ "name": "main", "readinessProbe": {} }, { "name": "side" }] },
            "status": status,
        }))
        .expect("a pod");
        of_pod(&pod).map(|cause| (cause.reason, cause.message, cause.fault))
    }

    fn main(state: Value, last: Value, restarts: u32) -> Value {
        json!({ "containerStatuses": [{ "name": "main", "image": "registry.test/web:1", "imageID": "", "ready": false,
            "restartCount": restarts, "state": state, "lastState": last }] })
    }

    #[test]
    fn what_is_under_way_is_no_trouble() {
        assert_eq!(of(json!({})), None);
        assert_eq!(of(main(json!({"waiting": {"reason": "ContainerCreating"}}), json!({}), 0)), None);
        assert_eq!(of(json!({"conditions": [{"type": "Ready", "status": "True"}]})), None);
    }

    #[test]
    fn trouble_has_the_reason_that_kubectl_shows() {
        let reason = |status: Value| of(status).map(|(reason, ..)| reason);
        let unscheduled = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/4 nodes are available: 4 Insufficient cpu."}]});
        assert_eq!(
            of(unscheduled),
            Some((
                "Unschedulable".into(),
                "0/4 nodes are available: 4 Insufficient cpu; ask for less (spec.quota, or the template's requests), \
                 or add nodes"
                    .into(),
                true
            ))
        );
        let pulls =
            |reason: &str| of(main(json!({"waiting": {"reason": reason, "message": "back-off"}}), json!({}), 0));
        assert_eq!(pulls("ErrImagePull"), pulls("ImagePullBackOff"), "they take turns, and that is no news");
        assert!(pulls("ErrImagePull").is_some_and(|(_, message, _)| message.contains("registry.test/web:1")));
        let config = json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"s\" not found"}});
        assert_eq!(reason(main(config, json!({}), 0)).as_deref(), Some("CreateContainerConfigError"));
    }

    #[test]
    fn a_container_that_crashes_is_in_trouble_between_two_crashes_as_well() {
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let waits = of(main(json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended.clone(), 3));
        assert_eq!(waits.as_ref().map(|(reason, ..)| reason.as_str()), Some("CrashLoopBackOff"));
        assert_eq!(of(main(json!({"running": {}}), ended.clone(), 4)), waits);
        assert_eq!(of(main(ended, json!({}), 0)), waits);
    }

    #[test]
    fn a_probe_that_does_not_succeed_is_no_fault_yet() {
        let running = main(json!({"running": {}}), json!({}), 0);
        assert!(of(running).is_some_and(|(reason, _, fault)| reason == "NotReady" && !fault));
    }

    #[test]
    fn kubevirts_own_error_is_that_of_the_instance() {
        let conditions =
            |value: Value| -> Vec<KubeVirtCondition> { serde_json::from_value(value).expect("conditions") };
        let failed =
            conditions(json!([{"type": "Ready", "status": "False"}, {"type": "Synchronized", "status": "False",
            "reason": "Synchronizing with the Domain failed.", "message": "failed to find disk file"}]));
        let cause = of_instance(Some(&failed)).expect("trouble");
        assert_eq!((cause.message.as_str(), cause.fault), ("failed to find disk file", true));
        assert_eq!(of_instance(Some(&conditions(json!([{"type": "Synchronized", "status": "True"}])))), None);
    }
}
