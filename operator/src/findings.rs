//! What node agents find at pods besides usage: whether the kernel holds them to their quota, and what it killed for
//! want of memory. News wakes the workload.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use catamaran_plan::facts::QuotaReport;
use catamaran_protocol::stream::{
    identity::PodIdentity,
    proto::{Knob, PodTotals, QuotaState, Unenforced},
    snapshot::PodReading,
};
use dashmap::{DashMap, Entry};
use jiff::Timestamp;

use crate::{
    intake::{hooks::Observer, store::Reading},
    stores::{Pods, Queue},
};

/// After so long without a reading an agent has said nothing: longer than its pod takes to be replaced.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// A count of kills that is first seen within this time after the start may be of before it.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// How often what is silent is looked for.
const EVERY: Duration = Duration::from_secs(5);

/// What agents found, for pods that there is something to say of. Clones share it.
#[derive(Clone)]
pub struct Findings {
    inner: Arc<Inner>,
}

struct Inner {
    started: Instant,
    /// By uid.
    pods: DashMap<Box<str>, Finding>,
    places: Arc<Pods>,
    queue: Queue,
}

struct Finding {
    pod: Arc<PodIdentity>,
    arrived: Instant,
    /// With an annotation.
    quota: Option<Box<QuotaState>>,
    /// Once there was a kill.
    kills: Option<Kills>,
}

/// OOM kills in a pod's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kills {
    /// How many, so far.
    pub count: u64,
    /// memory.peak of the pod, in bytes.
    pub peak: Option<u64>,
    /// When the last one was seen; `None` for those of before this process.
    pub last: Option<Timestamp>,
}

impl Findings {
    /// Nothing is found yet.
    #[must_use]
    pub fn new(places: Arc<Pods>, queue: Queue) -> Self {
        Self { inner: Arc::new(Inner { started: Instant::now(), pods: DashMap::new(), places, queue }) }
    }

    /// Drops what agents no longer speak of, until the process ends.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.sweep(Instant::now());
        }
    }

    /// What is said of a pod's quota, by its uid and its present annotation.
    #[must_use]
    pub fn quota_report(&self, uid: &str, fingerprint: u64) -> QuotaReport {
        let finding = self.inner.pods.get(uid);
        match finding.as_ref().and_then(|finding| finding.quota.as_deref()) {
            None => QuotaReport::Nothing,
            Some(quota) => report_from(quota, fingerprint),
        }
    }

    /// The kills in a pod's cgroup, by its uid.
    #[must_use]
    pub fn kills(&self, uid: &str) -> Option<Kills> {
        self.inner.pods.get(uid)?.kills
    }

    fn sweep(&self, now: Instant) {
        let mut silent = Vec::new();
        self.inner.pods.retain(|_, finding| {
            let stays = now.saturating_duration_since(finding.arrived) <= SILENT_AFTER;
            if !stays {
                silent.push(finding.pod.clone());
            }
            stays
        });
        silent.iter().for_each(|pod| self.wake(pod));
    }

    fn read(&self, pod: &PodReading, now: Instant) {
        let (quota, totals) = (pod.quota(), pod.totals());
        let count = totals.and_then(|totals| totals.oom_kills).unwrap_or(0);
        let news = match self.inner.pods.entry(pod.pod().uid().into()) {
            Entry::Vacant(_) if quota.is_none() && count == 0 => false,
            Entry::Vacant(vacant) => {
                // Before this it was read without a kill, if it was read at all.
                let settled = now.saturating_duration_since(self.inner.started) > SETTLED_AFTER;
                let kills = totals.filter(|_| count > 0).map(|totals| kills(totals, settled.then(Timestamp::now)));
                let quota = quota.cloned().map(Box::new);
                vacant.insert(Finding { pod: pod.pod().clone(), arrived: now, quota, kills });
                true
            }
            Entry::Occupied(mut occupied) => {
                let finding = occupied.get_mut();
                (finding.pod, finding.arrived) = (pod.pod().clone(), now);
                let mut news = false;
                if finding.quota.as_deref() != quota {
                    finding.quota = quota.cloned().map(Box::new);
                    news = true;
                }
                let before = finding.kills.map_or(0, |kills| kills.count);
                if let Some(totals) = totals.filter(|_| count != before) {
                    // Fewer than before is another pod's count, which no uid has twice.
                    finding.kills = Some(kills(totals, Some(Timestamp::now())));
                    news = true;
                }
                news
            }
        };
        if news {
            self.wake(pod.pod());
        }
    }

    fn wake(&self, pod: &PodIdentity) {
        let workload = self.inner.places.index.home(pod.uid());
        self.inner.queue.wake_all(workload.map(|workload| workload.as_ref().clone()));
    }
}

fn kills(totals: &PodTotals, last: Option<Timestamp>) -> Kills {
    Kills { count: totals.oom_kills.unwrap_or(0), peak: totals.memory_peak_bytes, last }
}

fn report_from(quota: &QuotaState, fingerprint: u64) -> QuotaReport {
    let QuotaState { fingerprint: of, refused, unenforced } = quota;
    if *of != fingerprint {
        return QuotaReport::NotYet("its node agent has not read the present quota yet".to_owned());
    }
    if !refused.is_empty() {
        return QuotaReport::NotHeld(format!("its node agent does not follow the quota: {refused}"));
    }
    // What an agent cannot name is of no container yet, or of a newer agent.
    let named = unenforced.iter().find_map(|part| Some((file(part.knob())?, &part.reason)));
    match (named, unenforced.first()) {
        (None, None) => QuotaReport::Held,
        (Some((file, reason)), _) => QuotaReport::NotHeld(format!("{file}: {reason}")),
        (None, Some(Unenforced { knob: _, reason })) => QuotaReport::NotYet(reason.clone()),
    }
}

/// The file of a knob.
fn file(knob: Knob) -> Option<&'static str> {
    match knob {
        Knob::Unspecified => None,
        Knob::CpuBurst => Some("cpu.max.burst"),
        Knob::CpuWeight => Some("cpu.weight"),
        Knob::MemoryHigh => Some("memory.high"),
        Knob::MemorySwapMax => Some("memory.swap.max"),
        Knob::PidsMax => Some("pids.max"),
        Knob::IoMax => Some("io.max"),
        Knob::Freeze => Some("cgroup.freeze"),
    }
}

/// Notes what agents find, and tells another observer.
pub struct Noted {
    /// Where it is noted.
    pub findings: Findings,
    /// Who is told as well.
    pub next: Arc<dyn Observer>,
}

impl Observer for Noted {
    fn reported(&self, pods: &[Arc<PodIdentity>]) {
        self.next.reported(pods);
    }

    fn read(&self, reading: &Reading<'_>, pods: &[PodReading]) {
        let now = Instant::now();
        pods.iter().for_each(|pod| self.findings.read(pod, now));
        self.next.read(reading, pods);
    }
}

#[cfg(test)]
mod tests {
    use catamaran_protocol::stream::identity::ContainerIdentity;

    use super::*;

    fn reading(quota: Option<QuotaState>, oom_kills: u64) -> PodReading {
        let pod = PodIdentity::new("shop", "web-1", "u", Vec::<ContainerIdentity>::new()).expect("a pod");
        let totals = PodTotals { oom_kills: Some(oom_kills), memory_peak_bytes: Some(7), ..PodTotals::default() };
        PodReading::new(Arc::new(pod), Vec::new()).expect("no containers").with(Some(totals), quota)
    }

    fn state(fingerprint: u64, refused: &str, unenforced: &[(Knob, &str)]) -> QuotaState {
        let unenforced = unenforced
            .iter()
            .map(|(knob, reason)| Unenforced { knob: (*knob).into(), reason: (*reason).to_owned() })
            .collect();
        QuotaState { fingerprint, refused: refused.to_owned(), unenforced }
    }

    #[test]
    fn what_is_said_of_a_quota() {
        let not_held = |text: &str| QuotaReport::NotHeld(text.to_owned());
        for (state, expected) in [
            (state(1, "", &[]), QuotaReport::Held),
            (state(2, "", &[]), QuotaReport::NotYet("its node agent has not read the present quota yet".to_owned())),
            (state(1, "no JSON", &[]), not_held("its node agent does not follow the quota: no JSON")),
            (
                state(1, "", &[(Knob::Unspecified, "no container runs")]),
                QuotaReport::NotYet("no container runs".to_owned()),
            ),
            (
                state(1, "", &[(Knob::Unspecified, "no container runs"), (Knob::IoMax, "no disk sdx")]),
                not_held("io.max: no disk sdx"),
            ),
        ] {
            assert_eq!(report_from(&state, 1), expected, "{state:?}");
        }
    }

    #[test]
    fn a_silent_agent_has_said_nothing_and_kills_are_counted_from_now_on() {
        let findings = Findings::new(Arc::default(), Queue::default());
        let start = Instant::now();
        findings.read(&reading(None, 0), start);
        assert!(findings.inner.pods.is_empty(), "nothing to say of it");
        findings.read(&reading(Some(state(1, "", &[])), 2), start);
        assert_eq!(findings.quota_report("u", 1), QuotaReport::Held);
        assert_eq!(findings.kills("u"), Some(Kills { count: 2, peak: Some(7), last: None }), "of before");
        findings.read(&reading(Some(state(1, "", &[])), 3), start);
        assert!(findings.kills("u").is_some_and(|kills| kills.count == 3 && kills.last.is_some()));
        findings.sweep(start + SILENT_AFTER);
        assert_eq!(findings.quota_report("u", 1), QuotaReport::Held);
        findings.sweep(start + SILENT_AFTER + Duration::from_millis(1));
        assert_eq!((findings.quota_report("u", 1), findings.kills("u")), (QuotaReport::Nothing, None));
        // Long after the start, a first count is news.
        findings.read(&reading(None, 1), start + SETTLED_AFTER + Duration::from_secs(1));
        assert!(findings.kills("u").is_some_and(|kills| kills.last.is_some()));
    }
}
