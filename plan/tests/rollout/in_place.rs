//! Which edits of a quota take effect in place: a table over pairs of specs, and what keeps a set from being kept.

use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus};
use catamaran_plan::{
    Action, Facts, Goal, Plan,
    facts::{
        KubeVirt, Members, Pod, PodQuota, PodSet, RefusedResize, Resize, ResizeApi, ServiceFacts, SetFacts,
        TemplateQuota,
    },
    goal::quota::Quota,
    plan, resolve,
};

use crate::simulator::time;

pub(crate) fn desired(spec: &str) -> Goal {
    let text = format!("{{metadata: {{name: web, namespace: shop, uid: w, generation: 2}}, spec: {{{spec}}}}}");
    let workload: ElasticWorkload = serde_saphyr::from_str(&text).expect("a workload");
    resolve(&workload, None).expect("a valid workload")
}

pub(crate) fn with_quota(quota: &str) -> Goal {
    desired(&format!("container: {{image: a}}, quota: {quota}"))
}

/// What there is when `before` runs with one replica.
pub(crate) fn running(before: &Goal) -> Facts {
    let quota = TemplateQuota {
        annotation: before.in_place.annotation(),
        containers: before
            .in_place
            .resources
            .map(|quota| (before.in_place.container.clone(), quota))
            .into_iter()
            .collect(),
        ..TemplateQuota::default()
    };
    let pod = Pod {
        name: "web-1-a".to_owned(),
        uid: "pod-a".to_owned(),
        created: time(-100),
        ready_since: Some(time(-90)),
        usage: None,
        marked: false,
        quota: PodQuota::from(quota.clone()),
        asked: None,
        refused: None,
    };
    let set = SetFacts {
        name: format!("web-{}", before.revision),
        uid: "set".to_owned(),
        resource_version: "1".to_owned(),
        revision: before.revision.clone(),
        number: 1,
        replicas: 1,
        desired_replicas: Some(1),
        template_hash: Some(before.in_place.hash.clone()),
        quota,
        probed: false,
        deleting: false,
        failure: None,
        changed_by: None,
        members: Members::Pods(PodSet {
            live: 1,
            ready: 1,
            available: 1,
            min_ready_seconds: 0,
            current: true,
            marks_asked: None,
            pods: vec![pod],
        }),
    };
    Facts {
        now: time(0),
        kubevirt: KubeVirt::Absent,
        sets: vec![set],
        foreign_sets: Vec::new(),
        service: ServiceFacts::Absent,
        status: ElasticWorkloadStatus::default(),
        watched_since: jiff::Timestamp::MIN,
        resize: ResizeApi::Served,
        usage_due: None,
        enforcement: Vec::new(),
        out_of_memory: Vec::new(),
        strays: Vec::new(),
        troubles: Vec::new(),
    }
}

fn change(observed: &mut Facts, edit: impl FnOnce(&mut SetFacts, &mut Vec<Pod>)) {
    let mut set = observed.sets[0].clone();
    if let Members::Pods(pods) = &set.members {
        let mut pods = pods.clone();
        edit(&mut set, &mut pods.pods);
        set.members = Members::Pods(pods);
    }
    observed.sets[0] = set;
}

fn creates(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step.action, Action::CreateSet(_)))
}

#[test]
fn which_edits_are_in_place() {
    let guaranteed = "{cpu: {limit: 1}, memory: {limit: 64Mi}}";
    let burstable = "{cpu: {request: 100m, limit: 1}, memory: {limit: 64Mi}}";
    for (before, after, in_place, why) in [
        (guaranteed, "{cpu: {limit: 2}, memory: {limit: 32Mi}}", true, "other limits"),
        (guaranteed, burstable, false, "another QoS class"),
        (burstable, guaranteed, false, "another QoS class"),
        (burstable, "{cpu: {request: 200m, limit: 500m}, memory: {request: 32Mi, limit: 64Mi}}", true, "other values"),
        (burstable, "{cpu: {request: 100m}, memory: {limit: 64Mi}}", false, "a limit is taken away"),
        (burstable, "{cpu: {request: 100m, limit: 1}}", false, "memory is taken away"),
        ("{cpu: {request: 100m}}", "{cpu: {request: 100m, limit: 1}}", true, "a limit is added"),
        ("{cpu: {request: 100m}}", "{cpu: {request: 100m}, memory: {limit: 64Mi}}", true, "memory is added"),
        ("{}", burstable, false, "a quota where there was none"),
        (burstable, "{}", false, "no quota any more"),
        (
            burstable,
            "{cpu: {request: 100m, limit: 1, burst: 500m, weight: 7}, memory: {limit: 64Mi, high: 48Mi, swap: 0}, pids: 9, io: [{device: vda, writeBytesPerSecond: 1M}]}",
            true,
            "what the agent holds",
        ),
        ("{pids: 9}", "{}", true, "nothing to hold any more"),
        ("{}", "{pids: 9}", true, "something to hold"),
    ] {
        let (old, new) = (with_quota(before), with_quota(after));
        let plan = plan(&new, &running(&old), None);
        assert_eq!(creates(&plan), !in_place, "{why}: {before} -> {after}\n{plan}");
        assert_eq!(plan.status.update_revision.as_ref() == Some(&old.revision), in_place, "{why}");
    }
}

#[test]
fn what_a_template_says_of_resizes_is_heeded() {
    let long = |pod: &str, container: &str, limit: &str| {
        desired(&format!(
            "container: {{template: {{spec: {{{pod}containers: [{{name: app, image: a{container}}}, {{name: side, image: b}}]}}}}}}, quota: {{cpu: {{limit: {limit}}}, memory: {{limit: 64Mi}}}}"
        ))
    };
    for (pod, container, in_place) in [
        ("", "", true),
        ("", ", resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}]", true),
        ("", ", resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]", false),
        ("os: {name: windows}, ", "", false),
        ("os: {name: linux}, ", "", true),
        ("resources: {limits: {cpu: 4}}, ", "", false),
    ] {
        let (old, new) = (long(pod, container, "1"), long(pod, container, "2"));
        assert_eq!(!creates(&plan(&new, &running(&old), None)), in_place, "{pod}{container}");
    }
}

#[test]
fn an_operator_that_is_newer_than_a_set_keeps_it_and_notes_the_hash() {
    let old = with_quota("{cpu: {limit: 1}}");
    let mut observed = running(&old);
    change(&mut observed, |set, _| set.template_hash = None);
    let plan = plan(&old, &observed, None);
    let [step] = plan.steps.as_slice() else { panic!("{plan}") };
    let Action::UpdateSet(update) = &step.action else { panic!("{plan}") };
    assert_eq!(update.notes.template_hash.as_ref(), Some(&old.in_place.hash));
    assert_eq!((update.spec.replicas, &update.quota), (None, &None));
}

#[test]
fn without_the_resize_api_only_the_agent_s_part_is_in_place() {
    let old = with_quota("{cpu: {limit: 1}}");
    let mut observed = running(&old);
    observed.resize = ResizeApi::Absent;
    assert!(creates(&plan(&with_quota("{cpu: {limit: 2}}"), &observed, None)));
    assert!(!creates(&plan(&with_quota("{cpu: {limit: 1}, pids: 9}"), &observed, None)));
}

/// A failed revision whose quota is corrected is tried again, though its set could be changed in place.
#[test]
fn a_failed_revision_with_another_quota_is_a_new_try() {
    let (old, new) = (with_quota("{cpu: {limit: 1}}"), with_quota("{cpu: {limit: 2}}"));
    let mut observed = running(&old);
    observed.status.failed_revision = Some(old.revision.clone());
    assert!(!creates(&plan(&old, &observed, None)), "the same again is no new try");
    assert!(creates(&plan(&new, &observed, None)));
}

/// What a node can never do the API server says at once; of another quota it said nothing.
#[test]
fn a_resize_that_the_api_server_refuses_for_the_node_rolls() {
    let (old, new) = (with_quota("{cpu: {limit: 1}}"), with_quota("{cpu: {limit: 2}}"));
    let resources = new.in_place.resources.expect("CPU and memory");
    let refused = |quota| Some(RefusedResize { quota, message: "too much".to_owned() });
    for (quota, rolls) in [(resources, true), (Quota { cpu_limit: Some(1), ..resources }, false)] {
        let mut observed = running(&old);
        change(&mut observed, |_, pods| pods[0].refused = refused(quota));
        let plan = plan(&new, &observed, None);
        assert_eq!(creates(&plan), rolls, "{plan}");
        assert_eq!(plan.to_string().contains("cannot be resized where it runs (too much)"), rolls, "{plan}");
    }
}

/// The set that bears the first name cannot become like the template again: another name is taken.
#[test]
fn a_name_that_is_taken_is_not_taken_twice() {
    let (old, wide) = (with_quota("{cpu: {request: 100m}}"), with_quota("{cpu: {request: 100m, limit: 1}}"));
    let mut observed = running(&old);
    // It was widened in place; now the limit is taken away again.
    change(&mut observed, |set, pods| {
        set.quota = running(&wide).sets[0].quota.clone();
        pods[0].quota = PodQuota::from(set.quota.clone());
    });
    let plan = plan(&old, &observed, None);
    assert!(creates(&plan), "{plan}");
    assert_ne!(plan.status.update_revision, Some(old.revision));
}

#[test]
fn a_pod_that_somebody_else_changes_is_not_fought_over() {
    let (old, new) = (with_quota("{cpu: {limit: 1}}"), with_quota("{cpu: {limit: 2}}"));
    let mut observed = running(&old);
    change(&mut observed, |set, pods| {
        let doubled = Quota { cpu_limit: Some(2000), cpu_request: Some(2000), ..Quota::default() };
        set.quota.containers = set.quota.containers.with("main", doubled);
        pods[0].asked = new.in_place.resources;
    });
    let plan = plan(&new, &observed, None);
    assert!(plan.steps.is_empty(), "{plan}");
    assert!(plan.to_string().contains("ResizeOverruled"), "{plan}");
}

#[test]
fn each_state_of_a_resize_is_told() {
    let (old, new) = (with_quota("{cpu: {limit: 1}}"), with_quota("{cpu: {limit: 2}}"));
    for (resize, reason) in [
        (Resize::Settled, "Available"),
        (Resize::InProgress, "Resizing"),
        (Resize::Failing("cpu.max: invalid argument".to_owned()), "ResizeFailing"),
        (Resize::Deferred("no room".to_owned()), "ResizeDeferred"),
    ] {
        let mut observed = running(&new);
        change(&mut observed, |set, pods| {
            set.revision.clone_from(&old.revision);
            pods[0].quota.resize = resize.clone();
        });
        let plan = plan(&new, &observed, None);
        assert!(plan.steps.is_empty(), "{plan}");
        assert_eq!(plan.status.conditions[0].reason, reason, "{resize:?}");
        assert!(plan.status.conditions.iter().all(|condition| condition.type_ != "Stalled"), "{plan}");
    }
    let mut observed = running(&new);
    change(&mut observed, |_, pods| pods[0].quota.resize = Resize::Infeasible("too much".to_owned()));
    assert!(creates(&plan(&new, &observed, None)));
}

/// What a policy or a webhook makes of a new pod is told, and not fought over; a quota that is asked for later reaches
/// the pod, and so does this one if the pod was made before it was asked for.
#[test]
fn a_pod_that_admission_changed_is_left_so_and_told() {
    let old = with_quota("{cpu: {request: 100m, limit: 1}}");
    let wanted = old.in_place.resources.expect("CPU");
    let mut observed = running(&old);
    change(&mut observed, |_, pods| {
        let quota = &mut pods[0].quota;
        quota.containers = quota.containers.with("main", Quota { cpu_request: Some(250), ..wanted });
        quota.template = Some(wanted.to_string());
    });
    let left = plan(&old, &observed, None);
    assert!(left.steps.is_empty(), "{left}");
    assert_eq!(left.status.conditions[0].reason, "Available", "{left}");
    let enforced = left.status.conditions.iter().find(|condition| condition.type_ == "QuotaEnforced");
    let enforced = enforced.expect("a condition");
    assert_eq!((enforced.status.as_str(), enforced.reason.as_str()), ("False", "ChangedAtAdmission"));
    assert!(enforced.message.contains("cpu request 250m"), "{}", enforced.message);
    assert!(enforced.message.contains("cpu request 100m"), "{}", enforced.message);

    let resizes = |goal: &Goal, observed: &Facts| {
        let plan = plan(goal, observed, None);
        plan.steps.iter().any(|step| matches!(step.action, Action::ResizePod { .. }))
    };
    let mut unknown = observed.clone();
    change(&mut unknown, |_, pods| pods[0].quota.template = None);
    assert!(resizes(&old, &unknown), "changed since, or from before that was noted");
    assert!(resizes(&with_quota("{cpu: {request: 200m, limit: 1}}"), &observed), "asked for later");
}
