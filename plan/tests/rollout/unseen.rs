//! While the API server does not list KubeVirt's kinds, what may have virtual machines is left alone, and nobody else
//! is.

use catamaran_crds::Hull;
use catamaran_plan::{Facts, Goal, facts::KubeVirt, plan, plan::Wait};

use crate::in_place::{desired, running, with_quota};

const MACHINE: &str = "virtualMachine: {image: b}, quota: {cpu: {limit: 1}, memory: {limit: 1Gi}}, replicas: 2";

fn unseen(goal: &Goal, change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = running(goal);
    facts.kubevirt = KubeVirt::Unknown;
    facts.status.current_revision = Some(goal.revision.clone());
    change(&mut facts);
    facts
}

#[test]
fn containers_go_on_and_virtual_machines_wait_for_an_answer() {
    let container = with_quota("{cpu: {limit: 1}}");
    let more = Goal { replicas: Some(3), ..container.clone() };
    let plan_of = |goal: &Goal, change: fn(&mut Facts)| plan(goal, &unseen(&container, change), None);
    let goes_on = plan_of(&more, |_| {});
    assert!(!goes_on.steps.is_empty() && !goes_on.waits.contains(&Wait::KubeVirtListed), "{goes_on}");
    let first = plan_of(&more, |facts| {
        facts.sets.clear();
        facts.status.current_revision = None;
    });
    assert!(!first.steps.is_empty(), "{first}");
    for (what, goal, change) in [
        ("a virtual machine is wanted", desired(MACHINE), (|_| {}) as fn(&mut Facts)),
        ("it was one a moment ago", more.clone(), |facts| facts.status.hull = Some(Hull::VirtualMachine)),
        ("its last revision is not among the sets", more, |facts| {
            facts.status.current_revision = Some("0123456789".to_owned());
        }),
    ] {
        let waits = plan_of(&goal, change);
        assert!(waits.steps.is_empty(), "{what}: {waits}");
        assert_eq!(waits.waits, [Wait::KubeVirtListed], "{what}");
        let ready = waits.status.conditions.iter().find(|condition| condition.type_ == "Ready");
        assert_eq!(ready.map(|ready| ready.reason.as_str()), Some("KubeVirtUnknown"), "{what}");
        assert!(waits.requeue_at.is_some(), "{what}: it is looked at again");
    }
}
