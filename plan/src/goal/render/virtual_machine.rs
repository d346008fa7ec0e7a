//! The virtual machine hull: a VirtualMachineInstance template.

use catamaran_crds::{CloudInit, Placement, VirtualMachineHull, kubevirt::VirtualMachineInstanceTemplate};
use serde_json::{Map, Value, json};

use super::{Rendered, ReplicaMarks, replica_metadata, set_twice, spread_constraints};
use crate::goal::{
    InPlace, Invalid, in_place::GUEST_CONTAINER, node_settings::NodeSettings, quota::Quota, revision::Template,
};

/// Renders the virtual machine hull, without the revision label.
///
/// # Errors
/// When the template and another part of the spec say different things, or the guest has no memory.
pub fn virtual_machine(
    marks: &ReplicaMarks<'_>,
    hull: &VirtualMachineHull,
    quota: Quota,
    knobs: &NodeSettings,
    placement: &Placement,
) -> Result<Rendered, Invalid> {
    if let (Some(high), Some(guest)) = (knobs.memory_high(), quota.guest_memory())
        && high < guest
    {
        return Err(Invalid::field(
            "spec.quota.memory.high",
            "is below the guest's memory, so the guest would be slowed down for good; raise it above the guest's memory and KubeVirt's overhead",
        ));
    }
    let (mut spec, labels, annotations) = match (&hull.image, &hull.template) {
        (Some(image), None) => (short_form(image, hull, quota)?, Default::default(), Default::default()),
        (None, Some(template)) => {
            let metadata = template.metadata.clone().unwrap_or_default();
            (long_form(template.spec.clone(), quota)?, metadata.labels, metadata.annotations)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Invalid::field("spec.virtualMachine", "set exactly one of image and template"));
        }
    };
    apply_placement(&mut spec, placement, marks.workload)?;
    let node_quota = knobs.for_container(GUEST_CONTAINER)?;
    let metadata = Some(replica_metadata(marks, "virtualMachine", labels, annotations, node_quota.as_ref())?);
    let template = Template::VirtualMachine(Box::new(VirtualMachineInstanceTemplate { metadata, spec }));
    let in_place = InPlace::of_machine(&template, node_quota);
    Ok(Rendered { template, in_place })
}

/// A guest with virtio devices. KubeVirt's own defaults are a SATA disk and a bridged NIC, which few images want.
fn short_form(image: &str, hull: &VirtualMachineHull, quota: Quota) -> Result<Map<String, Value>, Invalid> {
    let VirtualMachineHull {
        image: _,
        cloud_init,
        readiness_probe,
        liveness_probe,
        termination_grace_period_seconds,
        template: _,
    } = hull;
    if quota.guest_memory().is_none() {
        return Err(Invalid::field(
            "spec.quota.memory.request",
            "a virtual machine needs its guest memory; set it (or the limit) here or in the class",
        ));
    }
    let mut disks = vec![json!({ "name": "root", "disk": { "bus": "virtio" } })];
    let mut volumes = vec![json!({ "name": "root", "containerDisk": { "image": image } })];
    if let Some(source) = cloud_init {
        let CloudInit { user_data, user_data_secret_ref } = source;
        disks.push(json!({ "name": "cloud-init", "disk": { "bus": "virtio" } }));
        let mut body = Map::new();
        if let Some(text) = user_data {
            body.insert("userData".into(), json!(text));
        }
        if let Some(secret) = user_data_secret_ref {
            body.insert("secretRef".into(), json!({ "name": secret.name }));
        }
        volumes.push(json!({ "name": "cloud-init", "cloudInitNoCloud": body }));
    }
    let mut domain = quota.domain();
    domain.insert(
        "devices".into(),
        json!({
            "disks": disks,
            "interfaces": [{ "name": "default", "model": "virtio", "masquerade": {} }],
            "rng": {},
            "autoattachGraphicsDevice": false,
        }),
    );
    let mut spec = Map::from_iter([
        ("domain".to_owned(), Value::Object(domain)),
        ("networks".to_owned(), json!([{ "name": "default", "pod": {} }])),
        ("volumes".to_owned(), Value::Array(volumes)),
        ("terminationGracePeriodSeconds".to_owned(), json!(termination_grace_period_seconds.unwrap_or(30))),
    ]);
    for (name, probe) in [("readinessProbe", readiness_probe), ("livenessProbe", liveness_probe)] {
        if let Some(probe) = probe {
            spec.insert(name.to_owned(), Value::Object(in_time(probe.clone(), name == "readinessProbe")));
        }
    }
    Ok(spec)
}

/// What virt-controller adds to a probe's initialDelaySeconds on the launcher pod, in seconds (`LibvirtStartupDelay` in
/// `pkg/virt-controller/services/renderresources.go` of KubeVirt).
const STARTUP_DELAY: i64 = 10;

/// A probe that begins when its initialDelaySeconds say: what KubeVirt adds is taken off, and it takes numbers below 0
/// for that. A readiness probe that says nothing begins after 1 s: KubeVirt's ten would be lost in every scale-out. A
/// liveness probe that says nothing is left to KubeVirt.
fn in_time(mut probe: Map<String, Value>, readiness: bool) -> Map<String, Value> {
    let given = probe.get("initialDelaySeconds").and_then(Value::as_i64).or(readiness.then_some(1));
    if let Some(given) = given {
        probe.insert("initialDelaySeconds".into(), json!(given.saturating_sub(STARTUP_DELAY)));
    }
    probe
}

fn long_form(mut spec: Map<String, Value>, quota: Quota) -> Result<Map<String, Value>, Invalid> {
    if quota.is_empty() {
        return Ok(spec);
    }
    let Some(Value::Object(domain)) = spec.get_mut("domain") else {
        return Err(Invalid::field("spec.virtualMachine.template.spec.domain", "must be an object"));
    };
    let mut ours = quota.domain();
    if quota.cpu_limit.is_none() && quota.cpu_request.is_none() {
        ours.remove("cpu");
    }
    for (group, fields) in ours {
        let Value::Object(fields) = fields else { continue };
        // Merged field by field, so that a template may still say what a quota does not (cpu.model, memory.hugepages).
        let Value::Object(target) = domain.entry(group.clone()).or_insert_with(|| json!({})) else {
            return Err(Invalid::field(
                &format!("spec.virtualMachine.template.spec.domain.{group}"),
                "must be an object",
            ));
        };
        for (name, value) in fields {
            if target.insert(name.clone(), value).is_some() {
                return Err(Invalid::field(
                    &format!("spec.virtualMachine.template.spec.domain.{group}.{name}"),
                    "comes from spec.quota or spec.className; leave one of the two out",
                ));
            }
        }
    }
    Ok(spec)
}

fn apply_placement(spec: &mut Map<String, Value>, placement: &Placement, workload: &str) -> Result<(), Invalid> {
    let Placement { node_selector, affinity, tolerations, topology_spread_constraints: _, priority_class_name } =
        placement;
    let constraints = spread_constraints(placement, workload);
    let fields = [
        ("nodeSelector", (!node_selector.is_empty()).then(|| json!(node_selector))),
        ("affinity", affinity.as_ref().map(|affinity| json!(affinity))),
        ("tolerations", (!tolerations.is_empty()).then(|| json!(tolerations))),
        ("topologySpreadConstraints", (!constraints.is_empty()).then(|| json!(constraints))),
        ("priorityClassName", priority_class_name.as_ref().filter(|name| !name.is_empty()).map(|name| json!(name))),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        if spec.insert(name.to_owned(), value).is_some() {
            return Err(set_twice("virtualMachine", name));
        }
    }
    Ok(())
}
