//! The launcher pod of a VMI, as virt-controller renders it: with the resources of the guest and KubeVirt's overhead.
//!
//! What its containers run is not KubeVirt's. On KWOK's nodes nothing runs. On a real node the image has to be our load
//! program by that name ([`real_node`](super::real_node)), and the arguments are for it.

use std::collections::BTreeMap;

use catamaran_crds::kubevirt::VirtualMachineInstance;
use catamaran_plan::quantity;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity};
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

/// The pod condition that virt-controller sets, and that is False while the guest is paused.
pub(super) const GATE: &str = "kubevirt.io/virtual-machine-unpaused";
/// The label by which launcher pods are known.
pub(super) const LAUNCHER: &str = "kubevirt.io=virt-launcher";
/// The uid of the VMI that a launcher pod was made for.
pub(super) const CREATED_BY: &str = "kubevirt.io/created-by";
/// The image of all its containers.
pub(super) const IMAGE: &str = "virt-launcher:v1.9.0";
/// The container that runs virt-launcher and the guest.
pub(super) const COMPUTE: &str = "compute";
/// What virt-controller adds to a probe's initialDelaySeconds: libvirt's start-up (`LibvirtStartupDelay`), in seconds.
const STARTUP_DELAY: i64 = 10;
/// The devices that it asks for, one of each.
pub(super) const DEVICES: [&str; 3] = ["kvm", "tun", "vhost-net"];
/// What a launcher pod has on top of the guest's time to power off, in seconds.
const GRACE: i64 = 30;
const MIB: u64 = 1 << 20;

/// Renders the pod.
///
/// # Errors
/// When the VMI carries what no pod can.
pub(super) fn pod(instance: &VirtualMachineInstance) -> Result<Pod, serde_json::Error> {
    let overhead = overhead(&instance.spec.body["domain"]);
    serde_json::from_value(json!({
        "metadata": metadata(instance, overhead),
        "spec": spec(&instance.spec.body, overhead),
    }))
}

fn metadata(instance: &VirtualMachineInstance, overhead: u64) -> Value {
    let name = instance.name_any();
    let mut labels = instance.labels().clone();
    labels.extend(
        [
            ("kubevirt.io", "virt-launcher".to_owned()),
            (CREATED_BY, instance.uid().unwrap_or_default()),
            ("vm.kubevirt.io/name", name.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let mut annotations: BTreeMap<String, String> = instance.annotations().clone();
    annotations.insert("kubevirt.io/domain".into(), name.clone());
    annotations.insert("kubevirt.io/memory-overhead-bytes".into(), overhead.to_string());
    let mut owner = instance.controller_owner_ref(&());
    if let Some(owner) = &mut owner {
        owner.block_owner_deletion = Some(true);
    }
    json!({
        "generateName": format!("virt-launcher-{name}-"),
        "namespace": instance.namespace(),
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": owner.map(|owner| vec![owner]),
    })
}

/// `body` is the spec of the VMI.
fn spec(body: &Map<String, Value>, overhead: u64) -> Value {
    let disks: Vec<(&str, &str)> = body
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|volume| Some((volume["name"].as_str()?, volume["containerDisk"]["image"].as_str()?)))
        .collect();
    // One that stays, on a port of its own, and some that end at once.
    let mut init = vec![json!({
        "name": "guest-console-log", "image": IMAGE, "restartPolicy": "Always", "args": ["serve", "--listen", ":9001"],
    })];
    init.extend(
        disks.iter().map(
            |(disk, _)| json!({"name": format!("volume{disk}"), "image": IMAGE, "args": ["memory", "--mib", "0"]}),
        ),
    );
    let volumes: Vec<Value> =
        disks.iter().map(|(disk, image)| json!({"name": disk, "image": {"reference": image}})).collect();
    let grace = body.get("terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    let mut spec = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace + GRACE,
        "automountServiceAccountToken": false,
        "readinessGates": [{"conditionType": GATE}],
        "nodeSelector": node_selector(body),
        "initContainers": init,
        "containers": [
            {"name": COMPUTE, "image": IMAGE, "args": ["serve"], "resources": resources(&body["domain"], overhead)},
        ],
        "volumes": volumes,
    });
    for name in ["readinessProbe", "livenessProbe"] {
        if let Some(probe) = body.get(name) {
            spec["containers"][0][name] = late(probe.clone());
        }
    }
    for field in ["affinity", "tolerations", "topologySpreadConstraints", "priorityClassName", "schedulerName"] {
        if let Some(value) = body.get(field) {
            spec[field] = value.clone();
        }
    }
    spec
}

fn node_selector(body: &Map<String, Value>) -> Map<String, Value> {
    let of_kubevirt = [
        ("kubevirt.io/schedulable", "true"),
        ("kubernetes.io/arch", "amd64"),
        ("machine-type.node.kubevirt.io/q35", "true"),
    ];
    let mut selector = Map::from_iter(of_kubevirt.map(|(key, value)| (key.to_owned(), json!(value))));
    selector.extend(body.get("nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default());
    selector
}

/// A probe of the guest as virt-controller puts it on `compute`.
fn late(mut probe: Value) -> Value {
    let given = probe["initialDelaySeconds"].as_i64().unwrap_or(0);
    probe["initialDelaySeconds"] = json!(given + STARTUP_DELAY);
    // A ping of the guest's agent is a command in the container.
    if let Some(probe) = probe.as_object_mut()
        && probe.remove("guestAgentPing").is_some()
    {
        probe.insert("exec".into(), json!({"command": ["virt-probe", "--guestAgentPing"]}));
    }
    probe
}

/// KubeVirt's `GetMemoryOverhead`, as far as the reference notes tell it.
fn overhead(domain: &Value) -> u64 {
    let headless = domain["devices"]["autoattachGraphicsDevice"] == json!(false);
    let page_tables = memory(domain).unwrap_or(0) / 512;
    (240 + 8 * sockets(domain) + 8 + if headless { 0 } else { 32 }) * MIB + page_tables
}

fn sockets(domain: &Value) -> u64 {
    let count = |field: &str| domain["cpu"][field].as_u64().unwrap_or(1);
    count("sockets") * count("cores") * count("threads")
}

/// The memory that the pod asks for the guest, in bytes.
fn memory(domain: &Value) -> Option<u64> {
    bytes(&domain["resources"]["requests"]["memory"]).or_else(|| bytes(&domain["memory"]["guest"]))
}

fn bytes(value: &Value) -> Option<u64> {
    quantity::bytes(&Quantity(value.as_str()?.to_owned())).ok()
}

fn resources(domain: &Value, overhead: u64) -> Value {
    let mut requests = Map::new();
    let mut limits = Map::from_iter(DEVICES.map(|device| (format!("devices.kubevirt.io/{device}"), json!("1"))));
    let given = &domain["resources"];
    let cpu_limit = given["limits"]["cpu"].as_str();
    let cpu = given["requests"]["cpu"].as_str().or(cpu_limit);
    requests.insert("cpu".into(), cpu.map_or_else(|| json!(format!("{}m", sockets(domain) * 100)), |cpu| json!(cpu)));
    if let Some(limit) = cpu_limit {
        limits.insert("cpu".into(), json!(limit));
    }
    if let Some(memory) = memory(domain) {
        requests.insert("memory".into(), json!((memory + overhead).to_string()));
    }
    if let Some(limit) = bytes(&given["limits"]["memory"]) {
        limits.insert("memory".into(), json!((limit + overhead).to_string()));
    }
    json!({"requests": requests, "limits": limits})
}
