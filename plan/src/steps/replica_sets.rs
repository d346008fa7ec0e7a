//! How a ReplicaSet gives up the pods that were chosen.
//!
//! Its controller prefers pods of a low `controller.kubernetes.io/pod-deletion-cost` (KEP-2255) once unassigned,
//! pending and unready ones are gone. So a scale-in marks the victims, and lowers the count when the marks are seen.
//! Marks that no scale-in needs are taken off. Each step is found again from what is observed, so a crash between any
//! two of them costs nothing.

use std::collections::BTreeSet;

use catamaran_autoscale::victims::{Candidate, Victims, is_open};
use jiff::Timestamp;

use crate::{
    draft::{Context, Draft},
    facts::{Pod, PodSet, after, count},
    plan::{Action, Next, Reason, SetReference, SetUpdate, Step, Wait},
    steps::victims,
};

/// How long marks are waited for, in seconds, before the count is lowered without them: somebody takes them off again.
const MARKS_SEEN_WITHIN: u32 = 30;

/// Brings a ReplicaSet of `current` replicas to its next size, or marks the pods that will go then. `update` carries
/// what else is to be noted on it. False while the set has to stay as it is.
pub(crate) fn scale(
    context: &Context<'_>,
    draft: &mut Draft,
    pods: &PodSet,
    mut update: SetUpdate,
    current: u32,
    next: Next,
) -> bool {
    let marking = Marking { set: &update.set, pods, current, wanted: next.asked, victims: context.goal.victims };
    let (steps, wait) = marking.mark(context.facts.usage_due, context.now());
    draft.steps.extend(steps);
    if let Some(wait) = wait {
        draft.wait(wait);
        return false;
    }
    update.spec.replicas = (next.asked != current).then_some(next.asked);
    let why = match (update.spec.replicas, &update.quota) {
        (Some(_), _) => Reason::Scale(next.why),
        (None, Some(_)) => Reason::Quota,
        (None, None) => Reason::Notes,
    };
    if !update.is_empty() {
        draft.step(Action::UpdateSet(Box::new(update)), why);
    }
    true
}

/// The marks of one set before its count is written.
struct Marking<'a> {
    set: &'a SetReference,
    pods: &'a PodSet,
    current: u32,
    wanted: u32,
    victims: Victims,
}

impl Marking<'_> {
    /// Marks the victims of a scale-in, and takes off marks that none needs. The wait is there while the count has to
    /// stay; `usage_due`: until when the choice may be put off ([`crate::Facts`]).
    fn mark(&self, usage_due: Option<Timestamp>, now: Timestamp) -> (Vec<Step>, Option<Wait>) {
        if let Some(until) = usage_due.filter(|_| self.is_open()) {
            return (Vec::new(), Some(Wait::Usage { set: self.set.name.clone(), until }));
        }
        let chosen = self.chosen();
        // The count was lowered already: the marks stay until the pods are gone.
        let under_way = self.wanted == self.current && count(self.pods.pods.iter()) > self.wanted;
        let mut steps = Vec::new();
        let mut marks_are_missing = false;
        for pod in &self.pods.pods {
            let marked = chosen.contains(pod.name.as_str());
            if marked == pod.marked || (pod.marked && under_way) {
                continue;
            }
            marks_are_missing |= marked;
            steps.push(Step {
                action: Action::MarkPod { name: pod.name.clone(), uid: pod.uid.clone(), marked },
                why: if marked { Reason::Marked { victims: self.victims } } else { Reason::Spared },
            });
        }
        let until = after(self.pods.marks_asked.unwrap_or(now), MARKS_SEEN_WITHIN);
        let wait = (marks_are_missing && now < until).then(|| Wait::MarksSeen { set: self.set.clone(), until });
        (steps, wait)
    }

    /// Whether the choice depends on usage that is not known, and is not made yet.
    fn is_open(&self) -> bool {
        let unmarked: Vec<Candidate<'_>> =
            self.pods.pods.iter().filter(|pod| !pod.marked).map(Pod::candidate).collect();
        self.wanted < self.current && is_open(self.victims, &unmarked) && unmarked.len() > size(self.wanted)
    }

    /// The names of the pods to go. Marked ones stay chosen: usage moves, and a choice that moved with it would never
    /// end.
    fn chosen(&self) -> BTreeSet<&str> {
        match self.victims {
            Victims::LeastBusy | Victims::Newest if self.wanted < self.current => {}
            Victims::LeastBusy | Victims::Newest | Victims::Default => return BTreeSet::new(),
        }
        let pods: Vec<&Pod> = self.pods.pods.iter().collect();
        let surplus = pods.len().saturating_sub(size(self.wanted));
        let order =
            victims::in_order(self.victims, &pods, Pod::candidate, |pod| (pod.ready_since.is_some(), !pod.marked));
        order.into_iter().take(surplus).map(|pod| pod.name.as_str()).collect()
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use catamaran_crds::Hull;
    use jiff::Timestamp;

    use super::*;
    use crate::facts::PodQuota;

    fn created() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    fn pod(name: &str, ready: bool, usage: Option<i64>, marked: bool) -> Pod {
        let created = created();
        Pod {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            created,
            ready_since: ready.then_some(created),
            usage,
            marked,
            quota: PodQuota::default(),
            asked: None,
            refused: None,
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
        let pods = PodSet { pods, ..PodSet::default() };
        let (steps, wait) = Marking { set: &reference, pods: &pods, current, wanted, victims }.mark(None, created());
        let of = |wanted: bool| {
            let names = steps.iter().filter_map(|step| match &step.action {
                Action::MarkPod { name, marked, .. } if *marked == wanted => Some(name.clone()),
                _ => None,
            });
            names.collect()
        };
        (of(true), of(false), wait.is_some())
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
            let marking = Marking { set: &reference, pods: &set, current: 4, wanted, victims };
            let (steps, wait) = marking.mark(Some(due), created());
            matches!(wait, Some(Wait::Usage { until, .. }) if until == due) && steps.is_empty()
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

    #[test]
    fn marks_that_do_not_show_are_waited_for_until_a_deadline() {
        let reference = SetReference {
            hull: Hull::Container,
            name: "web-1".to_owned(),
            uid: "uid".to_owned(),
            resource_version: "1".to_owned(),
        };
        let wait = |asked: Option<Timestamp>, seconds| {
            let pods = PodSet { pods: four(), marks_asked: asked, ..PodSet::default() };
            let marking = Marking { set: &reference, pods: &pods, current: 4, wanted: 2, victims: Victims::LeastBusy };
            let (steps, wait) = marking.mark(None, after(created(), seconds));
            assert_eq!(steps.len(), 2, "they are asked for all the same");
            wait.and_then(|wait| wait.until())
        };
        assert_eq!(wait(None, 0), Some(after(created(), 30)));
        assert_eq!(wait(Some(created()), 29), Some(after(created(), 30)));
        assert_eq!(wait(Some(created()), 30), None);
    }
}
