//! A restart that is asked for by an annotation, and templates that are written in another way.

use catamaran_crds::{ElasticWorkload, names::RESTARTED_AT_ANNOTATION};
use catamaran_plan::{Action, Facts, Goal, Invalid, facts::SetFacts, goal::alike::is_alike, plan, resolve};
use serde_json::json;

use crate::in_place::{desired, running};

const FIRST: &str = "2026-03-01T10:00:00Z";
const SECOND: &str = "2026-03-02T10:00:00Z";

/// A workload of either hull with this annotation, whose status remembers that.
fn asked(hull: &str, annotation: Option<&str>, remembered: Option<&str>) -> Result<Goal, Invalid> {
    let hull = match hull {
        "container" => json!({ "container": { "image": "a" } }),
        _ => json!({ "virtualMachine": { "image": "a" }, "quota": { "memory": { "limit": "1Gi" } } }),
    };
    let mut workload: ElasticWorkload = serde_json::from_value(json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload",
        "metadata": { "name": "web", "namespace": "shop", "uid": "w", "generation": 2 },
        "spec": hull, "status": { "restartedAt": remembered },
    }))
    .expect("a workload");
    let annotation = annotation.map(|text| [(RESTARTED_AT_ANNOTATION.to_owned(), text.to_owned())].into());
    workload.metadata.annotations = annotation;
    resolve(&workload, None)
}

fn goal(hull: &str, annotation: Option<&str>, remembered: Option<&str>) -> Goal {
    asked(hull, annotation, remembered).expect("a goal")
}

#[test]
fn a_restart_is_another_revision_once() {
    for hull in ["container", "virtualMachine"] {
        let before = goal(hull, None, None);
        let restarted = goal(hull, Some(FIRST), None);
        assert_ne!(
            (&before.revision, &before.in_place.hash),
            (&restarted.revision, &restarted.in_place.hash),
            "{hull}"
        );
        // A GitOps tool takes the annotation off, or puts back the one of its source.
        for (annotation, remembered) in [
            (Some(FIRST), Some(FIRST)),
            (None, Some(FIRST)),
            (Some("2026-02-01T10:00:00Z"), Some(FIRST)),
            (Some("2026-03-01T11:00:00+01:00"), None),
        ] {
            assert_eq!(goal(hull, annotation, remembered).revision, restarted.revision, "{hull} {annotation:?}");
        }
        assert_ne!(goal(hull, Some(SECOND), Some(FIRST)).revision, restarted.revision, "{hull}");
    }
}

#[test]
fn the_status_remembers_a_restart() {
    let restarted = goal("container", Some(FIRST), None);
    let planned = plan(&restarted, &running(&goal("container", None, None)), None);
    assert!(planned.steps.iter().any(|step| matches!(step.action, Action::CreateSet(_))), "{planned}");
    assert_eq!(planned.status.restarted_at.map(|time| time.0.to_string()).as_deref(), Some(FIRST));
}

#[test]
fn what_is_no_time_is_refused_by_name() {
    let error = asked("container", Some("now"), None).expect_err("it is no time").to_string();
    assert!(
        error.contains("metadata.annotations[catamaran.dev/restarted-at]") && error.contains("RFC 3339"),
        "{error}"
    );
}

/// The field: `1000m` became `"1"`, and all replicas rolled.
#[test]
fn the_newest_set_may_be_like_a_template_that_is_written_in_another_way() {
    let (before, after) = (desired("container: {image: a}"), desired("container: {image: b}"));
    let like = |facts: &Facts| {
        let made = plan(&after, facts, None).steps.into_iter().find_map(|step| match step.action {
            Action::CreateSet(set) => Some(set.like.map(|set| set.name)),
            _ => None,
        });
        made.expect("a set is made")
    };
    let with = |edit: fn(&mut SetFacts)| {
        let mut facts = running(&before);
        edit(&mut facts.sets[0]);
        like(&facts)
    };
    assert_eq!(with(|_| {}), Some(format!("web-{}", before.revision)));
    assert_eq!(with(|set| set.deleting = true), None);
    assert_eq!(with(|set| set.changed_by = Some("kubectl-set".to_owned())), None);
    assert_eq!(like(&Facts { sets: Vec::new(), ..running(&before) }), None);
}

#[test]
fn what_means_the_same_is_alike() {
    let alike = |a: &str, b: &str| {
        let (a, b) = (desired(a), desired(b));
        is_alike(&b.in_place, &a.template, &b.template)
    };
    assert!(alike("container: {image: a}", "container: {image: a}"));
    assert!(!alike("container: {image: a}", "container: {image: b}"));
    // In place, as far as that goes: not into another QoS class.
    assert!(alike(
        "container: {image: a}, quota: {cpu: {request: 1}, pids: 7}",
        "container: {image: a}, quota: {cpu: {request: 2}}"
    ));
    assert!(!alike(
        "container: {image: a}, quota: {cpu: {request: 1}}",
        "container: {image: a}, quota: {cpu: {limit: 1}, memory: {limit: 1Gi}}"
    ));
    // Nobody reads the quantities of a VirtualMachineInstanceReplicaSet but us.
    let guest = |memory: &str, label: &str| {
        format!(
            "virtualMachine: {{template: {{metadata: {{labels: {{a: {label}}}}}, spec: {{domain: {{devices: {{}},
                memory: {{guest: {memory}}}, resources: {{requests: {{cpu: 1000m}}}}}}}}}}}}"
        )
    };
    assert!(alike(&guest("1024Mi", "x"), &guest("1Gi", "x").replace("1000m", "1")));
    assert!(!alike(&guest("1024Mi", "x"), &guest("1G", "x")));
    assert!(!alike(&guest("1Gi", "1000m"), &guest("1Gi", "\"1\"")));
}
