//! Which workloads are to be reconciled next, each at most once and not more often than is good.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::sync::mpsc;

use crate::stores::{StoredWorkload, WorkloadKey};

/// How long changes of children are gathered: replicas become ready in groups, and one plan for a group writes less than one for
/// each. Small against the seconds that replicas need to start.
const GATHER: Duration = Duration::from_millis(100);

/// Wakes workloads. While this process does not lead, nothing is queued: on taking over, all are.
#[derive(Clone, Default)]
pub struct Queue {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Where keys go while this process leads.
    sender: Option<mpsc::UnboundedSender<WorkloadKey>>,
    /// Since when each queued workload waits.
    waiting: HashMap<WorkloadKey, Instant>,
    /// Since when each reconcile runs.
    running: HashMap<WorkloadKey, Instant>,
}

/// How much is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// How many workloads wait.
    pub depth: usize,
    /// For how long the first of them has been waiting.
    pub oldest: Option<Duration>,
}

impl Queue {
    /// Starts queueing: keys arrive at the returned end.
    pub fn lead(&self) -> mpsc::UnboundedReceiver<WorkloadKey> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().sender = Some(sender);
        receiver
    }

    /// Something that these workloads depend on changed.
    pub fn wake_all(&self, keys: impl IntoIterator<Item = WorkloadKey>) {
        for key in keys {
            self.send(key, GATHER);
        }
    }

    /// A workload itself changed, or a decision of scaling is to be written.
    pub fn wake_now(&self, key: WorkloadKey) {
        self.send(key, Duration::ZERO);
    }

    /// Something is to be tried again.
    pub(crate) fn wake_after(&self, key: WorkloadKey, delay: Duration) {
        self.send(key, delay);
    }

    fn send(&self, key: WorkloadKey, delay: Duration) {
        let mut inner = self.lock();
        let Some(sender) = inner.sender.clone() else { return };
        if delay.is_zero() {
            inner.waiting.entry(key.clone()).or_insert_with(Instant::now);
            // A closed channel means that this process ends.
            let _ = sender.send(key);
        } else if !inner.waiting.contains_key(&key) {
            inner.waiting.insert(key.clone(), Instant::now());
            drop(inner);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = sender.send(key);
            });
        }
    }

    /// A reconcile begins: what happens from now on needs another one.
    pub(crate) fn begun(&self, key: &WorkloadKey) {
        let mut inner = self.lock();
        inner.waiting.remove(key);
        inner.running.insert(key.clone(), Instant::now());
    }

    /// A reconcile ended, or had nothing to work on.
    pub(crate) fn ended(&self, key: &WorkloadKey) {
        self.lock().running.remove(key);
    }

    /// A workload that was queued is not there any more.
    pub(crate) fn gone(&self, key: &WorkloadKey) {
        self.lock().waiting.remove(key);
    }

    /// How much is waiting.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let inner = self.lock();
        Backlog {
            depth: inner.waiting.len(),
            oldest: inner.waiting.values().chain(inner.running.values()).min().map(Instant::elapsed),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkloadKey {
    /// The reference that the reconcile loop wants.
    #[must_use]
    pub fn reference(&self) -> ObjectRef<StoredWorkload> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }

    /// The key of a workload, also of one as stored.
    #[must_use]
    pub fn of_workload(workload: &impl ResourceExt) -> Self {
        Self { namespace: workload.namespace().unwrap_or_default(), name: workload.name_any() }
    }
}
