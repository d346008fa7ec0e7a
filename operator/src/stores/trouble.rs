//! What keeps a replica from becoming ready, in the words of the scheduler, the kubelet or KubeVirt: those that
//! `kubectl get pods` and `kubectl get vmi` show.

use catamaran_crds::kubevirt::KubeVirtCondition;
use catamaran_plan::facts::{Cause, Severity};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec, PodStatus, Volume};

/// Reasons for which a container waits while all is well.
const WELL: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// What keeps a pod from becoming ready.
pub(super) fn of_pod(object: &Pod) -> Option<Cause> {
    let status = object.status.as_ref()?;
    if object.metadata.deletion_timestamp.is_some() || condition(status, "Ready", "True").is_some() {
        return None;
    }
    let spec = object.spec.as_ref()?;
    let pod = object.metadata.name.as_deref().unwrap_or_default();
    unscheduled(status)
        .or_else(|| of_containers(pod, status))
        .or_else(|| not_ready(pod, spec, status))
        .or_else(|| starts(pod, spec, status))
}

fn condition<'a>(status: &'a PodStatus, type_: &str, value: &str) -> Option<&'a PodCondition> {
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

/// All containers, in the order of their start.
fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

fn of_containers(pod: &str, status: &PodStatus) -> Option<Cause> {
    containers(status).filter(|container| !container.ready).find_map(|container| of_container(pod, container))
}

fn of_container(pod: &str, status: &ContainerStatus) -> Option<Cause> {
    let (name, state) = (&status.name, status.state.as_ref()?);
    let ended = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    // Also while it runs once more: between two ends it is as broken as before.
    let crashed = ended.or(state.terminated.as_ref()).filter(|ended| ended.exit_code != 0 || status.restart_count > 0);
    if let Some(crashed) = crashed {
        let reason = crashed.reason.as_deref().unwrap_or("Error");
        let way_out = match reason {
            "OOMKilled" => {
                "raise its memory limit (spec.quota.memory.limit, or that of the template), or let it use less"
            }
            _ => "correct the program or the template",
        };
        let logs = format!("kubectl logs {pod} -c {name} --previous has its last words");
        let message =
            format!("container {name} ends with exit code {} ({reason}); {logs}; {way_out}", crashed.exit_code);
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
                "container {name}: the image {image} cannot be pulled; kubectl describe pod {pod} has the registry's answer; correct the image or its pull secret"
            );
            cause("ImagePullBackOff", message)
        }
        "CreateContainerConfigError" => {
            cause(reason, format!("container {name}: {message}; create it, or correct the template"))
        }
        _ => cause(reason, format!("container {name}: {message}; correct the template, or the image")),
    })
}

fn runs(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// It runs, and its probe does not say yes: no fault at first.
fn not_ready(pod: &str, spec: &PodSpec, status: &PodStatus) -> Option<Cause> {
    let probed = spec.containers.iter().filter(|found| found.readiness_probe.is_some());
    let mut waits = probed.filter(|container| {
        let found = status.container_statuses.iter().flatten().find(|status| status.name == container.name);
        found.is_some_and(|status| !status.ready && runs(status))
    });
    let name = &waits.next()?.name;
    let message = format!(
        "container {name} runs, and its readiness probe does not succeed; compare the path and port of the probe with \
         what it serves; kubectl describe pod {pod} has the probe's answer"
    );
    Some(Cause { reason: "NotReady".to_owned(), message, severity: Severity::IfItLasts })
}

/// What the kubelet is at before the containers run (`kubelet_pods.go`, and condition PodReadyToStartContainers of
/// KEP-3085).
fn starts(pod: &str, spec: &PodSpec, status: &PodStatus) -> Option<Cause> {
    let node = spec.node_name.as_deref()?;
    let start =
        |reason: &str, message: String| Some(Cause { reason: reason.to_owned(), message, severity: Severity::Start });
    if status.start_time.is_none() {
        return start("NotStarted", format!("its node {node} has not taken it up; see kubectl describe node {node}"));
    }
    let waits = |status: &&ContainerStatus| status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let mut inits = status.init_container_statuses.iter().flatten();
    if let Some(init) = inits.find(|init| runs(init) && init.started != Some(true)) {
        let name = &init.name;
        return start(
            "PodInitializing",
            format!("init container {name} has not ended; see kubectl logs {pod} -c {name}"),
        );
    }
    let name = &containers(status).find(waits)?.name;
    let message = match condition(status, "PodReadyToStartContainers", "True") {
        Some(_) => format!("container {name} is not created yet; kubectl describe pod {pod} says how far its image is"),
        None => format!(
            "its node {node} has not set up {} or its network; kubectl describe pod {pod} says which: create what is \
             missing, or see to the node's network",
            volumes(spec)
        ),
    };
    start("ContainerCreating", message)
}

/// The volumes that others have to provide.
fn volumes(spec: &PodSpec) -> String {
    let volumes: Vec<String> = spec.volumes.iter().flatten().filter_map(provided).collect();
    if volumes.is_empty() { "its volumes".to_owned() } else { format!("its volumes ({})", volumes.join(", ")) }
}

fn provided(volume: &Volume) -> Option<String> {
    let needed = |optional: Option<bool>| optional != Some(true);
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        return needed(secret.optional).then(|| format!("Secret {name}"));
    }
    if let Some(map) = &volume.config_map {
        return needed(map.optional).then(|| format!("ConfigMap {}", map.name));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(format!("PersistentVolumeClaim {}", claim.claim_name));
    }
    let by_kubelet = volume.empty_dir.is_some() || volume.downward_api.is_some() || volume.projected.is_some();
    (!by_kubelet).then(|| format!("volume {}", volume.name))
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
        Cause { reason: reason.unwrap_or_else(|| condition.type_.clone()), message, severity: Severity::Fault }
    };
    find("Synchronized").or_else(|| find("PodScheduled")).map(told)
}

fn cause(reason: &str, message: String) -> Cause {
    Cause { reason: reason.to_owned(), message, severity: Severity::Fault }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(status: Value) -> Option<(String, String, Severity)> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web-1" },
            "spec": { "containers": [{ "name": "main", "readinessProbe": {} }, { "name": "side" }] },
            "status": status,
        }))
        .expect("a pod");
        of_pod(&pod).map(|cause| (cause.reason, cause.message, cause.severity))
    }

    fn main(state: Value, last: Value, restarts: u32) -> Value {
        json!({ "containerStatuses": [{ "name": "main", "image": "registry.test/web:1", "imageID": "", "ready": false,
            "restartCount": restarts, "state": state, "lastState": last }] })
    }

    #[test]
    fn what_is_well_or_not_placed_yet_is_no_trouble() {
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!({"conditions": [{"type": "Ready", "status": "True"}]})), None);
    }

    #[test]
    fn a_start_that_is_under_way_is_told_by_how_far_it_is() {
        let volumes = json!([
            {"name": "a", "secret": {"secretName": "tls"}}, {"name": "b", "configMap": {"name": "app"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "d", "emptyDir": {}},
            {"name": "e", "secret": {"secretName": "may-be", "optional": true}}, {"name": "f", "nfs": {
            "server": "nfs.test", "path": "/"}},
        ]);
        let of = |status: Value| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "web-1"},
                "spec": {"nodeName": "n", "containers": [{"name": "main"}], "volumes": volumes},
                "status": status,
            }))
            .expect("a pod");
            let cause = of_pod(&pod).expect("a start that is under way");
            assert_eq!(cause.severity, Severity::Start);
            (cause.reason, cause.message)
        };
        let start = json!({"startTime": "2026-12-01T00:00:00Z"});
        let creating = main(json!({"waiting": {"reason": "ContainerCreating"}}), json!({}), 0);
        let with = |parts: &[&Value]| {
            let parts = parts.iter().filter_map(|part| part.as_object()).flatten();
            Value::Object(parts.map(|(key, value)| (key.clone(), value.clone())).collect())
        };
        let (reason, message) = of(json!({}));
        assert_eq!(
            (reason.as_str(), message.contains("node n has not taken it up")),
            ("NotStarted", true),
            "{message}"
        );
        let (reason, message) = of(with(&[&start, &creating]));
        assert_eq!(reason, "ContainerCreating");
        assert!(
            message.contains("(Secret tls, ConfigMap app, PersistentVolumeClaim data, volume f) or its network"),
            "{message}"
        );
        let ready = json!({"conditions": [{"type": "PodReadyToStartContainers", "status": "True"}]});
        let (_, message) = of(with(&[&start, &creating, &ready]));
        assert!(message.contains("how far its image is"), "{message}");
        let init = json!({"initContainerStatuses": [{"name": "migrate", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "started": false, "state": {"running": {}}}]});
        let waits = main(json!({"waiting": {"reason": "PodInitializing"}}), json!({}), 0);
        let (reason, message) = of(with(&[&start, &waits, &init]));
        assert_eq!(reason, "PodInitializing");
        assert!(message.contains("kubectl logs web-1 -c migrate"), "{message}");
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
                Severity::Fault
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
        assert!(
            of(running).is_some_and(|(reason, _, severity)| reason == "NotReady" && severity == Severity::IfItLasts)
        );
    }

    #[test]
    fn kubevirts_own_error_is_that_of_the_instance() {
        let conditions =
            |value: Value| -> Vec<KubeVirtCondition> { serde_json::from_value(value).expect("conditions") };
        let failed =
            conditions(json!([{"type": "Ready", "status": "False"}, {"type": "Synchronized", "status": "False",
            "reason": "Synchronizing with the Domain failed.", "message": "failed to find disk file"}]));
        let cause = of_instance(Some(&failed)).expect("trouble");
        assert_eq!((cause.message.as_str(), cause.severity), ("failed to find disk file", Severity::Fault));
        assert_eq!(of_instance(Some(&conditions(json!([{"type": "Synchronized", "status": "True"}])))), None);
    }
}
