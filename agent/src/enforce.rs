//! All pods of the node, held to their quota.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use catamaran_protocol::node_quota::NodeQuota;
use catamaran_protocol::stream::{
    limits::{REASON_BYTES, UNENFORCED_PER_POD},
    proto::{Knob, QuotaState, Unenforced},
};
use foldhash::{HashMap, HashMapExt};

use crate::{
    cgroup::{CgroupFiles, Folder},
    devices::{self, Device},
    files,
    find::{self, Finder},
    hold::{Holder, Outcome, Why},
    knobs::{self, Facts, Limit, Slot, Wanted},
    layout::{ContainerId, Uid},
    pods::{Annotation, Container, Pod},
};

/// Disks come and go seldom.
const DEVICES_EVERY: Duration = Duration::from_secs(10);

/// Holds pods to their quota.
#[derive(Debug)]
pub struct Enforcer {
    finder: Finder,
    sys_block: PathBuf,
    devices: Vec<Device>,
    devices_read: Option<Duration>,
    pods: HashMap<Uid, HeldPod>,
}

/// What one round came to.
#[derive(Debug, Default)]
pub struct Round {
    /// By uid, for each pod with an annotation.
    pub states: HashMap<Uid, QuotaState>,
    /// What was written.
    pub writes: Vec<(Slot, Why)>,
    /// Slots that are held.
    pub held: usize,
    /// Annotations that are refused.
    pub refused: usize,
    /// Why nothing can be noted at a cgroup.
    pub note_failed: Option<String>,
}

#[derive(Debug, Default)]
struct HeldPod {
    /// The pod's own cgroup, once it was looked at.
    own: Option<Held>,
    containers: HashMap<ContainerId, HeldContainer>,
    /// The pod as it was when there was nothing to do; as long as it stays the same one there is not.
    idle: Option<Arc<Pod>>,
}

#[derive(Debug, Default)]
struct HeldContainer {
    cgroup: Held,
    /// The one below it that holds the CPU limit, where there is one ([`find::inner_limit`]).
    inner: Held,
}

/// A cgroup that was looked at.
#[derive(Debug, Default)]
enum Held {
    /// An agent before this one may have set something.
    #[default]
    New,
    /// Nothing is set.
    Untouched,
    /// Something is, or was to be.
    Touched(Holder<Folder>),
}

impl Enforcer {
    /// Nothing is held yet. `cgroup_root` and `sys_block` are folders as in /sys/fs/cgroup and /sys/block.
    #[must_use]
    pub fn new(cgroup_root: PathBuf, sys_block: PathBuf) -> Self {
        Self {
            finder: Finder::new(cgroup_root),
            sys_block,
            devices: Vec::new(),
            devices_read: None,
            pods: HashMap::new(),
        }
    }

    /// Compares every held cgroup with what is asked now. `now` is the time of a steady clock.
    pub fn round(&mut self, pods: &[Arc<Pod>], now: Duration) -> Round {
        let mut round = Round::default();
        let mut missing = false;
        if let Err(error) = self.finder.refresh(false, now) {
            tracing::debug!(%error, "the cgroup root cannot be read");
        }
        if pods.iter().any(|pod| asks_for_io(pod)) {
            self.read_devices(now);
        }
        for pod in pods {
            missing |= !self.pod(pod, &mut round);
        }
        // All that are here are known now. What is gone has taken its cgroups with it.
        if self.pods.len() > pods.len() {
            let here: HashSet<&Uid> = pods.iter().map(|pod| &pod.uid).collect();
            self.pods.retain(|uid, _| here.contains(uid));
        }
        if missing {
            let _ = self.finder.refresh(true, now);
        }
        round.held = self.pods.values().map(HeldPod::held).sum();
        round
    }

    /// Whether all of these are pods as they were when nothing was to be done with them, and there are no others.
    #[must_use]
    pub fn is_idle(&self, pods: &[Arc<Pod>]) -> bool {
        self.pods.len() == pods.len()
            && pods.iter().all(|pod| self.pods.get(&pod.uid).is_some_and(|held| held.is_idle(pod)))
    }

    /// Sets everything back.
    pub fn release(&mut self) -> Round {
        let mut round = Round::default();
        let nothing = BTreeMap::new();
        for pod in self.pods.values_mut() {
            let containers = pod.containers.values_mut().flat_map(|held| [&mut held.cgroup, &mut held.inner]);
            for held in containers.chain(&mut pod.own) {
                if let Held::Touched(holder) = held {
                    take(&mut round, &mut Vec::new(), "", holder.step(&nothing));
                }
            }
        }
        round.held = self.pods.values().map(HeldPod::held).sum();
        round
    }

    fn read_devices(&mut self, now: Duration) {
        if self.devices_read.is_none_or(|read| now.saturating_sub(read) >= DEVICES_EVERY) {
            self.devices_read = Some(now);
            self.devices = devices::list(&self.sys_block);
        }
    }

    /// One pod; whether its cgroup was found, or nothing is to be done with it.
    fn pod(&mut self, pod: &Arc<Pod>, round: &mut Round) -> bool {
        if self.pods.get(&pod.uid).is_some_and(|held| held.is_idle(pod)) {
            return true;
        }
        let quota = pod.annotation.as_ref().and_then(|annotation| annotation.quota.as_ref().ok());
        let quota = quota.map(|quota| NodeQuota {
            // Frozen processes would not notice that they are asked to end.
            frozen: quota.frozen && !pod.terminating,
            ..quota.clone()
        });
        let held = self.pods.entry(pod.uid.clone()).or_default();
        held.containers.retain(|id, _| pod.containers.iter().any(|container| container.id == *id));
        let mut problems = Vec::new();
        let known = held.own.is_some() && pod.containers.iter().all(|c| held.containers.contains_key(&c.id));
        let idle = known && held.held() == 0 && quota.is_none();
        held.idle = (idle && pod.annotation.is_none()).then(|| pod.clone());
        let mut found = true;
        if !idle {
            let facts = Facts { cpu_max: None, cpu_limit_millicores: None, devices: &self.devices, page: page() };
            match self.finder.pod(&pod.uid) {
                Ok(Some(folder)) => held.step(folder, pod, quota.as_ref(), &facts, round, &mut problems),
                Ok(None) => {
                    found = quota.is_none() || pod.containers.is_empty();
                    problems.push((Knob::Unspecified, "the pod's cgroup is not found".to_owned()));
                }
                Err(error) => problems.push((Knob::Unspecified, format!("the pod's cgroup cannot be opened: {error}"))),
            }
        }
        if let Some(annotation) = &pod.annotation {
            let state = state(annotation, problems);
            round.refused = round.refused.saturating_add(usize::from(!state.refused.is_empty()));
            round.states.insert(pod.uid.clone(), state);
        }
        found
    }
}

impl HeldPod {
    fn is_idle(&self, pod: &Arc<Pod>) -> bool {
        self.idle.as_ref().is_some_and(|idle| Arc::ptr_eq(idle, pod))
    }

    fn held(&self) -> usize {
        let containers = self.containers.values().flat_map(|held| [&held.cgroup, &held.inner]);
        containers.chain(&self.own).map(Held::held).sum()
    }

    fn step(
        &mut self,
        folder: Folder,
        pod: &Pod,
        quota: Option<&NodeQuota>,
        facts: &Facts<'_>,
        round: &mut Round,
        problems: &mut Vec<(Knob, String)>,
    ) {
        let mut burst = None;
        if let Some(quota) = quota.filter(|quota| !pod.containers.iter().any(|c| *c.name == *quota.container)) {
            problems.push((Knob::Unspecified, format!("no container {} runs", quota.container)));
        }
        for container in &pod.containers {
            let held = self.containers.entry(container.id.clone()).or_default();
            match held.step(&folder, container, quota, facts, round, problems) {
                Ok(of_container) => burst = burst.or(of_container),
                Err(reason) => problems.push((Knob::Unspecified, format!("{}: {reason}", container.name))),
            }
        }
        let burst = knobs::burst_above(burst, with_cpu_max(facts, &folder).cpu_max);
        let wanted = burst.map(|burst| (Slot::CpuBurst, Limit::At(burst))).into_iter().collect();
        let own = self.own.get_or_insert(Held::New);
        if let Some(outcome) = own.step(folder, &wanted) {
            take(round, problems, "pod", outcome);
        }
    }
}

impl HeldContainer {
    /// Holds one container; the burst that it may have.
    fn step(
        &mut self,
        pod: &Folder,
        container: &Container,
        quota: Option<&NodeQuota>,
        facts: &Facts<'_>,
        round: &mut Round,
        problems: &mut Vec<(Knob, String)>,
    ) -> Result<Option<Limit>, String> {
        let found = find::container(pod, &container.id).map_err(|error| error.to_string())?;
        let cgroup = found.ok_or("its cgroup is not found")?;
        let inner = find::inner_limit(&cgroup).map_err(|error| error.to_string())?;
        let wanted = quota.map(|quota| {
            let limited = with_cpu_max(facts, inner.as_ref().unwrap_or(&cgroup));
            let facts = Facts { cpu_limit_millicores: container.cpu_limit_millicores, ..limited };
            knobs::wanted(quota, &container.name, &facts)
        });
        let Wanted { mut slots, impossible } = wanted.unwrap_or_default();
        problems.extend(impossible.into_iter().map(|(knob, reason)| (knob, format!("{}: {reason}", container.name))));
        let burst = slots.get(&Slot::CpuBurst).copied();
        if let Some(inner) = inner {
            // Both may throttle.
            slots.remove(&Slot::CpuBurst);
            let above = knobs::burst_above(burst, with_cpu_max(facts, &cgroup).cpu_max);
            slots.extend(above.map(|burst| (Slot::CpuBurst, Limit::At(burst))));
            let wanted = burst.map(|burst| (Slot::CpuBurst, burst)).into_iter().collect();
            if let Some(outcome) = self.inner.step(inner, &wanted) {
                take(round, problems, &container.name, outcome);
            }
        }
        if let Some(outcome) = self.cgroup.step(cgroup, &slots) {
            take(round, problems, &container.name, outcome);
        }
        Ok(burst)
    }
}

impl Held {
    fn held(&self) -> usize {
        match self {
            Self::New | Self::Untouched => 0,
            Self::Touched(holder) => holder.held(),
        }
    }

    /// Compares and writes; `None` when there is nothing to do.
    fn step(&mut self, cgroup: Folder, wanted: &BTreeMap<Slot, Limit>) -> Option<Outcome> {
        let mut holder = match std::mem::replace(self, Self::Untouched) {
            Self::Touched(holder) => holder,
            Self::Untouched if wanted.is_empty() => return None,
            Self::New | Self::Untouched => Holder::open(cgroup),
        };
        let outcome = holder.step(wanted);
        if holder.held() > 0 || !wanted.is_empty() {
            *self = Self::Touched(holder);
        }
        Some(outcome)
    }
}

fn with_cpu_max<'a>(facts: &Facts<'a>, cgroup: &Folder) -> Facts<'a> {
    let cpu_max = cgroup.text("cpu.max").ok().flatten().and_then(|text| files::cpu_max(&text));
    Facts { cpu_max, ..*facts }
}

fn take(round: &mut Round, problems: &mut Vec<(Knob, String)>, whose: &str, outcome: Outcome) {
    round.writes.extend(outcome.writes);
    round.note_failed = round.note_failed.take().or(outcome.note_failed);
    problems.extend(outcome.failures.into_iter().map(|(slot, reason)| (slot.knob(), format!("{whose}: {reason}"))));
}

fn asks_for_io(pod: &Pod) -> bool {
    let quota = pod.annotation.as_ref().and_then(|annotation| annotation.quota.as_ref().ok());
    quota.is_some_and(|quota| !quota.io.is_empty())
}

/// What is told to the operator.
fn state(annotation: &Annotation, problems: Vec<(Knob, String)>) -> QuotaState {
    let refused = annotation.quota.as_ref().err().map(|reason| clipped(reason)).unwrap_or_default();
    let problems = if refused.is_empty() { problems } else { Vec::new() };
    let unenforced = problems.into_iter().take(UNENFORCED_PER_POD);
    let unenforced = unenforced.map(|(knob, reason)| Unenforced { knob: knob.into(), reason: clipped(&reason) });
    QuotaState { fingerprint: annotation.fingerprint, refused, unenforced: unenforced.collect() }
}

/// Within the limits of the protocol.
fn clipped(text: &str) -> String {
    let mut clipped = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if clipped.len().saturating_add(c.len_utf8()) > REASON_BYTES {
            break;
        }
        clipped.push(c);
    }
    clipped
}

fn page() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}
