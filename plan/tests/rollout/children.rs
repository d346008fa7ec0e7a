//! Replica sets that are not as we wrote them, or whose controller cannot do its part; and a spec that makes no sense.

use catamaran_crds::OnFailure;
use catamaran_plan::{Action, Facts, Invalid, Plan, plan, plan_invalid};

use crate::in_place::{desired, running, with_quota};

fn condition<'a>(plan: &'a Plan, type_: &str) -> Option<(&'a str, &'a str)> {
    let mut conditions = plan.status.conditions.iter();
    conditions.find(|condition| condition.type_ == type_).map(|found| (&*found.reason, &*found.message))
}

/// The field: `kubectl set image` on the ReplicaSet. It was believed, and came back with a rollback.
#[test]
fn a_template_that_others_wrote_is_reported_and_replaced() {
    let wanted = desired("container: {image: a}");
    let mut facts = running(&wanted);
    facts.sets[0].changed_by = Some("kubectl-set".to_owned());
    let planned = plan(&wanted, &facts, None);
    let made = planned.steps.iter().find_map(|step| match &step.action {
        Action::CreateSet(set) => Some(set.clone()),
        _ => None,
    });
    let made = made.expect("another set");
    assert_ne!(made.revision, wanted.revision, "the name is taken");
    assert!(
        condition(&planned, "ForeignChange").is_some_and(|(_, message)| message.contains("kubectl-set")),
        "{planned}"
    );
    assert!(planned.announcements.iter().any(|event| event.warning && event.reason == "TemplateChanged"));

    // Nobody goes back to it either.
    let mut next = desired("container: {image: b}, rollout: {onFailure: Rollback, progressDeadlineSeconds: 1}");
    next.rollout.on_failure = OnFailure::Rollback;
    facts.status.current_revision = Some(wanted.revision.clone());
    facts.status.failed_revision = Some(next.revision.clone());
    assert_eq!(plan(&next, &facts, None).status.update_revision.as_ref(), Some(&next.revision));
    assert!(condition(&plan(&next, &facts, None), "Ready").is_none_or(|(reason, _)| reason != "RollingBack"));
}

/// A full ResourceQuota, Pod Security, a LimitRange, a webhook: the same words as a Deployment has, at once.
#[test]
fn what_keeps_a_set_from_making_replicas_is_reported_while_they_are_missing() {
    let wanted = desired("container: {image: a}, replicas: 3");
    let mut facts = running(&wanted);
    facts.sets[0].replicas = 3;
    facts.sets[0].desired_replicas = Some(3);
    facts.sets[0].failure = Some("pods \"web-1\" is forbidden: exceeded quota".to_owned());
    let planned = plan(&wanted, &facts, None);
    for type_ in ["ReplicaFailure", "Ready", "Reconciling"] {
        let (_, message) = condition(&planned, type_).expect("a condition");
        assert!(message.contains("exceeded quota"), "{planned}");
    }
    assert_eq!(condition(&planned, "Ready").map(|(reason, _)| reason), Some("ReplicaFailure"));
    assert!(planned.announcements.iter().any(|event| event.warning && event.note.contains("exceeded quota")));
    facts.sets[0].failure = None;
    assert!(condition(&plan(&wanted, &facts, None), "ReplicaFailure").is_none());
}

#[test]
fn counts_are_true_while_the_spec_makes_no_sense() {
    let before = running(&with_quota("{}"));
    let mut facts = Facts { status: plan(&with_quota("{}"), &before, None).status, ..before };
    assert_eq!((facts.status.replicas, facts.status.available_replicas), (1, 1));
    facts.sets.clear();
    let planned = plan_invalid(3, &Invalid::field("spec.scaling", "no such zone"), &facts);
    let status = &planned.status;
    assert_eq!(
        (status.replicas, status.available_replicas, status.ready_replicas, status.updated_replicas),
        (0, 0, 0, 0)
    );
    assert_eq!((status.observed_generation, condition(&planned, "Stalled").is_some()), (Some(3), true));
}
