//! How a ReplicaSet gives up the pods that were chosen.
//!
//! Its controller prefers pods of a low `controller.kubernetes.io/pod-deletion-cost` (KEP-2255) once unassigned, pending and
//! unready ones are gone. So a scale-in marks the victims, and lowers the count when the marks are seen. Marks that no scale-in
//! needs are taken off. Each step is found again from what is observed, so a crash between any two of them costs nothing.

use jiff::Timestamp;

use crate::{
    facts::{Pod, PodSet, count},
    plan::{Action, Reason, SetReference, Step, Wait},
};
use catamaran_autoscale::victims::{Victims, is_open, order};

/// What to do with the pods of one set before its count is written.
pub(crate) struct Marking {
    pub(crate) steps: Vec<Step>,
    /// Set while the count has to stay.
    pub(crate) wait: Option<Wait>,
}

/// Marks the victims of a scale-in from `current` to `wanted`, and takes off marks that none needs. `usage_due`: until when the
/// choice may be put off ([`crate::Facts`]).
pub(crate) fn mark(
    set: &PodSet,
    reference: SetReference,
    current: u32,
    wanted: u32,
    victims: Victims,
    usage_due: Option<Timestamp>,
) -> Marking {
    if let Some(until) = usage_due.filter(|_| wanted < current) {
        let unmarked: Vec<_> = set.pods.iter().filter(|pod| !pod.marked).map(Pod::candidate).collect();
        if is_open(victims, &unmarked) && unmarked.len() > usize::try_from(wanted).unwrap_or(usize::MAX) {
            return Marking { steps: Vec::new(), wait: Some(Wait::Usage { set: reference.name, until }) };
        }
    }
    let chosen: Vec<&str> = match victims {
        Victims::LeastBusy | Victims::Newest if wanted < current => choose(&set.pods, wanted, victims),
        Victims::LeastBusy | Victims::Newest | Victims::Default => Vec::new(),
    };
    // The count was lowered already: the marks stay until the pods are gone.
    let under_way = wanted == current && count(set.pods.iter()) > wanted;
    let mut steps = Vec::new();
    let mut wait = None;
    for pod in &set.pods {
        let marked = chosen.contains(&pod.name.as_str());
        if marked == pod.marked || (pod.marked && under_way) {
            continue;
        }
        if marked {
            wait = Some(Wait::MarksSeen(reference.clone()));
        }
        steps.push(Step {
            action: Action::MarkPod { name: pod.name.clone(), uid: pod.uid.clone(), marked },
            why: if marked { Reason::Marked { victims } } else { Reason::Spared },
        });
    }
    Marking { steps, wait }
}

/// The names of the pods to go. Marked ones stay chosen: usage moves, and a choice that moved with it would never end.
fn choose(pods: &[Pod], wanted: u32, victims: Victims) -> Vec<&str> {
    let surplus = pods.len().saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX));
    let candidates: Vec<_> = pods.iter().map(Pod::candidate).collect();
    let mut order = order(victims, &candidates);
    let is_marked = |name: &str| pods.iter().any(|pod| pod.marked && pod.name == name);
    order.sort_by_key(|candidate| (candidate.ready_since.is_some(), !is_marked(candidate.name)));
    order.into_iter().take(surplus).map(|candidate| candidate.name).collect()
}

#[cfg(test)]
mod tests {
    use catamaran_crds::Hull;
    use jiff::Timestamp;

    use super::*;
    use crate::facts::PodQuota;

    fn pod(name: &str, ready: bool, usage: Option<i64>, marked: bool) -> Pod {
        let created = Timestamp::from_second(1_800_000_000).expect("a time");
        Pod {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            created,
            ready_since: ready.then_some(created),
            usage,
            marked,
            quota: PodQuota::default(),
        }
    }

    /// The names that are marked, those whose mark goes, and whether the count waits.
    fn marked(pods: Vec<Pod>, current: u32, wanted: u32, victims: Victims) -> (Vec<String>, Vec<String>, bool) {
        let reference = SetReference {
            hull: Hull::Container,
            name: "web-1".to_owned(),
            uid: "uid".to_owned(),
            resource_version: "1".to_owned(),
        };
        let marking = mark(&PodSet { pods, ..PodSet::default() }, reference, current, wanted, victims, None);
        let of = |wanted: bool| {
            let names = marking.steps.iter().filter_map(|step| match &step.action {
                Action::MarkPod { name, marked, .. } if *marked == wanted => Some(name.clone()),
                _ => None,
            });
            names.collect()
        };
        (of(true), of(false), marking.wait.is_some())
    }

    fn four() -> Vec<Pod> {
        vec![
            pod("busy", true, Some(900), false),
            pod("idle", true, Some(10), false),
            pod("unknown", true, None, false),
            pod("calm", true, Some(20), false),
        ]
    }

    #[test]
    fn the_least_busy_are_marked_before_the_count_is_lowered() {
        assert_eq!(marked(four(), 4, 2, Victims::LeastBusy), (vec!["idle".into(), "calm".into()], vec![], true));
    }

    #[test]
    fn nothing_is_marked_without_a_scale_in_or_by_default() {
        assert_eq!(marked(four(), 4, 4, Victims::LeastBusy), (vec![], vec![], false));
        assert_eq!(marked(four(), 4, 2, Victims::Default), (vec![], vec![], false));
    }

    #[test]
    fn the_choice_is_put_off_while_usage_is_on_its_way() {
        let reference = SetReference {
            hull: Hull::Container,
            name: "web-1".to_owned(),
            uid: "uid".to_owned(),
            resource_version: "1".to_owned(),
        };
        let due = Timestamp::from_second(1_800_000_100).expect("a time");
        let waits = |pods: Vec<Pod>, wanted, victims| {
            let set = PodSet { pods, ..PodSet::default() };
            let marking = mark(&set, reference.clone(), 4, wanted, victims, Some(due));
            matches!(marking.wait, Some(Wait::Usage { until, .. }) if until == due) && marking.steps.is_empty()
        };
        assert!(waits(four(), 2, Victims::LeastBusy));
        assert!(!waits(four(), 2, Victims::Newest) && !waits(four(), 4, Victims::LeastBusy));
        let mut known = four();
        known[2].usage = Some(30);
        assert!(!waits(known, 2, Victims::LeastBusy));
        // Chosen already, by who knew.
        let mut chosen = four();
        (chosen[1].marked, chosen[3].marked) = (true, true);
        assert!(!waits(chosen, 2, Victims::LeastBusy));
    }

    #[test]
    fn marks_that_are_seen_let_the_count_go_down_and_stay_chosen() {
        let mut pods = four();
        pods[1].marked = true;
        pods[3].marked = true;
        // It got busy in the meantime.
        pods[3].usage = Some(2000);
        assert_eq!(marked(pods, 4, 2, Victims::LeastBusy), (vec![], vec![], false));
    }

    #[test]
    fn marks_go_when_the_scale_in_is_called_off_and_stay_while_it_is_under_way() {
        let mut pods = four();
        pods[1].marked = true;
        assert_eq!(marked(pods.clone(), 4, 4, Victims::LeastBusy), (vec![], vec!["idle".into()], false));
        assert_eq!(marked(pods, 3, 3, Victims::LeastBusy), (vec![], vec![], false));
    }

    #[test]
    fn pods_that_are_not_ready_go_before_the_least_busy() {
        let mut pods = four();
        pods.push(pod("new", false, None, false));
        assert_eq!(marked(pods, 5, 4, Victims::LeastBusy).0, ["new"]);
    }
}
