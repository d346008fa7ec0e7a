//! The objects behind the actions, as the API server gets them.

use std::collections::BTreeMap;

use catamaran_crds::{
    ElasticWorkload, ServicePort as DesiredPort,
    kubevirt::{VirtualMachineInstanceReplicaSet, VirtualMachineInstanceReplicaSetSpec},
    names::{
        CRASH_LOOP_ANNOTATION, DESIRED_REPLICAS_ANNOTATION, FROZEN_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL,
        NO_REVISION, NODE_QUOTA_ANNOTATION, POD_DELETION_COST_ANNOTATION, REVISION_LABEL, REVISION_NUMBER_ANNOTATION,
        TEMPLATE_HASH_ANNOTATION, TEMPLATE_QUOTA_ANNOTATION, VICTIM_COST, WORKLOAD_LABEL, leaving_label,
    },
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetSpec},
        core::v1::{Service, ServicePort, ServiceSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::Resource;
use serde_json::{Map, Value, json};

use crate::{
    facts::{Selects, SetFacts},
    goal::{Goal, quota::Quota, render::workload_labels, revision::Template},
    plan::{NewSet, NoteChange, SetQuota, SetUpdate, SpecChange},
};

/// The owner of everything that is written for a workload. A workload that is deleted takes its children along; deleted
/// with `--cascade=orphan` it leaves them.
#[must_use]
pub fn owner_reference(desired: &Goal) -> OwnerReference {
    OwnerReference {
        api_version: ElasticWorkload::api_version(&()).into_owned(),
        kind: ElasticWorkload::kind(&()).into_owned(),
        name: desired.name.clone(),
        uid: desired.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn child_metadata(desired: &Goal, name: &str, uid: Option<String>) -> ObjectMeta {
    let mut labels = workload_labels(&desired.name);
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(desired.namespace.clone()),
        uid,
        labels: Some(labels),
        owner_references: Some(vec![owner_reference(desired)]),
        ..ObjectMeta::default()
    }
}

/// The replica set of a new revision, of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum SetObject {
    /// For the container hull.
    ReplicaSet(Box<ReplicaSet>),
    /// For the virtual machine hull.
    VirtualMachineInstanceReplicaSet(Box<VirtualMachineInstanceReplicaSet>),
}

/// Builds the replica set of a new revision.
#[must_use]
pub fn replica_set(desired: &Goal, set: &NewSet) -> SetObject {
    let mut metadata = child_metadata(desired, &set.name, None);
    metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), set.revision.clone());
    metadata.annotations = Some(BTreeMap::from([
        (REVISION_NUMBER_ANNOTATION.to_owned(), set.number.to_string()),
        (DESIRED_REPLICAS_ANNOTATION.to_owned(), set.desired_replicas.to_string()),
        (TEMPLATE_HASH_ANNOTATION.to_owned(), set.template_hash.clone()),
    ]));
    let mut match_labels = workload_labels(&desired.name);
    match_labels.insert(REVISION_LABEL.to_owned(), set.revision.clone());
    let selector = LabelSelector { match_labels: Some(match_labels), ..LabelSelector::default() };
    let replicas = Some(i32::try_from(set.replicas).unwrap_or(i32::MAX));
    match &set.template {
        Template::Container(template) => SetObject::ReplicaSet(Box::new(ReplicaSet {
            metadata,
            spec: Some(ReplicaSetSpec {
                replicas,
                selector,
                min_ready_seconds: (set.min_ready_seconds > 0)
                    .then(|| i32::try_from(set.min_ready_seconds).unwrap_or(i32::MAX)),
                template: Some(template.as_ref().clone()),
            }),
            status: None,
        })),
        Template::VirtualMachine(template) => {
            SetObject::VirtualMachineInstanceReplicaSet(Box::new(VirtualMachineInstanceReplicaSet {
                metadata,
                spec: VirtualMachineInstanceReplicaSetSpec {
                    replicas,
                    selector,
                    template: Some(template.as_ref().clone()),
                    paused: None,
                },
                status: None,
            }))
        }
    }
}

/// A patch that changes the scale, pause, notes or quota of a replica set: a strategic one for a ReplicaSet, which
/// knows containers by their names; a merge patch for a VirtualMachineInstanceReplicaSet, which has no other and no
/// containers.
///
/// Not server-side apply: that would have to repeat the whole template of a revision, which for an old one only the set
/// itself still holds (docs/adr/0002).
#[must_use]
pub fn set_patch(update: &SetUpdate) -> Value {
    let SetUpdate { set, spec, notes, quota } = update;
    let mut metadata = Map::new();
    metadata.insert("uid".into(), json!(set.uid));
    metadata.insert("resourceVersion".into(), json!(set.resource_version));
    let annotations = notes_patch(notes);
    if !annotations.is_empty() {
        metadata.insert("annotations".into(), Value::Object(annotations));
    }
    let mut spec = spec_patch(spec);
    if let Some(quota) = quota {
        spec.insert("template".into(), quota_patch(quota));
    }
    let mut patch = json!({ "metadata": metadata });
    if !spec.is_empty() {
        patch["spec"] = Value::Object(spec);
    }
    patch
}

fn spec_patch(change: &SpecChange) -> Map<String, Value> {
    let SpecChange { replicas, min_ready_seconds, paused } = change;
    let fields = [
        ("replicas", replicas.map(|replicas| json!(replicas))),
        ("minReadySeconds", min_ready_seconds.map(|seconds| json!(seconds))),
        ("paused", paused.map(|paused| json!(paused))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The annotations; one that is null is removed.
fn notes_patch(change: &NoteChange) -> Map<String, Value> {
    let NoteChange { desired_replicas, number, template_hash, crash_loop, frozen } = change;
    let crash_loop = crash_loop.map(|state| state.and_then(|state| serde_json::to_string(&state).ok()));
    let notes = [
        (DESIRED_REPLICAS_ANNOTATION, desired_replicas.map(|count| json!(count.to_string()))),
        (REVISION_NUMBER_ANNOTATION, number.map(|number| json!(number.to_string()))),
        (CRASH_LOOP_ANNOTATION, crash_loop.map(|note| json!(note))),
        (TEMPLATE_HASH_ANNOTATION, template_hash.as_ref().map(|hash| json!(hash))),
        (FROZEN_ANNOTATION, frozen.map(|note| json!(note.map(|note| note.to_string())))),
    ];
    notes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn quota_patch(quota: &SetQuota) -> Value {
    let SetQuota { container, resources, annotation: _, lone: _ } = quota;
    let mut template = Map::new();
    if let Some(metadata) = quota_annotations(quota) {
        template.insert("metadata".into(), json!({ "annotations": metadata }));
    }
    if let Some(resources) = resources.and_then(Quota::container_resources) {
        template.insert("spec".into(), json!({ "containers": [{ "name": container, "resources": resources }] }));
    }
    Value::Object(template)
}

/// The annotations of a template, if they change.
fn quota_annotations(quota: &SetQuota) -> Option<Value> {
    let SetQuota { container: _, resources, annotation, lone } = quota;
    let noted = resources.map(|quota| (TEMPLATE_QUOTA_ANNOTATION, json!(quota.to_string())));
    match annotation {
        Some(None) if *lone && noted.is_none() => Some(Value::Null),
        _ => {
            let held = annotation.as_ref().map(|annotation| (NODE_QUOTA_ANNOTATION, json!(annotation)));
            let all: Map<String, Value> =
                held.into_iter().chain(noted).map(|(name, value)| (name.to_owned(), value)).collect();
            (!all.is_empty()).then_some(Value::Object(all))
        }
    }
}

/// A merge patch that tells the node agent another quota for a pod.
#[must_use]
pub fn node_quota_patch(uid: &str, annotation: Option<&str>) -> Value {
    json!({ "metadata": { "uid": uid, "annotations": { NODE_QUOTA_ANNOTATION: annotation } } })
}

/// A merge patch that takes the quota for node agents off a replica set's template. Replicas that exist are not touched
/// by it.
#[must_use]
pub fn unheld_template_patch(set: &SetFacts) -> Value {
    let none = SetQuota { container: String::new(), resources: None, annotation: Some(None), lone: set.quota.lone };
    json!({
        "metadata": { "uid": set.uid, "resourceVersion": set.resource_version },
        "spec": { "template": quota_patch(&none) },
    })
}

/// A strategic merge patch of a pod's subresource `resize`.
#[must_use]
pub fn resize_patch(uid: &str, container: &str, quota: Quota) -> Value {
    let resources = quota.container_resources().unwrap_or_default();
    json!({ "metadata": { "uid": uid }, "spec": { "containers": [{ "name": container, "resources": resources }] } })
}

/// A merge patch that marks a pod as a victim, or takes the mark off. The cost is the lowest but one that the
/// ReplicaSet controller reads (an int32), so that somebody else's marks can still go before ours.
#[must_use]
pub fn pod_patch(uid: &str, marked: bool) -> Value {
    let annotations = json!({ POD_DELETION_COST_ANNOTATION: marked.then_some(VICTIM_COST) });
    json!({ "metadata": { "uid": uid, "annotations": annotations } })
}

/// A merge patch that takes a pod out of the Service of its workload, since a time, or puts it back.
#[must_use]
pub fn service_label_patch(workload: &str, uid: &str, since: Option<Timestamp>) -> Value {
    let label = since.map_or_else(|| workload.to_owned(), |since| leaving_label(workload, since.as_second()));
    json!({ "metadata": { "uid": uid, "labels": { WORKLOAD_LABEL: label } } })
}

/// What the Service of a workload selects: its replicas of both hulls, and none of them while it is frozen.
#[must_use]
pub fn service_selector(workload: &str, selects: Selects) -> BTreeMap<String, String> {
    let mut labels = workload_labels(workload);
    match selects {
        Selects::Replicas => {}
        Selects::Nothing => {
            labels.insert(REVISION_LABEL.to_owned(), NO_REVISION.to_owned());
        }
    }
    labels
}

/// The Service over the replicas of both hulls.
#[must_use]
pub fn service(desired: &Goal, ports: &[DesiredPort], uid: Option<String>) -> Service {
    Service {
        metadata: child_metadata(desired, &desired.name, uid),
        spec: Some(ServiceSpec {
            selector: Some(service_selector(&desired.name, Selects::for_state(desired.state))),
            ports: Some(ports.iter().map(service_port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A merge patch that brings the ports of a Service in a version, and what it selects, to what is wanted; what others
/// added to them goes. `selector` is the one that it has.
#[must_use]
pub fn service_patch(resource_version: &str, selector: &BTreeMap<String, String>, wanted: &Service) -> Value {
    let spec = wanted.spec.as_ref();
    let kept = spec.and_then(|spec| spec.selector.as_ref()).into_iter().flatten();
    let kept = kept.map(|(key, value)| (key, Some(value)));
    let selector: BTreeMap<&String, Option<&String>> = selector.keys().map(|key| (key, None)).chain(kept).collect();
    json!({
        "metadata": { "uid": wanted.metadata.uid, "resourceVersion": resource_version },
        "spec": { "ports": spec.map(|spec| &spec.ports), "selector": selector },
    })
}

fn service_port(port: &DesiredPort) -> ServicePort {
    let port = normalized(port);
    ServicePort {
        name: port.name,
        port: port.port,
        target_port: port.target_port,
        protocol: port.protocol,
        app_protocol: port.app_protocol,
        node_port: None,
    }
}

/// A port with the API server's defaults filled in, for comparison with what is stored.
#[must_use]
pub fn normalized(port: &DesiredPort) -> DesiredPort {
    let DesiredPort { name, port: number, target_port, protocol, app_protocol } = port.clone();
    DesiredPort {
        name: name.filter(|name| !name.is_empty()),
        port: number,
        target_port: Some(target_port.unwrap_or(IntOrString::Int(number))),
        protocol: Some(protocol.unwrap_or_else(|| "TCP".to_owned())),
        app_protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_add_to_the_selector_of_a_service_is_taken_out() {
        let selector = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (selected, ports) = (Some(selector(&[("a", "b")])), Some(Vec::new()));
        let spec = ServiceSpec { selector: selected, ports, ..ServiceSpec::default() };
        let metadata = ObjectMeta { uid: Some("u".to_owned()), ..ObjectMeta::default() };
        let wanted = Service { metadata, spec: Some(spec), status: None };
        let patch = service_patch("7", &selector(&[("a", "other"), ("c", "d")]), &wanted);
        assert_eq!(
            patch,
            json!({
                "metadata": {"uid": "u", "resourceVersion": "7"},
                "spec": {"ports": [], "selector": {"a": "b", "c": null}},
            })
        );
    }
}
