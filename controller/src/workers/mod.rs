//! Passes over objects: a bounded number of spawned tasks, one object never twice at once, tenants by turns.
//!
//! A tenant with a thousand objects that change all the time delays another tenant's one object by about one pass. So
//! that long passes of one tenant do not either, a few more passes are kept for tenants of which none runs.
//!
//! A pass that panics, or never ends, costs its own object alone: it is counted and logged with the key, and tried
//! again after a pause that doubles. To end the process instead would let one tenant's object stop everybody's, again
//! after each restart.
//!
//! - `order`: who is next
//! - [`Queue`]: wakes objects
//! - [`work`]: runs the passes

mod order;

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::supervise::message;
pub use order::Key;
use order::{Order, Room};

/// How long changes of children are gathered: replicas become ready in groups, and one plan for a group writes less
/// than one for each. Small against the seconds that replicas need to start.
const GATHER: Duration = Duration::from_millis(100);

/// The first and the longest pause after passes that panicked or did not end.
const AFTER_BROKEN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// Wakes objects. While this process does not lead, nothing is queued: on taking over, all are.
#[derive(Debug)]
pub struct Queue<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    inner: Mutex<Inner<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    open: bool,
    order: Order<K>,
    /// Since when anything has been waiting without a break.
    waiting_since: Option<Instant>,
    /// When a pass last ended.
    ended: Option<Instant>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let inner = Inner { open: false, order: Order::default(), waiting_since: None, ended: None };
        Self { shared: Arc::new(Shared { inner: Mutex::new(inner), changed: Notify::new() }) }
    }
}

impl<K: Key> Queue<K> {
    /// Begins to queue: this process leads.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// Something that these objects depend on changed.
    pub fn wake_all(&self, keys: impl IntoIterator<Item = K>) {
        let at = Instant::now() + GATHER;
        {
            let mut inner = self.lock();
            if !inner.open {
                return;
            }
            keys.into_iter().for_each(|key| inner.order.want(key, at.into_std()));
        }
        self.shared.changed.notify_one();
    }

    /// An object itself changed.
    pub fn wake_now(&self, key: K) {
        self.wake_after(key, Duration::ZERO);
    }

    /// Something is to be tried again.
    pub fn wake_after(&self, key: K, delay: Duration) {
        {
            let mut inner = self.lock();
            if !inner.open {
                return;
            }
            inner.order.want(key, (Instant::now() + delay).into_std());
        }
        self.shared.changed.notify_one();
    }

    /// How many objects wait for a pass.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.with(|inner, _| inner.order.waiting())
    }

    /// For how long something has been waiting while no pass ended; zero when nothing waits.
    #[must_use]
    pub fn stuck_for(&self) -> Duration {
        self.with(|inner, now| match (inner.waiting_since, inner.ended) {
            (None, _) => Duration::ZERO,
            (Some(since), None) => now - since,
            (Some(since), Some(ended)) => now - since.max(ended),
        })
    }

    /// The next key, if there is room for it.
    fn start(&self, room: Room) -> Option<K> {
        self.with(|inner, now| inner.order.start(room, now.into_std()))
    }

    /// When there will be another one.
    fn next(&self) -> Option<Instant> {
        self.with(|inner, _| inner.order.next().map(Instant::from_std))
    }

    fn end(&self, key: &K, again: Option<Duration>) {
        self.with(|inner, now| {
            inner.ended = Some(now);
            inner.order.end(key, again.map(|pause| (now + pause).into_std()));
        });
    }

    /// Does something with what is due by now.
    fn with<T>(&self, act: impl FnOnce(&mut Inner<K>, Instant) -> T) -> T {
        let (mut inner, now) = (self.lock(), Instant::now());
        inner.ripen(now);
        let done = act(&mut inner, now);
        inner.ripen(now);
        done
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Key> Inner<K> {
    fn ripen(&mut self, now: Instant) {
        self.order.ripen(now.into_std());
        self.waiting_since = if self.order.is_waiting() { self.waiting_since.or(Some(now)) } else { None };
    }
}

/// When an object is looked at again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// When it, or what it depends on, changes.
    OnChange,
    /// After this time at the latest.
    After(Duration),
}

/// What is done with each object.
pub trait Passes<K>: Send + Sync + 'static {
    /// One pass over an object, which may be gone by now. Never twice at once for the same.
    fn pass(self: Arc<Self>, key: K) -> impl Future<Output = Again> + Send;

    /// A pass broke off; it is tried again after the pause.
    fn broken(&self, key: &K, how: &Broken, pause: Duration);
}

/// How a pass broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// It did not end in time.
    #[error("it did not end within {0:?}")]
    TooLong(Duration),
}

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many passes run at once. A quarter as many more are kept for tenants of which none runs.
    pub workers: usize,
    /// How long a pass may take. It must be less than the time after which /healthz takes the process for stuck.
    pub longest: Duration,
}

impl Limits {
    fn room(&self, running: usize) -> Option<Room> {
        match running {
            running if running < self.workers => Some(Room::All),
            running if running < self.workers + self.workers.div_ceil(4) => Some(Room::Idle),
            _ => None,
        }
    }
}

/// Runs passes over what the queue brings, until `stop`; then those that run are finished.
pub async fn work<K: Key, P: Passes<K>>(queue: Queue<K>, passes: Arc<P>, limits: Limits, stop: CancellationToken) {
    let mut running = JoinSet::new();
    let mut broken = HashMap::new();
    loop {
        while let Some(key) = limits.room(running.len()).and_then(|room| queue.start(room)) {
            running.spawn(one(passes.clone(), key, limits.longest));
        }
        let next = queue.next();
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => end(&queue, &*passes, &mut broken, ended.ok()),
            () = queue.shared.changed.notified() => {}
            () = due => {}
        }
    }
    while let Some(ended) = running.join_next().await {
        end(&queue, &*passes, &mut broken, ended.ok());
    }
}

async fn one<K: Key, P: Passes<K>>(passes: Arc<P>, key: K, longest: Duration) -> (K, Result<Again, Broken>) {
    let pass = AssertUnwindSafe(tokio::time::timeout(longest, passes.pass(key.clone()))).catch_unwind();
    let outcome = match pass.await {
        Ok(Ok(again)) => Ok(again),
        Ok(Err(_)) => Err(Broken::TooLong(longest)),
        Err(panic) => Err(Broken::Panicked(message(panic.as_ref()).to_owned())),
    };
    (key, outcome)
}

/// Puts back what a pass leaves to be done. Passes are never aborted, and their panics are caught.
fn end<K: Key>(
    queue: &Queue<K>,
    passes: &impl Passes<K>,
    broken: &mut HashMap<K, u32>,
    ended: Option<(K, Result<Again, Broken>)>,
) {
    let Some((key, outcome)) = ended else { return };
    let again = match outcome {
        Ok(again) => {
            broken.remove(&key);
            match again {
                Again::OnChange => None,
                Again::After(pause) => Some(pause),
            }
        }
        Err(how) => {
            let times = broken.entry(key.clone()).or_default();
            let [first, longest] = AFTER_BROKEN;
            let pause = first.saturating_mul(1 << (*times).min(16)).min(longest);
            *times += 1;
            passes.broken(&key, &how, pause);
            Some(pause)
        }
    };
    queue.end(&key, again);
}

#[cfg(test)]
mod tests;
