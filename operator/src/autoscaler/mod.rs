//! Keeps the count of every workload with `spec.scaling` up to date: the autoscale crate decides, this brings it what
//! it needs, when there is something new.
//!
//! ```text
//! agents -> usage --+                              count or conditions changed
//! sources ----------+-> dirty -> look -> decide -------------------------------> queue -> reconcile: decide, write,
//! time -------------+            (at most once a second)                                             written
//! ```
//!
//! A standby decides as well, and writes nothing: so its history is warm when it takes over.

mod live;
mod memory;
mod news;
mod samples;

use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicBool, atomic::Ordering},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use catamaran_autoscale as autoscale;
use catamaran_autoscale::{Decision, Pod, Policy, decide, policy::Mode};
use catamaran_crds::{ElasticWorkload, State};
use catamaran_plan::{
    Scaled,
    status::scaling::{Due, due},
};
use catamaran_protocol::stream::identity::PodIdentity;
use jiff::Timestamp;
use tokio::task::{JoinError, JoinSet};

use crate::{
    apply::Applied,
    intake::{hooks::Observer, store::UsageStore},
    metrics::Metrics,
    sources::Sources,
    stores::{PodEntry, Queue, StandIn, StoredWorkload, Stores, WorkloadKey},
};
pub use live::LastDecision;
use memory::{Change, Memory, Spec};
use news::{News, SHORTEST_PAUSE};
use samples::Usage;

/// Without news a decision is made so often: as often as the HPA makes its own.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// So soon after the start every agent has come back: one that lost its operator waits for up to 10 s between two
/// attempts, looks for new addresses every 5 s, and two reports make a usage.
const AGENTS_BACK_WITHIN: Duration = Duration::from_secs(17);
/// So many looks are worth a thread more.
const WORTH_A_THREAD: usize = 32;
/// After so long a thread lets other tasks have their turn.
const SLICE: Duration = Duration::from_millis(1);
/// How often news is looked at.
const TICK: Duration = Duration::from_millis(50);

/// Decides for all workloads. A clone is the same.
#[derive(Clone)]
pub struct Autoscaler {
    shared: Arc<Shared>,
}

struct Shared {
    stores: Stores,
    usage: UsageStore,
    sources: Sources,
    queue: Queue,
    metrics: Metrics,
    memory: RwLock<HashMap<WorkloadKey, Arc<Mutex<Memory>>>>,
    /// Workloads to decide for.
    dirty: Mutex<HashMap<Arc<WorkloadKey>, News>>,
    leads: AtomicBool,
    /// Since when agents are listened to, if they are.
    listens_since: Option<Instant>,
    /// How many threads there are.
    threads: usize,
}

impl Autoscaler {
    /// With an empty memory. `listens`: whether node agents are listened to from now on.
    #[must_use]
    pub fn new(
        stores: Stores,
        usage: UsageStore,
        sources: Sources,
        queue: Queue,
        metrics: Metrics,
        listens: bool,
    ) -> Self {
        let shared = Shared {
            stores,
            usage,
            sources,
            queue,
            metrics,
            memory: RwLock::default(),
            dirty: Mutex::default(),
            leads: AtomicBool::new(false),
            listens_since: listens.then(Instant::now),
            threads: available_parallelism().map_or(1, NonZero::get),
        };
        Self { shared: Arc::new(shared) }
    }

    /// From now on this process writes: the counts are those that are in the cluster.
    pub fn lead(&self) {
        for memory in self.shared.memories().values() {
            lock(memory).count = None;
        }
        self.shared.leads.store(true, Ordering::Release);
    }

    /// Decides for a workload now, for a plan that will be carried out. `None` without scaling, and while it is
    /// stopped.
    #[must_use]
    pub fn decide(&self, key: &WorkloadKey, workload: &ElasticWorkload, now: Timestamp) -> Option<Scaled> {
        let stand_in = self.shared.stores.last_good.stand_in(key);
        let spec = self.shared.spec(key, workload, stand_in.as_deref())?;
        let memory = self.shared.memory_of(key);
        let mut memory = lock(&memory);
        let policy = memory.renew(spec, workload)?;
        let decision = match memory.standing() {
            Some(decision) => decision,
            None => self.shared.make(&mut memory, &policy, key, workload, now),
        };
        Some(memory.scaled(&policy, decision))
    }

    /// A plan was carried out, and with it the count of a decision.
    pub fn written(&self, key: &WorkloadKey, applied: &Applied) {
        let Some(decision) = applied.count() else { return };
        self.shared.metrics.scaled(decision);
        let memory = self.shared.memory_of(key);
        let change = lock(&memory).written(decision);
        if let Some(change) = change {
            self.shared.metrics.reacted(change.decided.elapsed(), change.sampled.map(|at| at.elapsed()));
        }
    }

    /// The plan with the last decision was refused: it is not tried again before the pause is over.
    pub fn refused(&self, key: &WorkloadKey, pause: Duration) {
        if let Some(memory) = self.shared.memories().get(key) {
            lock(memory).refused_until = Some(Instant::now() + pause);
        }
    }

    /// Forgets a workload.
    pub fn forget(&self, key: &WorkloadKey) {
        self.shared.forget(key);
    }

    /// What a pod uses of the CPU, in thousandths of a core: for the choice of victims.
    #[must_use]
    pub fn cpu_of(&self, namespace: &str, entry: &PodEntry) -> Option<i64> {
        samples::cpu(&self.shared.usage, namespace, entry)
    }

    /// Until when usage that is not known may still be on its way: see [`catamaran_plan::Facts`].
    #[must_use]
    pub fn usage_due(&self, now: Timestamp) -> Option<Timestamp> {
        let left = AGENTS_BACK_WITHIN.checked_sub(self.shared.listens_since?.elapsed())?;
        now.checked_add(left).ok()
    }

    /// Decides when there is news, until the future is dropped.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        loop {
            tokio::select! {
                workload = self.shared.sources.arrival() => self.note(workload),
                _ = tick.tick() => {
                    if swept.elapsed() >= Duration::from_secs(1) {
                        swept = Instant::now();
                        self.shared.sweep();
                    }
                    self.shared.look_at_news().await;
                }
            }
        }
    }

    /// A source answered: what was decided on its last answer stands no more.
    fn note(&self, workload: WorkloadKey) {
        let now = Instant::now();
        if let Some(memory) = self.shared.memories().get(&workload) {
            lock(memory).overtaken = true;
        }
        self.shared.dirty().entry(Arc::new(workload)).or_default().came(now);
    }
}

impl Observer for Autoscaler {
    fn reported(&self, pods: &[Arc<PodIdentity>]) {
        let index = &self.shared.stores.pods.index;
        let workloads: HashSet<Arc<WorkloadKey>> = pods.iter().filter_map(|pod| index.home(pod.uid())).collect();
        let now = Instant::now();
        let mut dirty = self.shared.dirty();
        for workload in workloads {
            dirty.entry(workload).or_default().came(now);
        }
    }
}

impl Shared {
    fn dirty(&self) -> MutexGuard<'_, HashMap<Arc<WorkloadKey>, News>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memories(&self) -> std::sync::RwLockReadGuard<'_, HashMap<WorkloadKey, Arc<Mutex<Memory>>>> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory_of(&self, key: &WorkloadKey) -> Arc<Mutex<Memory>> {
        if let Some(memory) = self.memories().get(key) {
            return memory.clone();
        }
        self.memory.write().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().clone()
    }

    fn forget(&self, key: &WorkloadKey) {
        self.memory.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.sources.want(key, Vec::new());
    }

    fn stored(&self, key: &WorkloadKey) -> Option<Arc<StoredWorkload>> {
        self.stores.workloads.get(&key.reference())
    }

    /// What scaling has to know of the spec; `None` where there is nothing to decide.
    fn spec(&self, key: &WorkloadKey, workload: &ElasticWorkload, stand_in: Option<&StandIn>) -> Option<Spec> {
        let wanted =
            workload.spec.scaling.as_ref().filter(|_| workload.spec.state.unwrap_or_default() == State::Running);
        if wanted.is_none() {
            if self.memories().contains_key(key) {
                self.forget(key);
            }
            return None;
        }
        let class = match stand_in {
            Some(stand_in) => stand_in.class.clone(),
            None => self.stores.class_of(workload),
        };
        Some(Spec::new(workload, class))
    }

    /// Makes a decision, and remembers it.
    fn make(
        &self,
        memory: &mut Memory,
        policy: &Policy,
        key: &WorkloadKey,
        workload: &ElasticWorkload,
        now: Timestamp,
    ) -> Decision {
        memory.set_clock(now);
        // Where somebody else writes the count, it is looked up each time.
        let leads = self.leads.load(Ordering::Acquire);
        if memory.count.is_none() || policy.mode != Mode::Auto || !leads {
            let (sets, _) = self.stores.sets_of(workload);
            memory.start(workload, &sets, policy, leads, now);
        }
        let mut entries = self.stores.own_pods(key, workload.metadata.uid.as_deref());
        for entry in &mut entries {
            memory.with_quota(entry);
        }
        let usage = Usage::collect(&self.usage, &key.namespace, &entries);
        let without_agent = !usage.is_complete();
        if memory.asked != Some(without_agent) {
            memory.asked = Some(without_agent);
            self.sources.want(key, samples::queries(workload, without_agent));
        }
        let answers = if samples::needs_sources(policy) { self.sources.answers(key) } else { Vec::new() };
        let (samples, taken) = usage.answer(policy, &answers, now);
        let known = memory.bounds.take().filter(|bounds| bounds.until.is_none_or(|until| until > now));
        let bounds = known.unwrap_or_else(|| autoscale::Bounds::at(policy.min, policy.max, &policy.schedules, now));
        let pods: Vec<&Pod> = entries.iter().map(|entry| &entry.pod).collect();
        let live = entries.iter().filter(|entry| entry.is_live()).count();
        let count = memory.count.unwrap_or(policy.min);
        let observed = decide::Observed {
            replicas: count,
            status_replicas: i32::try_from(live).unwrap_or(i32::MAX),
            bounds: &bounds,
            pods: &pods,
            samples: &samples,
            taken: &taken,
            scaled_to_zero: count == 0,
        };
        let decision = autoscale::decide(policy, &observed, &memory.history, now);
        memory.bounds = Some(bounds);
        memory.history.decided(policy, &decision);
        (memory.last, memory.overtaken) = (Some((Instant::now(), decision.clone())), false);
        if leads {
            self.metrics.decided(&decision);
        }
        decision
    }

    /// Workloads that nothing has been heard of for long are looked at as well, and those whose metrics are lost every
    /// second.
    fn sweep(&self) {
        let mut due: Vec<WorkloadKey> = Vec::new();
        for (key, memory) in self.memories().iter() {
            let memory = lock(memory);
            let pause = if memory.history.lost_since().is_some() { SHORTEST_PAUSE } else { LONGEST_PAUSE };
            if memory.is_older_than(pause) {
                due.push(key.clone());
            }
        }
        let known = self.memories().len();
        // Workloads that are not remembered yet: on a standby nothing else brings them in.
        let scaled = self
            .stores
            .workloads
            .state_filter(|workload| workload.0.as_ref().is_ok_and(|workload| workload.spec.scaling.is_some()));
        if scaled.len() != known {
            // Those that are gone; on a standby nothing else takes them out.
            let gone: Vec<WorkloadKey> =
                self.memories().keys().filter(|key| self.stored(key).is_none()).cloned().collect();
            gone.iter().for_each(|key| self.forget(key));
            let memories = self.memories();
            due.extend(
                scaled
                    .iter()
                    .filter_map(|workload| workload.0.as_ref().ok())
                    .map(WorkloadKey::of_workload)
                    .filter(|key| !memories.contains_key(key)),
            );
        }
        let mut dirty = self.dirty();
        for key in due {
            dirty.entry(Arc::new(key)).or_default();
        }
    }

    /// Decides for the workloads whose news is due; the others keep waiting. All threads take part, and other tasks get
    /// their turn: with thousands of workloads, or thousands of pods in one, this is most of what the process does.
    async fn look_at_news(self: &Arc<Self>) {
        let due = self.due();
        let threads = self.threads.min(due.len().div_ceil(WORTH_A_THREAD));
        let due = Arc::new(Mutex::new(due.into_iter()));
        let mut looks = JoinSet::new();
        for _ in 0..threads {
            let (shared, due) = (self.clone(), due.clone());
            looks.spawn(async move {
                let mut began = Instant::now();
                loop {
                    let next = due.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((key, news)) = next else { return };
                    shared.look(&key, news.first());
                    if began.elapsed() >= SLICE {
                        tokio::task::yield_now().await;
                        began = Instant::now();
                    }
                }
            });
        }
        while let Some(ended) = looks.join_next().await {
            // As if it had happened here: whoever supervises this task hears of it.
            if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
                resume_unwind(panic);
            }
        }
    }

    fn due(&self) -> Vec<(Arc<WorkloadKey>, News)> {
        let memories = self.memories();
        let now = Instant::now();
        self.dirty()
            .extract_if(|key, news| memories.get(key).is_none_or(|memory| lock(memory).is_due(*news, now)))
            .collect()
    }

    /// Decides for one workload on `news` that came then, and wakes it if that changes anything.
    fn look(&self, key: &WorkloadKey, news: Option<Instant>) {
        let Some(stored) = self.stored(key) else { return };
        let stand_in = self.stores.last_good.stand_in(key);
        let workload = match (&stand_in, &stored.0) {
            (Some(instead), _) => &instead.workload,
            (None, Ok(workload)) => workload,
            (None, Err(_)) => return,
        };
        let now = Timestamp::now();
        let Some(spec) = self.spec(key, workload, stand_in.as_deref()) else { return };
        let memory = self.memory_of(key);
        let mut memory = lock(&memory);
        let decided = Instant::now();
        let Some(policy) = memory.renew(spec, workload) else { return };
        let decision = self.make(&mut memory, &policy, key, workload, now);
        if self.leads.load(Ordering::Acquire) {
            news.iter().for_each(|at| self.metrics.sampled(at.elapsed()));
            // One that is not written yet goes on, unless it is no longer wanted.
            let change = memory.change.unwrap_or(Change { sampled: news, decided });
            memory.change = decision.write().map(|_| change);
        }
        let is_due = workload.status.as_ref().is_none_or(|status| due(status, &decision, now) == Due::Now);
        if is_due && memory.refused_until.is_none_or(|until| until <= decided) {
            self.queue.wake_now(key.clone());
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
