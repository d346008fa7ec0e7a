//! The children of each workload, found by the workload's name.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use catamaran_controller::workers::Key;
use catamaran_crds::names::{WORKLOAD_LABEL, workload_of_label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::sync::watch;

use super::StoredWorkload;

/// A workload: its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Namespaces take turns.
impl Key for WorkloadKey {
    fn tenant(&self) -> &str {
        &self.namespace
    }
}

impl WorkloadKey {
    /// The reference by which the store finds it.
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
    /// The newest version that the watch has shown, of any object.
    seen: u64,
}

struct Entry<T> {
    version: u64,
    listing: u64,
    /// Shared with whoever looks at it. Apart, since most workloads have one child of a kind: the rest of a map's room is empty.
    value: Arc<T>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            entries: RwLock::new(Entries { children: HashMap::new(), listing: 0, seen: 0 }),
            ready: watch::Sender::new(false),
        }
    }
}

impl WorkloadKey {
    /// The workload that an object names by its label.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let (name, _) = workload_of_label(meta.labels.as_ref()?.get(WORKLOAD_LABEL)?);
        Some(Self { namespace: meta.namespace.clone()?, name: name.to_owned() })
    }
}

impl<T> Index<T> {
    /// Enters an object that the watch shows, unless a newer version of it is known. Returns the workload that it belongs to,
    /// when this is news.
    pub fn apply(&self, meta: &ObjectMeta, value: T) -> Option<WorkloadKey> {
        let key = WorkloadKey::of(meta)?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.seen = entries.seen.max(version(meta));
        // Not news: what was written here itself and comes back by the watch.
        entries.put(&key, meta, value).then_some(key)
    }

    /// Enters the API server's answer to a write of ours. Where the watch is further already, it has shown the object, and an
    /// object that is not here was deleted since.
    pub fn enter(&self, meta: &ObjectMeta, value: T) {
        let Some(key) = WorkloadKey::of(meta) else { return };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let name = meta.name.as_deref().unwrap_or_default();
        let known = entries.children.get(&key).is_some_and(|slot| slot.contains_key(name));
        if known || version(meta) > entries.seen {
            entries.put(&key, meta, value);
        }
    }

    /// Drops an object.
    pub fn remove(&self, meta: &ObjectMeta) -> Option<WorkloadKey> {
        let (key, name) = (WorkloadKey::of(meta)?, meta.name.clone()?);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.seen = entries.seen.max(version(meta));
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
    pub fn children(&self, key: &WorkloadKey) -> Vec<Arc<T>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .children
            .get(key)
            .map(|slot| slot.values().map(|entry| entry.value.clone()).collect())
            .unwrap_or_default()
    }

    /// The workloads that have children.
    #[must_use]
    pub fn keys(&self) -> Vec<WorkloadKey> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).children.keys().cloned().collect()
    }

    /// Shows the children of each workload where they are. The index is locked meanwhile, so `see` has to be quick.
    pub fn visit(&self, mut see: impl FnMut(&WorkloadKey, &mut dyn Iterator<Item = &T>)) {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        for (key, slot) in &entries.children {
            see(key, &mut slot.values().map(|entry| &*entry.value));
        }
    }

    /// An object as it is known.
    #[must_use]
    pub fn find(&self, meta: &ObjectMeta) -> Option<Arc<T>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let slot = entries.children.get(&WorkloadKey::of(meta)?)?;
        slot.get(meta.name.as_deref()?).map(|entry| entry.value.clone())
    }

    /// Waits for the first complete listing.
    pub async fn ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

impl<T> Entries<T> {
    /// True when this is a newer version than the one known, if any.
    fn put(&mut self, key: &WorkloadKey, meta: &ObjectMeta, value: T) -> bool {
        let (version, listing) = (version(meta), self.listing);
        let slot = self.children.entry(key.clone()).or_default();
        let name = meta.name.clone().unwrap_or_default();
        match slot.get_mut(&name) {
            Some(known) if known.version >= version => {
                known.listing = listing;
                false
            }
            Some(_) | None => {
                slot.insert(name, Entry { version, listing, value: Arc::new(value) });
                true
            }
        }
    }
}

/// The resourceVersion: numbers that grow, comparable since KEP-5504.
pub(super) fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str, version: u32) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("shop".to_owned()),
            labels: Some([(WORKLOAD_LABEL.to_owned(), "web".to_owned())].into()),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        }
    }

    fn children(index: &Index<u32>) -> Vec<u32> {
        let key = WorkloadKey { namespace: "shop".to_owned(), name: "web".to_owned() };
        let mut children: Vec<u32> = index.children(&key).iter().map(|child| **child).collect();
        children.sort_unstable();
        children
    }

    #[test]
    fn an_older_version_replaces_nothing() {
        let index = Index::default();
        index.enter(&meta("a", 5), 5);
        assert_eq!(index.apply(&meta("a", 4), 4), None);
        assert_eq!(index.apply(&meta("a", 5), 5), None, "our own write comes back");
        assert!(index.apply(&meta("a", 6), 6).is_some());
        assert_eq!(children(&index), [6]);
    }

    #[test]
    fn an_answer_that_comes_after_the_deletion_brings_nothing_back() {
        let index = Index::default();
        index.apply(&meta("a", 3), 3);
        index.remove(&meta("a", 7));
        index.enter(&meta("a", 5), 5);
        assert!(children(&index).is_empty());
        index.enter(&meta("a", 9), 9);
        assert_eq!(children(&index), [9], "made anew");
    }

    #[test]
    fn a_listing_drops_what_it_does_not_have() {
        let index = Index::default();
        index.apply(&meta("a", 1), 1);
        index.apply(&meta("b", 2), 2);
        index.begin_listing();
        index.apply(&meta("b", 2), 2);
        index.enter(&meta("c", 3), 3);
        assert_eq!(index.end_listing().len(), 1);
        assert_eq!(children(&index), [2, 3]);
    }
}
