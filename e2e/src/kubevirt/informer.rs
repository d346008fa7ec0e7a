//! A controller's cache: filled by a watch, and as late as one wants.

use std::{
    collections::HashSet,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, channel::mpsc};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt, reflector,
        reflector::Store,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

/// Objects of a kind as one controller sees them.
pub(super) struct Informer<K: Resource<DynamicType = ()> + 'static> {
    pub(super) store: Store<K>,
    seen: Arc<Mutex<Seen>>,
}

/// Which objects were ever in the cache, and which of them are on their way out: what client-go's expectations wait
/// for.
#[derive(Default)]
struct Seen {
    created: HashSet<String>,
    deleted: HashSet<String>,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts a watch; the stream tells of every object that changed.
    pub(super) fn start(
        api: Api<K>,
        config: watcher::Config,
        lag: Duration,
    ) -> (Self, impl Stream<Item = Result<K, watcher::Error>> + Send + 'static)
    where
        K::DynamicType: Eq + Hash + Default,
    {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (store, writer) = reflector::store();
        let noted = seen.clone();
        let stream = late(watcher(api, config).default_backoff(), lag)
            .inspect(move |event| noted.lock().unwrap_or_else(PoisonError::into_inner).note(event))
            .reflect(writer)
            .touched_objects();
        (Self { store, seen }, stream)
    }

    /// Whether the cache has shown the creation of an object.
    pub(super) fn saw_created(&self, uid: &str) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).created.contains(uid)
    }

    /// Whether the cache has shown that an object is being deleted.
    pub(super) fn saw_deleted(&self, uid: &str) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).deleted.contains(uid)
    }
}

impl Seen {
    fn note<K: Resource>(&mut self, event: &Result<Event<K>, watcher::Error>) {
        let (object, gone) = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => (object, object.meta().deletion_timestamp.is_some()),
            Ok(Event::Delete(object)) => (object, true),
            Ok(Event::Init | Event::InitDone) | Err(_) => return,
        };
        let Some(uid) = object.uid() else { return };
        if gone {
            self.deleted.insert(uid.clone());
        }
        self.created.insert(uid);
    }
}

/// Each item as long after it came as the lag says. The source is read on meanwhile, so that lags do not add up.
fn late<T: Send + 'static>(
    source: impl Stream<Item = T> + Send + 'static,
    lag: Duration,
) -> impl Stream<Item = T> + Send {
    let (sender, receiver) = mpsc::unbounded();
    tokio::spawn(source.map(move |item| Ok((Instant::now() + lag, item))).forward(sender));
    receiver.then(|(due, item)| async move {
        sleep_until(due).await;
        item
    })
}
