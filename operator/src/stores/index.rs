//! The children of each workload, found by the workload's name.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use catamaran_crds::names::WORKLOAD_LABEL;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;

/// A workload: its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The children of one kind, by workload and name.
///
/// The operator's own writes are entered from the API server's answers, and an older version never replaces a newer one: a plan
/// is not made on a view that lacks what the last one wrote (KEP-5647).
pub struct Index<T> {
    entries: RwLock<Entries<T>>,
    ready: watch::Sender<bool>,
}

struct Entries<T> {
    children: HashMap<WorkloadKey, HashMap<String, Entry<T>>>,
    /// Counts listings, to drop what a new listing no longer has.
    listing: u64,
}

struct Entry<T> {
    version: u64,
    listing: u64,
    value: T,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            entries: RwLock::new(Entries { children: HashMap::new(), listing: 0 }),
            ready: watch::Sender::new(false),
        }
    }
}

impl WorkloadKey {
    /// The workload that an object names by its label.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let name = meta.labels.as_ref()?.get(WORKLOAD_LABEL)?.clone();
        Some(Self { namespace: meta.namespace.clone()?, name })
    }
}

impl<T: Clone> Index<T> {
    /// Enters an object unless a newer version of it is known. Returns the workload that it belongs to, when it is ours.
    pub fn apply(&self, meta: &ObjectMeta, value: T) -> Option<WorkloadKey> {
        let (key, name) = (WorkloadKey::of(meta)?, meta.name.clone()?);
        // Numbers that grow: comparable since KEP-5504.
        let version = meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let listing = entries.listing;
        let slot = entries.children.entry(key.clone()).or_default();
        match slot.get_mut(&name) {
            Some(known) if known.version >= version => {
                known.listing = listing;
                // Nothing new: what was written here itself comes back by the watch.
                return None;
            }
            Some(_) | None => {
                slot.insert(name, Entry { version, listing, value });
            }
        }
        Some(key)
    }

    /// Drops an object.
    pub fn remove(&self, meta: &ObjectMeta) -> Option<WorkloadKey> {
        let (key, name) = (WorkloadKey::of(meta)?, meta.name.clone()?);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = entries.children.get_mut(&key) {
            slot.remove(&name);
            if slot.is_empty() {
                entries.children.remove(&key);
            }
        }
        Some(key)
    }

    /// A new listing begins.
    pub(super) fn begin_listing(&self) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).listing += 1;
    }

    /// A listing is complete: what it did not have is gone. Returns the workloads that lost a child.
    pub(super) fn end_listing(&self) -> Vec<WorkloadKey> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let listing = entries.listing;
        let mut lost = Vec::new();
        entries.children.retain(|key, slot| {
            let before = slot.len();
            slot.retain(|_, entry| entry.listing == listing);
            if slot.len() < before {
                lost.push(key.clone());
            }
            !slot.is_empty()
        });
        drop(entries);
        self.ready.send_replace(true);
        lost
    }

    /// Forgets everything, when the kind is no longer served.
    pub(super) fn clear(&self) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).children.clear();
    }

    /// The children of a workload, of whoever owns them.
    #[must_use]
    pub fn children(&self, key: &WorkloadKey) -> Vec<T> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .children
            .get(key)
            .map(|slot| slot.values().map(|entry| entry.value.clone()).collect())
            .unwrap_or_default()
    }

    /// Waits for the first complete listing.
    pub async fn ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}
