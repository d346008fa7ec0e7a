//! What the scheduler reserves for a pod: `PodRequests` of `k8s.io/component-helpers/resource`, as the scheduler calls
//! it (KEP-753, KEP-1287, KEP-2837).

use std::collections::BTreeMap;

use catamaran_metering::Request;
use catamaran_plan::quantity::{bytes, millicores};
use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus},
    apimachinery::pkg::api::resource::Quantity,
};

type Quantities = BTreeMap<String, Quantity>;

/// Of the whole pod, whatever it runs: the larger of what its containers and sidecars ask for together and of what each
/// init container needs beside the sidecars before it; what is asked for the pod as a whole goes before that. Its
/// overhead comes on top.
pub(super) fn reserved(pod: &Pod) -> Request {
    let empty = (PodSpec::default(), PodStatus::default());
    let (spec, status) = (pod.spec.as_ref().unwrap_or(&empty.0), pod.status.as_ref().unwrap_or(&empty.1));
    let whole = amounts(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let [cpu, memory] = of_containers(spec, status);
    let overhead = amounts(spec.overhead.as_ref());
    let total = |asked: u64, whole: Option<u64>, overhead: Option<u64>| {
        whole.unwrap_or(asked).saturating_add(overhead.unwrap_or_default())
    };
    Request { cpu_millicores: total(cpu, whole[0], overhead[0]), memory_bytes: total(memory, whole[1], overhead[1]) }
}

fn of_containers(spec: &PodSpec, status: &PodStatus) -> [u64; 2] {
    let infeasible = is_infeasible(status);
    let asked = |container: &Container| of_container(container, find(status, &container.name), infeasible);
    let (mut sidecars, mut starting) = ([0; 2], [0; 2]);
    for init in spec.init_containers.iter().flatten() {
        let with = each(sidecars, asked(init), u64::saturating_add);
        starting = each(starting, with, u64::max);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = with;
        }
    }
    let running = spec.containers.iter().map(asked).fold(sidecars, |sum, more| each(sum, more, u64::saturating_add));
    each(running, starting, u64::max)
}

/// While a resize is under way, the largest of what was asked for, allocated and given; of one that the node can never
/// do, what was asked for does not count.
fn of_container(container: &Container, status: Option<&ContainerStatus>, infeasible: bool) -> [u64; 2] {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let given = status.and_then(|status| status.resources.as_ref()?.requests.as_ref());
    let allocated = status.and_then(|status| status.allocated_resources.as_ref());
    let asked = requests.filter(|_| !infeasible || (given.is_none() && allocated.is_none()));
    [asked, given, allocated]
        .map(amounts)
        .into_iter()
        .fold([0; 2], |most, found| each(most, found.map(Option::unwrap_or_default), u64::max))
}

fn is_infeasible(status: &PodStatus) -> bool {
    let mut pending = status.conditions.iter().flatten().filter(|condition| condition.type_ == "PodResizePending");
    pending.any(|condition| condition.reason.as_deref() == Some("Infeasible"))
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    statuses.into_iter().find(|status| status.name == name)
}

/// CPU in millicores and memory in bytes.
fn amounts(quantities: Option<&Quantities>) -> [Option<u64>; 2] {
    let amount = |name: &str| quantities.and_then(|all| all.get(name));
    [amount("cpu").and_then(|cpu| millicores(cpu).ok()), amount("memory").and_then(|memory| bytes(memory).ok())]
}

fn each(one: [u64; 2], other: [u64; 2], of: fn(u64, u64) -> u64) -> [u64; 2] {
    [of(one[0], other[0]), of(one[1], other[1])]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": format!("c{cpu}"), "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> Value {
        let mut sidecar = container(cpu, memory);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    }

    /// In millicores and MiB.
    fn reserved_of(spec: Value, status: Value) -> (u64, u64) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).expect("a pod");
        let Request { cpu_millicores, memory_bytes } = reserved(&pod);
        (cpu_millicores, memory_bytes >> 20)
    }

    #[test]
    fn it_is_what_the_scheduler_reserves() {
        let app = || container("100m", "128Mi");
        for (what, spec, expected) in [
            ("nothing", json!({"containers": [{"name": "a"}]}), (0, 0)),
            ("a sum", json!({"containers": [app(), container("1", "1Gi")]}), (1100, 1152)),
            ("init above", json!({"containers": [app()], "initContainers": [container("2", "2Gi")]}), (2000, 2048)),
            ("by resource", json!({"containers": [app()], "initContainers": [container("2", "1Mi")]}), (2000, 128)),
            (
                "the biggest, not the sum",
                json!({"containers": [app()], "initContainers": [container("2", "1Gi"), container("1", "3Gi")]}),
                (2000, 3072),
            ),
            (
                "sidecars run on",
                json!({"containers": [app()], "initContainers": [sidecar("200m", "64Mi"), sidecar("300m", "1Mi")]}),
                (600, 193),
            ),
            (
                "an init container beside the sidecar before it",
                json!({"containers": [app()], "initContainers": [sidecar("500m", "1Gi"), container("2", "2Gi")]}),
                (2500, 3072),
            ),
            (
                "and not beside the one after it",
                json!({"containers": [app()], "initContainers": [container("2", "2Gi"), sidecar("500m", "1Gi")]}),
                (2000, 2048),
            ),
            (
                "overhead on top",
                json!({
                    "containers": [app()], "initContainers": [container("2", "2Gi")],
                    "overhead": {"cpu": "250m", "memory": "120Mi"},
                }),
                (2250, 2168),
            ),
            (
                "the pod as a whole, by resource",
                json!({
                    "containers": [app()], "initContainers": [container("2", "2Gi")],
                    "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "250m"},
                }),
                (3250, 2048),
            ),
            (
                "a launcher pod, all of it",
                json!({"containers": [
                    {"name": "compute", "resources": {"requests": {"cpu": "1", "memory": "1280Mi"}}},
                    {"name": "guest-console-log", "resources": {"requests": {"cpu": "5m", "memory": "35Mi"}}},
                ]}),
                (1005, 1315),
            ),
            (
                "beyond all",
                json!({"containers": [container("1", "15E"), container("2", "15E")]}),
                (3000, u64::MAX >> 20),
            ),
        ] {
            assert_eq!(reserved_of(spec, json!({})), expected, "{what}");
        }
    }

    #[test]
    fn a_resize_reserves_the_larger_of_both_until_it_is_done() {
        let spec = |cpu: &str| json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]});
        let status = |given: &str, allocated: &str| {
            json!([{
                "name": "a", "image": "a", "imageID": "", "ready": true, "restartCount": 0,
                "resources": {"requests": {"cpu": given}}, "allocatedResources": {"cpu": allocated},
            }])
        };
        let pending = |reason: &str| json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
        for (asked, given, allocated, reason, expected) in [
            ("2", "1", "1", None, 2000),
            ("1", "2", "1", None, 2000),
            ("1", "1", "2", None, 2000),
            ("1", "1", "1", None, 1000),
            ("8", "1", "2", Some("Deferred"), 8000),
            ("8", "1", "2", Some("Infeasible"), 2000),
        ] {
            let conditions = reason.map_or(json!([]), pending);
            let status = json!({"containerStatuses": status(given, allocated), "conditions": conditions});
            assert_eq!(reserved_of(spec(asked), status).0, expected, "{asked} {given} {allocated} {reason:?}");
        }
    }
}
