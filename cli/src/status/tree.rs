//! The tree as text.

use jiff::Timestamp;

use super::view::{Revision, State, View};
use crate::output::{Rows, Tone, UNKNOWN, age, paint, plain};

/// The header of the replicas of a workload.
const HEADER: [&str; 8] = ["NAME", "REVISION", "IMAGE", "READY", "STATUS", "RESTARTS", "NODE", "AGE"];
/// The column of restarts, a number.
const RIGHT: [usize; 1] = [5];

/// All workloads, with an empty line between two.
#[must_use]
pub fn render(views: &[View], now: Timestamp, colours: bool) -> String {
    let texts: Vec<String> = views.iter().map(|view| workload(view, now, colours)).collect();
    texts.join("\n")
}

fn workload(view: &View, now: Timestamp, colours: bool) -> String {
    let mut text = format!("{}: {}\n", plain(&view.name), view.counts);
    for State { name, text: told, tone } in &view.states {
        text += &format!("  {} {}\n", paint(&format!("{name:<11}"), *tone, colours), plain(told));
    }
    if !view.revisions.is_empty() {
        let mut rows = Rows::new(&HEADER, &RIGHT, colours);
        for (index, revision) in view.revisions.iter().enumerate() {
            let last = index + 1 == view.revisions.len() && view.hidden == 0;
            add(&mut rows, revision, last, now);
        }
        text += &rows.finish();
    }
    match view.hidden {
        0 => {}
        1 => text += "└─ and 1 revision without replicas (--revisions)\n",
        hidden => text += &format!("└─ and {hidden} revisions without replicas (--revisions)\n"),
    }
    text
}

fn add(rows: &mut Rows, revision: &Revision, last: bool, now: Timestamp) {
    let (branch, trunk) = if last { ("└─", "   ") } else { ("├─", "│  ") };
    let unknown = || UNKNOWN.to_owned();
    let short = revision.ready < revision.wanted;
    rows.add([
        (format!("{branch} {}", revision.name), Tone::Plain),
        (revision.label.clone(), Tone::Plain),
        (revision.image.clone().unwrap_or_else(unknown), Tone::Plain),
        (format!("{}/{}", revision.ready, revision.wanted), if short { Tone::Busy } else { Tone::Plain }),
        (revision.state.unwrap_or_default().to_owned(), Tone::Busy),
        (String::new(), Tone::Plain),
        (String::new(), Tone::Plain),
        (age(revision.created.as_ref(), now), Tone::Plain),
    ]);
    for (index, replica) in revision.replicas.iter().enumerate() {
        let branch = if index + 1 == revision.replicas.len() { "└─" } else { "├─" };
        let (ready, tone) = if replica.ready { ("yes", Tone::Plain) } else { ("no", Tone::Busy) };
        rows.add([
            (format!("{trunk}{branch} {}", replica.name), Tone::Plain),
            (String::new(), Tone::Plain),
            (String::new(), Tone::Plain),
            (ready.to_owned(), tone),
            (replica.status.clone(), replica.tone),
            (replica.restarts.map_or_else(unknown, |count| count.to_string()), Tone::Plain),
            (replica.node.clone().unwrap_or_else(unknown), Tone::Plain),
            (age(replica.created.as_ref(), now), Tone::Plain),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::{Value, from_value, json};

    use super::{
        super::view::{Children, Options, views},
        *,
    };

    const NOW: &str = "2026-11-02T10:00:00Z";

    fn owned(name: &str, uid: &str, owner: &str, created: &str) -> Value {
        json!({"namespace": "shop", "name": name, "uid": uid, "creationTimestamp": created,
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner, "controller": true}]})
    }

    fn set(name: &str, uid: &str, number: u64, spec: Value, ready: u32) -> Value {
        let mut meta = owned(name, uid, "workload", "2026-11-02T09:50:00Z");
        meta["labels"] = json!({"catamaran.dev/workload": "web", "catamaran.dev/revision": format!("r{number}")});
        meta["annotations"] = json!({"catamaran.dev/revision-number": number.to_string()});
        json!({"metadata": meta, "spec": spec, "status": {"replicas": ready, "readyReplicas": ready}})
    }

    fn containers(name: &str, uid: &str, number: u64, replicas: u32, ready: u32) -> Value {
        let template =
            json!({"spec": {"containers": [{"name": "main", "image": format!("registry.test/web:{number}")}]}});
        set(name, uid, number, json!({"replicas": replicas, "selector": {}, "template": template}), ready)
    }

    fn pod(name: &str, owner: &str, status: Value) -> Value {
        json!({"metadata": owned(name, name, owner, "2026-11-02T09:59:00Z"), "spec": {"containers": [], "nodeName": "node-1"},
            "status": status})
    }

    fn running(restarts: i32) -> Value {
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
            {"name": "main", "image": "x", "imageID": "x", "ready": true, "restartCount": restarts,
                "state": {"running": {}}}]})
    }

    fn workload(name: &str, spec: Value, status: Value) -> Value {
        json!({"apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "spec": spec, "status": status,
            "metadata": {"namespace": "shop", "name": name, "uid": "workload", "generation": 2}})
    }

    fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW})
    }

    fn rendered(workload: Value, children: &Children, revisions: bool) -> String {
        let now = NOW.parse().expect("a time");
        let workload = from_value(workload).expect("a workload");
        render(&views(&[workload], children, &Options { revisions, now }), now, false)
    }

    fn all<T: serde::de::DeserializeOwned>(objects: Vec<Value>) -> Vec<T> {
        objects.into_iter().map(|object| from_value(object).expect("an object")).collect()
    }

    fn rollout() -> (Value, Children) {
        let children = Children {
            replica_sets: all(vec![
                containers("web-r1", "set-1", 1, 0, 0),
                containers("web-r2", "set-2", 2, 2, 2),
                containers("web-r3", "set-3", 3, 2, 1),
                json!({"spec": {"selector": {}, "replicas": 5}, "metadata": owned("foreign", "set-9", "other", NOW)}),
            ]),
            pods: all(vec![
                pod(
                    "web-r3-b",
                    "set-3",
                    json!({"phase": "Pending", "containerStatuses": [
                    {"name": "main", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                        "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                ),
                pod("web-r3-a", "set-3", running(0)),
                pod("web-r2-a", "set-2", running(3)),
                pod("web-r2-b", "set-2", running(0)),
                pod("foreign-a", "set-9", running(0)),
            ]),
            ..Children::default()
        };
        let spec =
            json!({"container": {"image": "registry.test/web:3"}, "scaling": {"maxReplicas": 8, "schedules": []}});
        let status = json!({
            "observedGeneration": 2, "hull": "container", "desiredReplicas": 3, "replicas": 4, "readyReplicas": 3,
            "availableReplicas": 3, "updatedReplicas": 2, "currentRevision": "r2", "updateRevision": "r3",
            "scaling": {"desiredReplicas": 3, "lastDecision": {"time": "2026-11-02T09:59:15Z", "from": 2, "to": 3,
                "reason": "Metrics", "message": "go from 2 to 3 replicas: recommended: 3 replicas"}},
            "conditions": [
                condition("Ready", "False", "RollingOut", "2 of 3 replicas are up to date"),
                condition("Reconciling", "True", "RollingOut", "2 of 3 replicas are up to date"),
                condition("ScalingActive", "True", "ValidMetricFound", "fine"),
                condition("AbleToScale", "True", "ReadyForNewScale", "fine"),
                condition("ScalingLimited", "True", "TooManyReplicas", "the desired replica count is more than the maximum"),
                condition("QuotaEnforced", "False", "NotEnforced", "Pod web-r3-a on node n1: io.max: no disk vdz"),
                condition("OutOfMemory", "True", "OOMKilled", "container main of Pod web-r3-a was killed"),
            ],
        });
        (workload("web", spec, status), children)
    }

    #[test]
    fn a_rollout_of_containers() {
        let (workload, children) = rollout();
        insta::assert_snapshot!(rendered(workload, &children, false));
    }

    #[test]
    fn old_revisions_on_demand() {
        let (workload, children) = rollout();
        let text = rendered(workload, &children, true);
        assert!(text.contains("web-r1") && !text.contains("--revisions"), "{text}");
    }

    #[test]
    fn virtual_machines() {
        let template =
            json!({"spec": {"volumes": [{"name": "root", "containerDisk": {"image": "registry.test/disk:1"}}]}});
        let spec = json!({"replicas": 2, "paused": true, "selector": {}, "template": template});
        let instance = |name: &str, status: Value| json!({"metadata": owned(name, name, "set-1", "2026-11-01T07:00:00Z"), "spec": {}, "status": status});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let children = Children {
            machine_sets: all(vec![set("web-r1", "set-1", 1, spec, 1)]),
            instances: all(vec![
                instance("web-r1-a", json!({"phase": "Running", "nodeName": "node-2", "conditions": ready})),
                instance("web-r1-b", json!({"phase": "Scheduling"})),
            ]),
            ..Children::default()
        };
        let status = json!({
            "observedGeneration": 1, "hull": "virtualMachine", "desiredReplicas": 2, "readyReplicas": 1,
            "updateRevision": "r1", "currentRevision": "r1",
            "conditions": [condition("Stalled", "True", "CrashLoop", "guests end soon after their start")],
        });
        insta::assert_snapshot!(rendered(workload("web", json!({"virtualMachine": {}}), status), &children, false));
    }

    #[test]
    fn nothing_there_yet() {
        insta::assert_snapshot!(rendered(workload("new", json!({"container": {}}), Value::Null), &Children::default(), false), @r"
        shop/new: no hull yet, 0/0 ready, 0 available, 0 up to date
          Unseen      the operator has not seen it yet; does it run?
        ");
    }
}
