//! The plan for a workload and the last decision on its count, in words. Made on request, from what a reconcile looks
//! at, by the code that a reconcile plans with; nothing is written and nothing remembered.

use std::{fmt, sync::Arc, time::Duration};

use catamaran_autoscale::Decision;
use catamaran_crds::{DecisionStatus, ElasticWorkload, Scaling, State};
use catamaran_plan::{Invalid, Plan, plan, plan_invalid};
use jiff::Timestamp;
use kube::Resource;

use crate::{
    observe::{Agents, observe},
    stores::{StoredWorkload, Stores, WorkloadKey},
};

/// What is to be said of one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Which one.
    pub key: WorkloadKey,
    /// When.
    pub now: Timestamp,
    /// Whether the process that says it is the one that writes.
    pub leads: bool,
    /// What would be written now.
    pub plan: Planned,
    /// What is decided on its count.
    pub count: Count,
}

/// What would be written now.
#[derive(Clone, Debug, PartialEq)]
pub enum Planned {
    /// This.
    Plan(Box<Plan>),
    /// Nothing, since the workload is being deleted.
    Deleting,
    /// Not known: a plan needs a decision first.
    Undecided,
}

/// What is decided on the count of a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Count {
    /// `spec.scaling` is absent: the count is `spec.replicas`.
    Unscaled,
    /// `spec.state` is Stopped: nothing is decided.
    Stopped,
    /// `spec.state` is Frozen: nothing is decided.
    Frozen,
    /// No decision has been made on the present spec, so far.
    Undecided,
    /// The last decision.
    Decided {
        /// How long ago it was made.
        age: Duration,
        /// As it was made.
        decision: Box<Decision>,
        /// The last one that changed the count, or what held it, as the status has it.
        noted: Option<DecisionStatus>,
    },
}

impl Explanation {
    /// Explains a workload as the stores show it; `None` when they have no such workload.
    #[must_use]
    pub fn for_workload(stores: &Stores, agents: Agents<'_>, key: &WorkloadKey, now: Timestamp) -> Option<Self> {
        let stored = stores.workloads.get(&key.reference())?;
        let (plan, count) = explain(&stored, stores, agents, key, now);
        Some(Self { key: key.clone(), now, leads: agents.autoscaler.leads(), plan, count })
    }
}

fn explain(
    stored: &Arc<StoredWorkload>,
    stores: &Stores,
    agents: Agents<'_>,
    key: &WorkloadKey,
    now: Timestamp,
) -> (Planned, Count) {
    if stored.meta().deletion_timestamp.is_some() {
        return (Planned::Deleting, Count::Unscaled);
    }
    let invalid = |workload: &ElasticWorkload, invalid: &Invalid| {
        let facts = observe(stores, agents, workload, workload.status.clone().unwrap_or_default(), false, now);
        let generation = stored.meta().generation.unwrap_or_default();
        Planned::Plan(Box::new(plan_invalid(generation, invalid, &facts)))
    };
    let workload = match &stored.0 {
        Ok(workload) => workload,
        Err(error) => {
            let problem = Invalid::Unreadable(error.error.to_string());
            let workload = ElasticWorkload { metadata: error.metadata.clone(), ..ElasticWorkload::default() };
            return (invalid(&workload, &problem), Count::Unscaled);
        }
    };
    let told = agents.autoscaler.last_decision(key, workload);
    let count = match (&workload.spec.scaling, workload.spec.state.unwrap_or_default(), &told) {
        (None, State::Running | State::Frozen | State::Stopped, _) => Count::Unscaled,
        (Some(_), State::Stopped, _) => Count::Stopped,
        (Some(_), State::Frozen, _) => Count::Frozen,
        (Some(Scaling { .. }), State::Running, None) => Count::Undecided,
        (Some(Scaling { .. }), State::Running, Some(told)) => Count::Decided {
            age: told.age,
            decision: Box::new(told.decision.clone()),
            noted: workload.status.clone().and_then(|status| status.scaling?.last_decision),
        },
    };
    let desired = match stores.resolve(workload) {
        Ok(desired) => desired,
        Err(problem) => return (invalid(workload, &problem), count),
    };
    if matches!(count, Count::Undecided) {
        return (Planned::Undecided, count);
    }
    let status = workload.status.clone().unwrap_or_default();
    let facts = observe(stores, agents, workload, status, desired.scaling.is_some(), now);
    let scaled = told.map(|told| told.scaled).filter(|_| matches!(count, Count::Decided { .. }));
    (Planned::Plan(Box::new(plan(&desired, &facts, scaled.as_ref()))), count)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.leads { "the operator that leads" } else { "an operator that stands by" };
        writeln!(f, "ElasticWorkload {}/{}, as {who} sees it at {:.0}", self.key.namespace, self.key.name, self.now)?;
        match &self.plan {
            Planned::Plan(plan) => write!(f, "\nThe plan: what is to be written now, and why\n{plan}")?,
            Planned::Deleting => {
                return writeln!(f, "\nIt is being deleted: the garbage collector takes its children.");
            }
            Planned::Undecided => writeln!(f, "\nThe plan waits for the first decision on the present spec")?,
        }
        match &self.count {
            Count::Unscaled => writeln!(f, "\nScaling: there is no spec.scaling; the count is spec.replicas"),
            Count::Stopped => writeln!(f, "\nScaling: spec.state is Stopped; nothing is decided"),
            Count::Frozen => writeln!(f, "\nScaling: spec.state is Frozen; nothing is decided"),
            Count::Undecided => writeln!(f, "\nScaling: no decision on the present spec yet; ask again in a second"),
            Count::Decided { age, decision, noted } => {
                write!(f, "\nScaling: the last decision, {:.1} s ago\n{decision}", age.as_secs_f64())?;
                let Some(DecisionStatus { time, reason, message, .. }) = noted else { return Ok(()) };
                writeln!(f, "\nScaling: the last decision with news, as the status has it, at {:.0}", time.0)?;
                writeln!(f, "{reason}: {message}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use catamaran_autoscale::History;
    use catamaran_plan::{
        Facts, Scaled,
        facts::{KubeVirt, ResizeApi, ServiceFacts},
    };
    use serde_json::json;

    use super::*;
    use crate::fixtures::decision;

    fn now() -> Timestamp {
        "2026-11-02T10:00:00.5Z".parse().expect("a time")
    }

    fn explanation(plan: Planned, count: Count) -> Explanation {
        let key = WorkloadKey { namespace: "shop".to_owned(), name: "web".to_owned() };
        Explanation { key, now: now(), leads: true, plan, count }
    }

    /// The first plan of a workload whose count is by schedule alone, and the decision that it is made with.
    #[test]
    fn a_plan_and_a_decision() {
        let workload: ElasticWorkload = serde_json::from_value(json!({
            "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload",
            "metadata": {"namespace": "shop", "name": "web", "uid": "u", "generation": 1},
            "spec": {"container": {"image": "registry.test/web:1"}, "scaling": {"maxReplicas": 5, "schedules": [
                {"name": "day", "start": "0 8 * * *", "end": "0 20 * * *", "minReplicas": 3}]}},
        }))
        .expect("a workload");
        let desired = catamaran_plan::resolve(&workload, None).expect("it makes sense");
        let policy = desired.scaling.clone().expect("it is scaled");
        let history = History::new(1, now());
        let decision = decision(&policy, 1, &history, now());
        let observed = Facts {
            now: now(),
            kubevirt: KubeVirt::Absent,
            sets: Vec::new(),
            foreign_sets: Vec::new(),
            service: ServiceFacts::Absent,
            status: catamaran_crds::ElasticWorkloadStatus::default(),
            watched_since: Timestamp::MIN,
            usage_due: None,
            enforcement: Vec::new(),
            out_of_memory: Vec::new(),
            strays: Vec::new(),
            troubles: Vec::new(),
            resize: ResizeApi::Served,
        };
        let revision = desired.revision.clone();
        let scaled = Scaled { decision: decision.clone(), history };
        let plan = plan(&desired, &observed, Some(&scaled));
        let noted = plan.status.scaling.clone().and_then(|scaling| scaling.last_decision);
        let count = Count::Decided { age: Duration::from_millis(420), decision: Box::new(decision), noted };
        let text = explanation(Planned::Plan(Box::new(plan.clone())), count).to_string();
        // What the golden tests of plan and decision hold is in it as it is.
        assert!(text.contains(&plan.to_string()));
        insta::assert_snapshot!(text.replace(&revision, "REVISION"));
    }

    #[test]
    fn without_a_decision() {
        let told = |plan, count| explanation(plan, count).to_string();
        let texts = [
            told(Planned::Undecided, Count::Undecided),
            told(Planned::Deleting, Count::Unscaled),
            Explanation { leads: false, ..explanation(Planned::Undecided, Count::Stopped) }.to_string(),
        ];
        insta::assert_snapshot!(texts.join("---\n"));
    }
}
