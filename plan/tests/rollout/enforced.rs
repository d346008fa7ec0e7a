//! The conditions of a quota: whether nodes hold replicas to it, and OOM kills.

use catamaran_plan::{
    Facts, Goal, Plan, Problem,
    facts::{Enforcement, OomKill, QuotaReport},
    plan,
    status::{Progress, with_problem},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    in_place::{desired, running, with_quota},
    simulator::time,
};

const MIB: u64 = 1 << 20;

fn find<'a>(plan: &'a Plan, type_: &str) -> Option<&'a Condition> {
    plan.status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn enforced(plan: &Plan) -> Option<(&str, &str, &str)> {
    find(plan, "QuotaEnforced").map(|found| (&*found.status, &*found.reason, &*found.message))
}

/// What runs with this quota, and what is told of its pods by their agents.
fn told(desired: &Goal, told: &[QuotaReport]) -> Facts {
    let pods = told.iter().enumerate();
    let enforcement = pods.map(|(index, told)| Enforcement {
        pod: format!("web-1-{index}"),
        node: "n1".to_owned(),
        told: told.clone(),
    });
    Facts { enforcement: enforcement.collect(), ..running(desired) }
}

#[test]
fn what_agents_tell_is_one_condition() {
    let of_agent = with_quota("{pids: 64}");
    let not_held = || QuotaReport::NotHeld("pids.max: permission denied".to_owned());
    let not_yet = || QuotaReport::NotYet("no container main runs".to_owned());
    for (pods, status, reason, words) in [
        (vec![], "Unknown", "NoReplicas", "no replica runs yet"),
        (vec![QuotaReport::Held, QuotaReport::Held], "True", "Enforced", "every replica that runs is held"),
        (
            vec![QuotaReport::Held, QuotaReport::Nothing],
            "Unknown",
            "NotReported",
            "Pod web-1-1 on node n1 is not known to be held",
        ),
        (
            vec![not_yet(), QuotaReport::Nothing],
            "Unknown",
            "NotReported",
            "Pod web-1-0 on node n1 is not known to be held to its quota: no container main runs",
        ),
        (
            vec![QuotaReport::Nothing, not_held()],
            "False",
            "NotEnforced",
            "Pod web-1-1 on node n1: pids.max: permission denied",
        ),
    ] {
        let plan = plan(&of_agent, &told(&of_agent, &pods), None);
        let found = enforced(&plan).expect("a condition");
        assert_eq!((found.0, found.1), (status, reason), "{pods:?}");
        assert!(found.2.contains(words), "{}", found.2);
    }
    // The kubelet holds these; without any quota there is nothing to say.
    let of_kubelet = with_quota("{cpu: {limit: 1}}");
    assert_eq!(enforced(&plan(&of_kubelet, &running(&of_kubelet), None)).map(|found| found.0), Some("True"));
    let without = desired("container: {image: a}");
    assert_eq!(enforced(&plan(&without, &running(&without), None)), None);
}

#[test]
fn a_quota_that_is_on_its_way_is_not_held() {
    let (old, new) = (with_quota("{cpu: {limit: 1}}"), with_quota("{cpu: {limit: 2}}"));
    assert_eq!(
        enforced(&plan(&new, &running(&old), None)).map(|found| (found.0, found.1)),
        Some(("Unknown", "Resizing"))
    );
}

#[test]
fn frozen_replicas_are_told_of_as_well() {
    let running_before = with_quota("{pids: 64}");
    let frozen = desired("container: {image: a}, quota: {pids: 64}, state: Frozen");
    let plan = plan(&frozen, &told(&running_before, &[QuotaReport::Nothing]), None);
    assert_eq!(enforced(&plan).map(|found| found.1), Some("NotReported"));
}

#[test]
fn after_a_restart_the_last_word_counts_until_agents_are_back() {
    let wanted = with_quota("{pids: 64}");
    let held = plan(&wanted, &told(&wanted, &[QuotaReport::Held]), None);
    let restarted =
        Facts { status: held.status.clone(), usage_due: Some(time(17)), ..told(&wanted, &[QuotaReport::Nothing]) };
    let waits = plan(&wanted, &restarted, None);
    assert_eq!(enforced(&waits), enforced(&held));
    assert_eq!(waits.requeue_at, Some(time(17)));
    let later = plan(&wanted, &Facts { now: time(17), usage_due: None, ..restarted }, None);
    assert_eq!(enforced(&later).map(|found| found.1), Some("NotReported"));
}

#[test]
fn what_is_not_held_is_told_once_and_survives_a_refused_write() {
    let wanted = with_quota("{pids: 64}");
    let observed = told(&wanted, &[QuotaReport::NotHeld("pids.max: permission denied".to_owned())]);
    let first = plan(&wanted, &observed, None);
    let reasons = |plan: &Plan| plan.announcements.iter().map(|told| told.reason.clone()).collect::<Vec<_>>();
    assert!(reasons(&first).contains(&"NotEnforced".to_owned()), "{first}");
    let second = plan(&wanted, &Facts { status: first.status.clone(), ..observed.clone() }, None);
    assert!(reasons(&second).is_empty(), "{second}");
    assert_eq!(second.status, first.status, "nothing is written while nothing changes");

    let problem = Problem::Refused { object: "Service web".to_owned(), message: "no".to_owned() };
    let stopped = Progress::Stopped { problem: &problem };
    let refused = with_problem(first.status.clone(), &observed.status, &stopped, observed.now);
    let types: Vec<&str> = refused.conditions.iter().map(|condition| &*condition.type_).collect();
    assert_eq!(types, ["Ready", "Stalled", "QuotaEnforced"]);
}

fn kill(container: Option<&str>) -> OomKill {
    OomKill {
        pod: "web-1-a".to_owned(),
        container: container.map(ToOwned::to_owned),
        at: time(-10),
        limit: Some(64 * MIB),
        peak: Some(64 * MIB),
    }
}

fn killed(desired: &Goal, kills: Vec<OomKill>) -> Plan {
    plan(desired, &Facts { out_of_memory: kills, ..running(desired) }, None)
}

fn message(plan: &Plan) -> Option<&str> {
    find(plan, "OutOfMemory").map(|condition| &*condition.message)
}

#[test]
fn a_kill_is_told_with_limit_peak_and_the_size_to_try() {
    let wanted = with_quota("{memory: {limit: 64Mi}}");
    let plan = killed(&wanted, vec![kill(Some("main"))]);
    assert_eq!(
        message(&plan),
        Some(
            "container main of Pod web-1-a was killed by the OOM killer (limit 64Mi, memory.peak of the pod 64Mi); raise \
             spec.quota.memory.limit to 80Mi or more"
        )
    );
    let event = plan.announcements.iter().find(|told| told.reason == "OOMKilled").expect("an Event");
    assert!(event.warning && Some(&*event.note) == message(&plan));
    assert_eq!(plan.requeue_at, Some(time(3590)), "an hour after the kill");

    let without_agent = OomKill { peak: None, ..kill(Some("main")) };
    assert!(message(&killed(&wanted, vec![without_agent])).is_some_and(|text| text.contains("(limit 64Mi); raise")));
    let child = killed(&wanted, vec![kill(None)]);
    assert!(message(&child).is_some_and(|text| text.starts_with("a process of Pod web-1-a was killed")));
    let sidecar = killed(&wanted, vec![kill(Some("proxy"))]);
    assert!(message(&sidecar).is_some_and(|text| text.contains("raise the memory limit of container proxy to 80Mi")));
    let unlimited = OomKill { limit: None, ..kill(Some("main")) };
    assert!(
        message(&killed(&wanted, vec![unlimited])).is_some_and(|text| text.contains("set spec.quota.memory.limit"))
    );
}

#[test]
fn of_many_kills_the_one_that_needs_most_is_told() {
    let wanted = with_quota("{memory: {limit: 64Mi}}");
    let of = |pod: &str, peak: u64| OomKill { pod: pod.to_owned(), peak: Some(peak * MIB), ..kill(Some("main")) };
    for kills in [vec![of("b", 70), of("a", 70), of("c", 65)], vec![of("c", 65), of("a", 70), of("b", 70)]] {
        let plan = killed(&wanted, kills);
        assert!(message(&plan).is_some_and(|text| text.contains("Pod a was killed") && text.contains("to 88Mi")));
    }
}

#[test]
fn a_kill_is_over_with_the_hour_or_a_higher_limit() {
    let raised = with_quota("{memory: {limit: 96Mi}}");
    assert_eq!(message(&killed(&raised, vec![kill(Some("main"))])), None);
    assert!(message(&killed(&raised, vec![kill(Some("proxy"))])).is_some(), "not that container's limit");
    let wanted = with_quota("{memory: {limit: 64Mi}}");
    let old = OomKill { at: time(-3600), ..kill(Some("main")) };
    assert_eq!(message(&killed(&wanted, vec![old])), None);
    assert_eq!(killed(&wanted, Vec::new()).status.conditions.len(), 2, "Ready and QuotaEnforced");
}
