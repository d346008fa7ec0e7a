//! OOM kills, and the limits at which they happened: a limit may be raised before a kill is told, or
//! after it.

use catamaran_plan::{
    facts::{Containers, PodQuota, Resize},
    goal::quota::Quota,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::objects::running;

/// A container that was killed by the OOM killer, as the kubelet tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKilled {
    /// The container.
    pub container: String,
    /// When it had begun to run.
    pub began: Option<Timestamp>,
    /// When.
    pub at: Timestamp,
    /// Its limit then, in bytes, as far as that was seen.
    pub limit: Option<u64>,
}

impl OomKilled {
    /// Gives it the limit at which it happened: as it was `known` before, or by the limits that the pod had before.
    pub(super) fn keep_limit(&mut self, known: Option<&Self>, before: Option<&LimitsBefore>) {
        if let Some(known) = known.filter(|known| known.container == self.container && known.at == self.at) {
            self.limit = known.limit;
        } else if let Some(before) = before.and_then(|before| before.of_kill(self)) {
            self.limit = before.limit;
        }
    }
}

/// The memory limits that a pod had before it was resized last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsBefore {
    containers: Vec<Before>,
    /// When the kubelet was seen to be done, by this operator's clock; `None` until then.
    settled: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Before {
    container: String,
    limit: Option<u64>,
    /// Whether it ran when the kubelet was done, and so got the new limit where it was.
    resized_alive: bool,
}

impl LimitsBefore {
    /// What is to be remembered of a pod that is seen again, with its quotas before and now.
    pub(super) fn between(
        known: Option<&Self>,
        before: &PodQuota,
        quota: &PodQuota,
        status: Option<&core::PodStatus>,
        now: Timestamp,
    ) -> Option<Self> {
        let mut kept = if quota.containers == before.containers {
            known?.clone()
        } else if let Some(known) = known.filter(|known| known.settled.is_none()) {
            known.clone()
        } else {
            let containers = before.containers.iter().map(Before::from_container).collect();
            Self { containers, settled: None }
        };
        if quota.resize != Resize::Settled {
            kept.settled = None;
        } else if kept.settled.is_none() {
            kept.settled = Some(now);
            for container in &mut kept.containers {
                container.resized_alive = status.is_some_and(|status| running(status, &container.container).is_some());
            }
        }
        Some(kept)
    }

    /// The limits of a container, if it was killed by those. Until the kubelet is done it was; and so it was if it did
    /// not run then but had begun to: the kubelet had started it before it looked at the resize.
    fn of_kill(&self, kill: &OomKilled) -> Option<&Before> {
        let before = self.containers.iter().find(|before| before.container == kill.container)?;
        let by_them = self.settled.is_none_or(|settled| {
            kill.at <= settled || (!before.resized_alive && kill.began.is_some_and(|began| began <= settled))
        });
        by_them.then_some(before)
    }

    /// The limits of all containers together at a time, in bytes, if it was before the kubelet was done: `Some(None)`
    /// where one had none.
    pub(super) fn together_at(&self, at: Timestamp) -> Option<Option<u64>> {
        self.settled.is_none_or(|settled| at <= settled).then(|| together(self.containers.iter().map(|it| it.limit)))
    }
}

impl Before {
    fn from_container((container, quota): (&str, Quota)) -> Self {
        Self { container: container.to_owned(), limit: quota.memory_limit, resized_alive: false }
    }
}

/// Limits of containers together, in bytes; `None` where one has none.
pub(super) fn together(mut limits: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    limits.try_fold(0_u64, |sum, limit| Some(sum.saturating_add(limit?)))
}

/// The last kill that the kubelet tells, with the limit that its container has now.
pub(super) fn oom_kill(object: &core::Pod, containers: &Containers) -> Option<OomKilled> {
    let statuses = object.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses.flat_map(|status| {
        let states = [&status.state, &status.last_state].into_iter().flatten();
        states.filter_map(|state| state.terminated.as_ref()).map(|end| (&status.name, end))
    });
    let kills = ends.filter(|(_, end)| end.reason.as_deref() == Some("OOMKilled"));
    let (container, end, at) = kills
        .filter_map(|(name, end)| Some((name, end, end.finished_at.as_ref()?.0)))
        .max_by_key(|(_, _, finished)| *finished)?;
    let limit = containers.get(container).and_then(|quota| quota.memory_limit);
    Some(OomKilled { container: container.clone(), began: end.started_at.as_ref().map(|began| began.0), at, limit })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::stores::pods::{PodEntry, Pods};

    const RUNS: &str = "running";
    const WAITS: &str = "waiting";

    /// A pod as it is seen again and again, by the second.
    struct Seen {
        pods: Pods,
        version: u32,
        cpu_limit: &'static str,
    }

    fn second(second: u8) -> Timestamp {
        format!("2026-11-02T10:00:{second:02}Z").parse().expect("a time")
    }

    fn killed(began: u8, at: u8, state: &str) -> Value {
        let end = json!({
            "exitCode": 137, "reason": "OOMKilled", "startedAt": second(began), "finishedAt": second(at),
        });
        json!({"containerStatuses": [{
            "name": "main", "image": "a", "imageID": "", "ready": true, "restartCount": 1,
            "state": {state: {}}, "lastState": {"terminated": end},
        }]})
    }

    fn resizing(mut status: Value) -> Value {
        status["conditions"] = json!([{"type": "PodResizeInProgress", "status": "True"}]);
        status
    }

    impl Seen {
        fn at(&mut self, now: u8, limit: &str, status: Value) -> (bool, Arc<PodEntry>) {
            self.version += 1;
            let pod: core::Pod = serde_json::from_value(json!({
                "metadata": {
                    "name": "web-1", "namespace": "shop", "uid": "u", "resourceVersion": self.version.to_string(),
                    "labels": {"catamaran.dev/workload": "web"},
                },
                "spec": {"containers": [
                    {"name": "main", "resources": {"limits": {"cpu": self.cpu_limit, "memory": limit}}},
                ]},
                "status": status,
            }))
            .expect("a pod");
            let woken = !self.pods.enter_at(&pod, second(now)).is_empty();
            (woken, self.pods.index.find(&pod.metadata).expect("the pod"))
        }

        fn kill(&mut self, now: u8, limit: &str, status: Value) -> Option<(Timestamp, u64)> {
            self.at(now, limit, status).1.oom_kill.as_ref().and_then(|kill| Some((kill.at, kill.limit? >> 20)))
        }
    }

    fn a_pod(state: &str) -> Seen {
        let mut seen = Seen { pods: Pods::default(), version: 4, cpu_limit: "1" };
        let status = json!({"containerStatuses": [{
            "name": "main", "image": "a", "imageID": "", "ready": true, "restartCount": 0, "state": {state: {}},
        }]});
        assert_eq!(seen.kill(0, "64Mi", status), None);
        seen
    }

    #[test]
    fn a_kill_wakes_and_keeps_the_limit_at_which_it_was() {
        let mut seen = a_pod(RUNS);
        assert!(seen.at(5, "64Mi", killed(0, 4, RUNS)).0, "a kill is news");
        assert!(!seen.at(6, "64Mi", killed(0, 4, RUNS)).0);
        assert_eq!(seen.kill(7, "96Mi", killed(0, 4, RUNS)), Some((second(4), 64)), "raised after it");
        assert_eq!(seen.kill(9, "96Mi", killed(4, 8, RUNS)), Some((second(8), 96)), "and it happened again");
    }

    #[test]
    fn a_kill_before_the_kernel_has_the_new_limit_is_of_the_one_before() {
        let mut seen = a_pod(RUNS);
        assert_eq!(seen.kill(5, "96Mi", resizing(killed(0, 4, WAITS))), Some((second(4), 64)), "under way");
        assert_eq!(seen.kill(6, "128Mi", resizing(killed(4, 5, WAITS))), Some((second(5), 64)), "and once more");
        assert_eq!(seen.kill(7, "128Mi", killed(5, 6, WAITS)), Some((second(6), 64)), "told with the end of it");
    }

    #[test]
    fn a_container_that_was_started_before_the_kubelet_looked_has_the_limit_of_before() {
        let mut seen = a_pod(WAITS);
        // Nothing runs that would have to be resized: the kubelet is done at once. But it has just started the
        // container.
        assert_eq!(seen.kill(5, "96Mi", killed(0, 3, WAITS)), Some((second(3), 64)));
        assert_eq!(
            seen.kill(9, "96Mi", killed(5, 8, WAITS)),
            Some((second(8), 64)),
            "started with the limit of before"
        );
        assert_eq!(seen.kill(12, "96Mi", killed(10, 11, WAITS)), Some((second(11), 96)));
    }

    #[test]
    fn a_container_that_was_resized_alive_has_the_new_limit_from_then_on() {
        let mut seen = a_pod(RUNS);
        let alive = |state: &str| {
            json!({"containerStatuses": [{
                "name": "main", "image": "a", "imageID": "", "ready": true, "restartCount": 0, "state": {state: {}},
            }]})
        };
        assert_eq!(seen.kill(5, "32Mi", resizing(alive(RUNS))), None);
        assert_eq!(seen.kill(6, "32Mi", alive(RUNS)), None);
        assert_eq!(seen.kill(9, "32Mi", killed(0, 8, WAITS)), Some((second(8), 32)));
    }

    #[test]
    fn a_kill_during_a_later_resize_of_the_cpu_is_of_the_memory_limit_before_that_one() {
        let mut seen = a_pod(RUNS);
        assert_eq!(seen.kill(5, "96Mi", resizing(json!({}))), None);
        assert_eq!(seen.kill(6, "96Mi", json!({})), None);
        seen.cpu_limit = "2";
        assert_eq!(seen.kill(9, "96Mi", resizing(killed(0, 8, WAITS))), Some((second(8), 96)), "not of 64Mi");
    }

    #[test]
    fn what_an_agent_saw_is_of_the_limits_of_that_time() {
        let mut seen = a_pod(RUNS);
        seen.at(5, "96Mi", resizing(json!({})));
        let pod = seen.at(6, "96Mi", json!({})).1;
        assert_eq!(pod.memory_limit_at(second(6)), Some(64 << 20));
        assert_eq!(pod.memory_limit_at(second(7)), Some(96 << 20));
    }
}
