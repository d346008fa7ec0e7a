//! What is remembered of one workload between two decisions.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use catamaran_autoscale::{
    Bounds, Decision, History, Policy,
    policy::{Mode, Settings},
};
use catamaran_crds::{ElasticWorkload, WorkloadClass};
use catamaran_plan::{
    Scaled,
    facts::{Members, SetFacts},
    goal::{quota::Quota, scaling},
    status::scaling::noted_count,
};
use jiff::{SignedDuration, Timestamp};

use super::news::{News, SHORTEST_PAUSE};
use crate::stores::{GUEST_CONTAINER, PodEntry, SpecVersion};

/// A wall clock that is off by more than this against the steady one was set.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// The version of the spec that there is now, and the class for it.
pub(super) struct Spec {
    version: SpecVersion,
    class: Option<Arc<WorkloadClass>>,
}

impl Spec {
    pub(super) fn new(workload: &ElasticWorkload, class: Option<Arc<WorkloadClass>>) -> Self {
        Self { version: SpecVersion::new(workload, class.as_deref()), class }
    }
}

/// A change of the count on its way to the cluster.
#[derive(Clone, Copy)]
pub(super) struct Change {
    /// When the usage or the answer came that it was decided on; `None` where time alone brought it.
    pub(super) sampled: Option<Instant>,
    /// When it was decided.
    pub(super) decided: Instant,
}

/// What is remembered of one workload.
#[derive(Default)]
pub(super) struct Memory {
    /// Which spec the policy was made of.
    version: SpecVersion,
    /// Of the last spec that could be resolved.
    policy: Option<Arc<Policy>>,
    quota: Quota,
    pub(super) history: History,
    /// The bounds, until they change.
    pub(super) bounds: Option<Bounds>,
    /// The count that is asked for; `None` until it is known.
    pub(super) count: Option<i32>,
    /// Whether the sources are asked for usage, too, since an agent is missing; `None` before they are asked for
    /// anything.
    pub(super) asked: Option<bool>,
    /// The last decision, and when it was made.
    pub(super) last: Option<(Instant, Decision)>,
    /// There is news since: the last decision stands no more.
    pub(super) overtaken: bool,
    /// Until when a refused write is not tried again.
    pub(super) refused_until: Option<Instant>,
    /// The change of the count that is not written yet.
    pub(super) change: Option<Change>,
    /// The same moment by both clocks.
    clock: Option<(Instant, Timestamp)>,
}

impl Memory {
    /// Takes over a changed spec. Returns what to scale by, if the spec makes sense.
    pub(super) fn renew(&mut self, spec: Spec, workload: &ElasticWorkload) -> Option<Arc<Policy>> {
        if self.version == spec.version {
            return self.policy.clone();
        }
        if self.version.uid != spec.version.uid {
            *self = Self::default();
        }
        let resolved = workload.spec.scaling.as_ref()?;
        let resolved = scaling::resolve(resolved, Settings::default());
        let quota = Quota::resolve(workload.spec.quota.as_ref(), spec.class.as_ref().map(|class| &class.spec));
        // The last policy goes on until the reconcile finds what stands in for a spec that makes no sense.
        let (Ok(policy), Ok(quota)) = (resolved, quota) else { return self.policy.clone() };
        let mode = self.policy.as_ref().map(|policy| policy.mode);
        (self.version, self.bounds, self.asked, self.last) = (spec.version, None, None, None);
        if mode != Some(policy.mode) {
            self.count = None;
        }
        self.quota = quota;
        self.policy = Some(Arc::new(policy));
        self.policy.clone()
    }

    /// Whether the last decision was made at least so long ago.
    pub(super) fn is_older_than(&self, pause: Duration) -> bool {
        self.overtaken || self.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= pause)
    }

    /// Whether news is decided on now.
    pub(super) fn is_due(&self, news: News, now: Instant) -> bool {
        self.overtaken || self.last.as_ref().is_none_or(|(decided, _)| news.is_due(*decided, SHORTEST_PAUSE, now))
    }

    /// What the status gets to know of the past with a decision whose count is about to be written.
    pub(super) fn scaled(&self, policy: &Policy, decision: Decision) -> Scaled {
        let mut history = self.history.clone();
        history.written(policy, &decision);
        Scaled { decision, history }
    }

    /// The count of a decision was written. What was recommended since it was made stays.
    pub(super) fn written(&mut self, decision: &Decision) -> Option<Change> {
        self.count = Some(decision.write()?);
        if let Some(policy) = &self.policy {
            self.history.written(policy, decision);
        }
        self.change.take()
    }

    /// The last decision on this version of the spec and how old it is, whether it still stands or not.
    pub(super) fn last_decision(&self, spec: &Spec) -> Option<(Duration, Decision)> {
        let (at, last) = self.last.as_ref().filter(|_| self.version == spec.version)?;
        Some((at.elapsed(), last.clone()))
    }

    /// The last decision, where it still stands: for the count that there is by now.
    pub(super) fn standing(&self) -> Option<Decision> {
        let (_, last) = self.last.as_ref().filter(|_| !self.is_older_than(SHORTEST_PAUSE))?;
        let count = self.count?;
        (count == last.from || count == last.to).then(|| {
            let mut decision = last.clone();
            decision.from = count;
            decision
        })
    }

    /// Finds the count that is asked for, and the history, in the cluster. `leads`: whether this process writes from
    /// now on; then a change of the count whose writer ended before it noted it is found as well, so that no rate is
    /// used twice.
    pub(super) fn start(
        &mut self,
        workload: &ElasticWorkload,
        sets: &[SetFacts],
        policy: &Policy,
        leads: bool,
        now: Timestamp,
    ) {
        let count = present_count(workload, sets, policy);
        let begins = leads && self.count.is_none();
        self.count = Some(count);
        let status = workload.status.as_ref();
        let stored: Option<History> =
            status.and_then(|status| status.scaling.as_ref()).and_then(|scaling| scaling.history.read());
        match (self.history.is_empty(), stored) {
            (true, Some(stored)) => self.history = History::restored(stored, count, now),
            (true, None) => self.history = History::new(count, now),
            // That of a standby is warm, and knows nothing of what the leader wrote.
            (false, Some(stored)) if begins => self.history.adopt(&stored),
            (false, _) => {}
        }
        let noted = status.and_then(noted_count);
        if let Some(from) = noted.filter(|_| begins && policy.mode == Mode::Auto) {
            self.history.found(policy, from, count, now);
        }
    }

    /// Notices that the wall clock was set, and moves the history along.
    pub(super) fn set_clock(&mut self, now: Timestamp) {
        let steady = Instant::now();
        if let Some((before, then)) = self.clock {
            let elapsed = SignedDuration::try_from(steady.duration_since(before)).unwrap_or(SignedDuration::MAX);
            let step = now.duration_since(then).saturating_sub(elapsed);
            if step.abs() > CLOCK_TOLERANCE {
                tracing::warn!(%step, "the clock was set; the history of scaling moves along");
                self.history.shift(step);
                self.bounds = None;
            }
        }
        self.clock = Some((steady, now));
    }

    /// See [`with_quota`].
    pub(super) fn with_quota(&self, entry: &mut Arc<PodEntry>) {
        with_quota(entry, &self.quota);
    }
}

/// The guest of a virtual machine asks for what the quota says; KubeVirt's own share of its pod does not matter to
/// scaling.
pub(super) fn with_quota(entry: &mut Arc<PodEntry>, quota: &Quota) {
    if entry.instance.is_none() {
        return;
    }
    let signed = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    let cpu = signed(quota.cpu_request.or(quota.cpu_limit));
    let memory = signed(quota.memory_request.or(quota.memory_limit));
    let containers = &mut Arc::make_mut(entry).pod.containers;
    for container in containers.iter_mut().filter(|container| container.name == GUEST_CONTAINER) {
        container.requests.cpu = cpu.or(container.requests.cpu);
        container.requests.memory = memory.or(container.requests.memory);
    }
}

/// The count that was last asked for: what the newest replica set notes, else the status, else the spec.
fn present_count(workload: &ElasticWorkload, sets: &[SetFacts], policy: &Policy) -> i32 {
    let status = workload.status.as_ref();
    let told = status.and_then(|status| status.scaling.as_ref()).map(|scaling| scaling.desired_replicas);
    let newest = sets.iter().filter(|set| !set.deleting).max_by_key(|set| set.number);
    let noted = newest.and_then(|set| set.desired_replicas).and_then(|count| i32::try_from(count).ok());
    // A scale-in of virtual machines notes its count when it is through.
    let under_way = newest.is_some_and(|set| match &set.members {
        Members::Instances(instances) => instances.paused,
        Members::Pods(_) => false,
    });
    match noted {
        // Also after spec.state Stopped, which notes 0: the count from before goes on.
        None | Some(0) => told.or(noted),
        Some(_) if under_way => told.or(noted),
        Some(_) => noted,
    }
    .or(workload.spec.replicas)
    .unwrap_or(policy.min)
}

#[cfg(test)]
mod tests {
    use catamaran_autoscale::history::Recommendation;
    use catamaran_crds::{ElasticWorkloadStatus, ScalingStatus, StoredHistory};
    use catamaran_plan::facts::{PodSet, TemplateQuota};
    use serde_json::json;

    use super::*;
    use crate::fixtures;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn memory() -> Memory {
        let workload: ElasticWorkload = serde_json::from_value(json!({
            "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": {"name": "web", "uid": "u"},
            "spec": {"container": {"image": "registry.test/web:1"}, "scaling": {"minReplicas": 2, "maxReplicas": 20,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]}},
        }))
        .expect("a workload");
        let mut memory = Memory::default();
        memory.renew(Spec::new(&workload, None), &workload).expect("it makes sense");
        memory
    }

    fn decision(memory: &Memory, replicas: i32, now: Timestamp) -> Decision {
        let policy = memory.policy.as_ref().expect("a policy");
        fixtures::decision(policy, replicas, &memory.history, now)
    }

    /// The set notes the count, the status does not: its writer was killed in between.
    #[test]
    fn a_scale_whose_status_was_lost_still_uses_up_its_rate() {
        let mut first = memory();
        let policy = first.policy.clone().expect("a policy");
        let noted = |count: u32, history: &History| {
            let set = SetFacts {
                name: "web-1".to_owned(),
                uid: "set".to_owned(),
                resource_version: "1".to_owned(),
                revision: "1".to_owned(),
                number: 1,
                replicas: count,
                desired_replicas: Some(count),
                template_hash: None,
                quota: TemplateQuota::default(),
                probed: false,
                deleting: false,
                failure: None,
                changed_by: None,
                members: Members::Pods(PodSet::default()),
            };
            let scaling = ScalingStatus {
                desired_replicas: 4,
                history: StoredHistory::store(history),
                ..ScalingStatus::default()
            };
            let status = ElasticWorkloadStatus {
                desired_replicas: 4,
                scaling: Some(scaling),
                ..ElasticWorkloadStatus::default()
            };
            (ElasticWorkload { status: Some(status), ..ElasticWorkload::default() }, vec![set])
        };
        let stored = History::from_lists([], [(2, at(0))], []);
        let start = |memory: &mut Memory, (workload, sets): (ElasticWorkload, Vec<SetFacts>), leads, now| {
            memory.start(&workload, &sets, &policy, leads, now);
        };
        start(&mut first, noted(8, &stored), true, at(10));
        let mut expected = History::restored(stored.clone(), 8, at(10));
        expected.found(&policy, 4, 8, at(10));
        assert_eq!((first.count, &first.history), (Some(8), &expected));
        assert_ne!(expected, History::restored(stored.clone(), 8, at(10)), "the four are counted");

        let mut standby = memory();
        start(&mut standby, noted(4, &History::default()), false, at(5));
        let warm = standby.history.clone();
        start(&mut standby, noted(4, &stored), false, at(10));
        assert_eq!(standby.history, warm, "it follows, and finds nothing");
        standby.count = None;
        start(&mut standby, noted(4, &stored), true, at(10));
        let mut expected = warm;
        expected.adopt(&stored);
        assert_eq!(standby.history, expected, "it leads, and knows what the leader wrote");
        assert_ne!(standby.history.len(), 0);
    }

    /// While the count is written, decisions go on: a high that was recommended meanwhile keeps the window open.
    #[test]
    fn what_is_recommended_while_a_count_is_written_is_kept() {
        let mut memory = memory();
        let policy = memory.policy.clone().expect("a policy");
        assert_eq!(policy.mode, Mode::Auto);
        let scaled = memory.scaled(&policy, decision(&memory, 1, at(0)));
        assert_eq!(scaled.decision.write(), Some(2), "below the minimum");
        let mut meanwhile = decision(&memory, 1, at(1));
        meanwhile.recommendation = Some(9);
        memory.history.decided(&policy, &meanwhile);
        memory.written(&scaled.decision);
        let mut expected = History::from_lists([Recommendation { replicas: 9, at: at(1) }], [], []);
        expected.written(&policy, &scaled.decision);
        assert_eq!((memory.count, &memory.history), (Some(2), &expected));
        assert_eq!(scaled.history.len(), 1, "the status gets the event with the count");
    }
}
