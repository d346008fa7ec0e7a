//! The way of one pass through the steps of a plan, and what it comes to.

use catamaran_autoscale::Decision;
use catamaran_plan::{Action, Scaled, Step};

use super::Failure;

/// At most so many steps are carried out in one pass: the next pass goes on, after other workloads had their turn.
const MOST_STEPS: usize = 100;

/// What became of the steps of a plan. [`Writer::apply`](super::Writer::apply) alone makes one, so nothing can be
/// recorded that was not carried out.
#[derive(Debug, Default)]
pub struct Applied {
    count: Option<Decision>,
    missed_count: bool,
    failures: Vec<Failure>,
    left: usize,
}

impl Applied {
    /// The decision whose count is written by now, if it changes the count.
    #[must_use]
    pub fn count(&self) -> Option<&Decision> {
        self.count.as_ref()
    }

    /// Whether a decision changes the count, and that could not be written.
    #[must_use]
    pub fn missed_count(&self) -> bool {
        self.missed_count
    }

    /// The writes that failed.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// How many steps were left for the next pass.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }
}

/// The way through the steps of a plan: what fails holds up only what needs it.
pub(super) struct Course<'a> {
    steps: std::slice::Iter<'a, Step>,
    left: &'a [Step],
    undone: Vec<&'a Action>,
    failures: Vec<Failure>,
}

impl<'a> Course<'a> {
    pub(super) fn new(steps: &'a [Step]) -> Self {
        let (now, left) = steps.split_at(steps.len().min(MOST_STEPS));
        Self { steps: now.iter(), left, undone: Vec::new(), failures: Vec::new() }
    }

    /// The next step to carry out.
    pub(super) fn next(&mut self) -> Option<&'a Step> {
        loop {
            let step = self.steps.next()?;
            if !self.undone.iter().any(|earlier| step.action.needs(earlier)) {
                return Some(step);
            }
            self.undone.push(&step.action);
        }
    }

    pub(super) fn failed(&mut self, step: &'a Step, failure: Failure) {
        self.failures.push(failure);
        self.undone.push(&step.action);
    }

    pub(super) fn end(self, scaled: Option<&Scaled>) -> Applied {
        let left = self.left.iter().map(|step| &step.action);
        let missed = self.undone.into_iter().chain(left).any(Action::brings_count);
        let count = scaled.map(|scaled| &scaled.decision).filter(|decision| decision.write().is_some());
        Applied {
            count: count.filter(|_| !missed).cloned(),
            missed_count: missed && count.is_some(),
            failures: self.failures,
            left: self.left.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use catamaran_autoscale::History;
    use catamaran_crds::Hull;
    use catamaran_plan::{
        SetReference, SetUpdate,
        goal::scaling,
        plan::{Reason, SetQuota, SpecChange},
    };
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::fixtures::decision;

    fn step(action: Action) -> Step {
        Step { action, why: Reason::Notes }
    }

    fn update(name: &str, replicas: Option<u32>) -> SetUpdate {
        let (name, uid, resource_version) = (name.to_owned(), name.to_owned(), "1".to_owned());
        let set = SetReference { hull: Hull::Container, name, uid, resource_version };
        SetUpdate { spec: SpecChange { replicas, ..SpecChange::default() }, ..SetUpdate::none(set) }
    }

    fn scale(name: &str) -> Step {
        step(Action::UpdateSet(Box::new(update(name, Some(2)))))
    }

    fn quota(name: &str) -> Step {
        let quota = SetQuota { container: "main".to_owned(), resources: None, annotation: Some(None), lone: false };
        step(Action::UpdateSet(Box::new(SetUpdate { quota: Some(quota), ..update(name, None) })))
    }

    fn annotate(pod: &str) -> Step {
        step(Action::AnnotatePod { name: pod.to_owned(), uid: pod.to_owned(), annotation: None })
    }

    fn resize(pod: &str) -> Step {
        let (name, uid, container) = (pod.to_owned(), pod.to_owned(), "main".to_owned());
        step(Action::ResizePod { name, uid, container, quota: Default::default() })
    }

    fn service() -> Step {
        step(Action::DeleteService { uid: "service".to_owned() })
    }

    fn scaled() -> Scaled {
        let metric = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}});
        let metrics = json!([{"type": "Resource", "resource": metric}]);
        let scaling = json!({"minReplicas": 2, "maxReplicas": 5, "metrics": metrics});
        let scaling = serde_json::from_value(scaling).expect("a scaling");
        let policy = scaling::resolve(&scaling, Default::default()).expect("it makes sense");
        let history = History::default();
        Scaled { decision: decision(&policy, 1, &history, Timestamp::UNIX_EPOCH), history }
    }

    /// Carries out steps of which some fail, each in its way; which ones were tried, and what came of it.
    fn play(steps: &[Step], failing: &[(usize, u16)]) -> (Vec<usize>, Applied) {
        let (mut tried, mut course) = (Vec::new(), Course::new(steps));
        while let Some(step) = course.next() {
            let index = steps.iter().position(|other| std::ptr::eq(other, step)).expect("one of them");
            tried.push(index);
            if let Some((_, code)) = failing.iter().find(|(failing, _)| *failing == index) {
                let status = kube::core::Status::failure("webhook denies it", "InternalError").with_code(*code);
                course.failed(step, Failure::new("X x".to_owned(), kube::Error::Api(status.boxed())));
            }
        }
        let applied = course.end(Some(&scaled()));
        (tried, applied)
    }

    #[test]
    fn a_failed_step_holds_up_only_what_needs_it() {
        let (tried, applied) = play(&[scale("a"), scale("b"), service()], &[(0, 500)]);
        assert_eq!((tried.as_slice(), applied.failures().len()), ([0, 1, 2].as_slice(), 1));
        assert!(applied.missed_count() && applied.count().is_none(), "one of the sets was not scaled");

        let (tried, applied) = play(&[scale("a"), service()], &[(1, 503)]);
        assert_eq!((tried.as_slice(), applied.missed_count()), ([0, 1].as_slice(), false));
        assert_eq!(applied.count().and_then(Decision::write), Some(2), "a Service does not matter to the count");

        for code in [409, 422, 429, 500, 504] {
            let steps = [quota("a"), annotate("p"), resize("p"), service()];
            let (tried, _) = play(&steps, &[(0, code)]);
            assert_eq!(tried, [0, 3], "no pod has a quota before its template");
            let steps = [annotate("p"), resize("p"), annotate("q"), resize("q")];
            let (tried, applied) = play(&steps, &[(0, code)]);
            assert_eq!(tried, [0, 2, 3], "the burst of p was not lowered");
            assert_eq!(applied.failures().len(), 1);
        }
    }

    #[test]
    fn a_pass_carries_out_a_hundred_steps_at_most() {
        let mut steps: Vec<Step> = (0..250).map(|index| annotate(&index.to_string())).collect();
        let (tried, applied) = play(&steps, &[]);
        assert_eq!((tried.len(), applied.left(), applied.count().is_some()), (100, 150, true));
        steps.push(scale("a"));
        let (_, applied) = play(&steps, &[]);
        assert!(applied.missed_count(), "what brings the count is still to come");
    }
}
