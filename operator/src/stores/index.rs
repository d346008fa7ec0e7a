//! The children of each workload, found by the workload's name.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
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

/// The children of one kind, by workload and uid: one whose label is changed leaves the workload that it was of.
///
/// The operator's own writes are entered from the API server's answers, and an older version never replaces a newer
/// one: a plan is not made on a view that lacks what the last one wrote (KEP-5647).
pub struct Index<T> {
    entries: RwLock<Entries<T>>,
    ready: watch::Sender<bool>,
}

struct Entries<T> {
    /// The children of each workload. Most have one of a kind, and a list of one has no room to spare.
    children: HashMap<Arc<WorkloadKey>, Vec<Child<T>>>,
    /// Where each child is.
    homes: HashMap<Uid, Home>,
    /// Counts listings, to drop what a new listing no longer has.
    listing: u64,
    /// The newest version that the watch has shown, of any object.
    seen: u64,
}

/// The uid of an object, in memory once.
pub(super) type Uid = Arc<str>;

struct Child<T> {
    uid: Uid,
    /// Shared with whoever looks at it.
    value: Arc<T>,
}

struct Home {
    workload: Arc<WorkloadKey>,
    /// Its place among the children of the workload.
    at: usize,
    version: u64,
    listing: u64,
}

/// What became of an object that was entered.
enum Put {
    /// It was known in this version or a newer one.
    Known,
    /// It is new, or another version.
    News,
    /// It was another workload's before.
    Moved(Arc<WorkloadKey>),
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        let entries = Entries { children: HashMap::new(), homes: HashMap::new(), listing: 0, seen: 0 };
        Self { entries: RwLock::new(entries), ready: watch::Sender::new(false) }
    }
}

impl WorkloadKey {
    /// The workload that an object names by its label.
    #[must_use]
    pub fn from_labels(meta: &ObjectMeta) -> Option<Self> {
        let (name, _) = workload_of_label(meta.labels.as_ref()?.get(WORKLOAD_LABEL)?);
        Some(Self { namespace: meta.namespace.clone()?, name: name.to_owned() })
    }
}

impl<T> Index<T> {
    /// Enters an object that the watch shows, unless a newer version of it is known. Returns the workloads that it is
    /// news for: the one that it belongs to, and the one that it belonged to.
    pub fn apply(&self, meta: &ObjectMeta, value: T) -> Vec<WorkloadKey> {
        let Some(key) = WorkloadKey::from_labels(meta) else { return self.remove(meta).into_iter().collect() };
        let mut entries = self.write();
        entries.seen = entries.seen.max(version(meta));
        match entries.put(&key, meta, value) {
            // What was written here itself and comes back by the watch.
            Put::Known => Vec::new(),
            Put::News => vec![key],
            Put::Moved(from) => vec![key, from.as_ref().clone()],
        }
    }

    /// Enters the API server's answer to a write of ours. Where the watch is further already, it has shown the object,
    /// and an object that is not here was deleted since.
    pub fn enter(&self, meta: &ObjectMeta, value: T) {
        let Some(key) = WorkloadKey::from_labels(meta) else { return };
        let mut entries = self.write();
        if entries.homes.contains_key(uid(meta)) || version(meta) > entries.seen {
            entries.put(&key, meta, value);
        }
    }

    /// Drops an object. Returns the workload that it belonged to.
    pub fn remove(&self, meta: &ObjectMeta) -> Option<WorkloadKey> {
        let mut entries = self.write();
        entries.seen = entries.seen.max(version(meta));
        let home = entries.take(uid(meta)).map(|home| home.as_ref().clone());
        home.or_else(|| WorkloadKey::from_labels(meta))
    }

    /// A new listing begins.
    pub(super) fn begin_listing(&self) {
        self.write().listing += 1;
    }

    /// A listing is complete: what it did not have is gone. Returns the workloads that lost a child.
    pub(super) fn end_listing(&self) -> Vec<WorkloadKey> {
        let mut entries = self.write();
        let gone = entries.homes.iter().filter(|(_, home)| home.listing != entries.listing);
        let gone: Vec<Uid> = gone.map(|(uid, _)| uid.clone()).collect();
        let lost: HashSet<Arc<WorkloadKey>> = gone.iter().filter_map(|uid| entries.take(uid)).collect();
        drop(entries);
        self.ready.send_replace(true);
        lost.iter().map(|key| key.as_ref().clone()).collect()
    }

    /// Forgets everything, when the kind is no longer served.
    pub(super) fn clear(&self) {
        let mut entries = self.write();
        entries.children.clear();
        entries.homes.clear();
    }

    /// The children of a workload, of whoever owns them.
    #[must_use]
    pub fn children(&self, key: &WorkloadKey) -> Vec<Arc<T>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .children
            .get(key)
            .map(|children| children.iter().map(|child| child.value.clone()).collect())
            .unwrap_or_default()
    }

    /// The workloads that have children.
    #[must_use]
    pub fn keys(&self) -> Vec<WorkloadKey> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .children
            .keys()
            .map(|key| key.as_ref().clone())
            .collect()
    }

    /// An object as it is known, whoever it belonged to.
    #[must_use]
    pub fn find(&self, meta: &ObjectMeta) -> Option<Arc<T>> {
        self.by_uid(uid(meta))
    }

    /// The same, by its uid.
    #[must_use]
    pub fn by_uid(&self, uid: &str) -> Option<Arc<T>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let home = entries.homes.get(uid)?;
        Some(entries.children.get(&home.workload)?.get(home.at)?.value.clone())
    }

    /// The workload that an object of this uid belongs to.
    #[must_use]
    pub fn home(&self, uid: &str) -> Option<Arc<WorkloadKey>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.homes.get(uid).map(|home| home.workload.clone())
    }

    /// A uid as it is kept here, where it is known.
    pub(super) fn uid(&self, uid: &str) -> Option<Uid> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.homes.get_key_value(uid).map(|(uid, _)| uid.clone())
    }

    /// Waits for the first complete listing.
    pub async fn ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries<T>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Entries<T> {
    /// Enters an object, unless it is known in this version or a newer one.
    fn put(&mut self, key: &WorkloadKey, meta: &ObjectMeta, value: T) -> Put {
        let (version, listing, uid) = (version(meta), self.listing, uid(meta));
        let moved = match self.homes.get_mut(uid) {
            Some(home) if home.version >= version => {
                home.listing = listing;
                return Put::Known;
            }
            Some(home) if home.workload.as_ref() == key => {
                (home.version, home.listing) = (version, listing);
                let child = self.children.get_mut(key).and_then(|children| children.get_mut(home.at));
                if let Some(child) = child {
                    child.value = Arc::new(value);
                }
                return Put::News;
            }
            Some(_) => self.take(uid),
            None => None,
        };
        let workload = match self.children.get_key_value(key) {
            Some((workload, _)) => workload.clone(),
            None => Arc::new(key.clone()),
        };
        let children = self.children.entry(workload.clone()).or_insert_with(|| Vec::with_capacity(1));
        let uid = Uid::from(uid);
        self.homes.insert(uid.clone(), Home { workload, at: children.len(), version, listing });
        children.push(Child { uid, value: Arc::new(value) });
        moved.map_or(Put::News, Put::Moved)
    }

    /// Takes an object out. Returns whose it was.
    fn take(&mut self, uid: &str) -> Option<Arc<WorkloadKey>> {
        let Home { workload, at, .. } = self.homes.remove(uid)?;
        if let Some(children) = self.children.get_mut(&workload) {
            children.swap_remove(at);
            // The last one has its place now.
            if let Some(home) = children.get(at).and_then(|child| self.homes.get_mut(&child.uid)) {
                home.at = at;
            }
            if children.is_empty() {
                self.children.remove(&workload);
            }
        }
        Some(workload)
    }
}

fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
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
            uid: Some(format!("uid of {name}")),
            labels: Some([(WORKLOAD_LABEL.to_owned(), "web".to_owned())].into()),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        }
    }

    fn children(index: &Index<u32>) -> Vec<u32> {
        children_of(index, "web")
    }

    fn children_of(index: &Index<u32>, workload: &str) -> Vec<u32> {
        let mut children: Vec<u32> = index.children(&key(workload)).iter().map(|child| **child).collect();
        children.sort_unstable();
        children
    }

    fn key(workload: &str) -> WorkloadKey {
        WorkloadKey { namespace: "shop".to_owned(), name: workload.to_owned() }
    }

    /// `kubectl label pod X catamaran.dev/workload=debug --overwrite`, as one quarantines a pod.
    fn relabelled(name: &str, version: u32, workload: Option<&str>) -> ObjectMeta {
        let labels = workload.map(|workload| [(WORKLOAD_LABEL.to_owned(), workload.to_owned())].into());
        ObjectMeta { labels, ..meta(name, version) }
    }

    #[test]
    fn a_child_whose_label_changes_leaves_no_ghost() {
        let index = Index::default();
        index.apply(&meta("a", 1), 1);
        index.apply(&meta("b", 2), 2);
        let woken = index.apply(&relabelled("a", 3, Some("debug")), 3);
        assert_eq!(woken, [key("debug"), key("web")], "both have to plan");
        assert_eq!((children(&index), children_of(&index, "debug")), (vec![2], vec![3]));
        assert!(index.apply(&meta("a", 1), 1).is_empty(), "an older version brings it back to nobody");
        assert_eq!((children(&index), children_of(&index, "debug")), (vec![2], vec![3]));
        assert_eq!(index.remove(&relabelled("a", 4, Some("debug"))), Some(key("debug")));
        assert!(children_of(&index, "debug").is_empty());
        assert_eq!(index.keys(), [key("web")]);
        // Without the label it is nobody's; should the watch show that, and not a deletion.
        assert_eq!(index.apply(&relabelled("b", 5, None), 5), [key("web")]);
        assert!(index.keys().is_empty());
    }

    #[test]
    fn a_child_that_is_relabelled_between_two_listings_leaves_no_ghost() {
        let index = Index::default();
        index.apply(&meta("a", 1), 1);
        index.begin_listing();
        assert_eq!(index.apply(&relabelled("a", 3, Some("debug")), 3), [key("debug"), key("web")]);
        assert!(index.end_listing().is_empty());
        assert_eq!((children(&index), children_of(&index, "debug")), (vec![], vec![3]));
        index.begin_listing();
        assert_eq!(index.end_listing(), [key("debug")]);
        assert!(index.find(&meta("a", 3)).is_none());
    }

    #[test]
    fn children_that_go_leave_the_others_where_they_are_found() {
        let index = Index::default();
        for (number, name) in (1..).zip(["a", "b", "c", "d"]) {
            index.apply(&meta(name, number), number);
        }
        index.remove(&meta("a", 5));
        index.apply(&meta("d", 6), 6);
        index.remove(&meta("b", 7));
        assert_eq!(children(&index), [3, 6]);
        let find = |name: &str| index.find(&meta(name, 9)).map(|child| *child);
        assert_eq!(["a", "b", "c", "d"].map(find), [None, None, Some(3), Some(6)]);
    }

    #[test]
    fn an_older_version_replaces_nothing() {
        let index = Index::default();
        index.enter(&meta("a", 5), 5);
        assert!(index.apply(&meta("a", 4), 4).is_empty());
        assert!(index.apply(&meta("a", 5), 5).is_empty(), "our own write comes back");
        assert_eq!(index.apply(&meta("a", 6), 6), [key("web")]);
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
