//! The status that this operator wrote last to each workload: the store has it only when the watch shows it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus};
use kube::Resource;

use super::{StoredWorkload, WorkloadKey, index::version};

/// What was written to workloads, by workload.
#[derive(Default)]
pub struct Written {
    last: Mutex<HashMap<WorkloadKey, Last>>,
}

struct Last {
    /// The version that the write made.
    version: u64,
    /// The status, until the watch shows that version or a later one.
    status: Option<Box<ElasticWorkloadStatus>>,
}

impl Written {
    /// A status was written, and made this version.
    pub fn wrote(&self, key: &WorkloadKey, version: u64, status: ElasticWorkloadStatus) {
        self.lock().insert(key.clone(), Last { version, status: Some(Box::new(status)) });
    }

    /// The watch shows a workload. Returns whether that is news: not the echo of our own write.
    pub(super) fn shown(&self, workload: &StoredWorkload) -> bool {
        let (key, version) = (WorkloadKey::of_workload(workload), version(workload.meta()));
        match self.lock().entry(key) {
            Entry::Occupied(mut last) => {
                if last.get().version <= version {
                    last.get_mut().status = None;
                }
                last.get().version != version
            }
            Entry::Vacant(_) => true,
        }
    }

    /// The status of a workload as it was stored, or as we wrote it since.
    #[must_use]
    pub fn newest_status(&self, key: &WorkloadKey, workload: &ElasticWorkload) -> ElasticWorkloadStatus {
        let mut all = self.lock();
        let last = all.get_mut(key);
        if let Some(Last { version: written, status }) = last {
            // It may have been shown before the answer to the write was here.
            status.take_if(|_| *written <= version(&workload.metadata));
            if let Some(status) = status {
                return (**status).clone();
            }
        }
        workload.status.clone().unwrap_or_default()
    }

    /// The newest version of a workload that is known: as it was shown, or as our last write made it.
    #[must_use]
    pub fn newest_version(&self, key: &WorkloadKey, workload: &impl Resource) -> u64 {
        let written = self.lock().get(key).map_or(0, |last| last.version);
        written.max(version(workload.meta()))
    }

    /// A workload is gone.
    pub fn forget(&self, key: &WorkloadKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadKey, Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;

    use super::*;

    fn workload(version: &str, ready: i32) -> ElasticWorkload {
        let mut workload = ElasticWorkload { status: Some(status(ready)), ..ElasticWorkload::default() };
        workload.metadata.name = Some("web".to_owned());
        workload.metadata.namespace = Some("shop".to_owned());
        workload.metadata.resource_version = Some(version.to_owned());
        workload
    }

    fn status(ready_replicas: i32) -> ElasticWorkloadStatus {
        ElasticWorkloadStatus { ready_replicas, ..ElasticWorkloadStatus::default() }
    }

    #[test]
    fn a_status_counts_from_its_write_on_and_its_echo_is_no_news() {
        let written = Written::default();
        let shown = |version: &str, ready: i32| written.shown(&DeserializeGuard(Ok(workload(version, ready))));
        let stored = workload("8", 0);
        let key = WorkloadKey::of_workload(&stored);
        let newest = |stored: &ElasticWorkload| written.newest_status(&key, stored).ready_replicas;
        assert_eq!((shown("8", 0), newest(&stored)), (true, 0), "nothing was written");
        written.wrote(&key, 10, status(1));
        assert_eq!(newest(&stored), 1, "the store is behind");
        assert_eq!(written.newest_version(&key, &stored), 10);
        assert_eq!(written.newest_version(&key, &workload("11", 0)), 11);
        assert_eq!((shown("9", 0), newest(&workload("9", 0))), (true, 1), "somebody else's write before ours");
        assert_eq!((shown("10", 1), newest(&workload("10", 1))), (false, 1), "the echo");
        assert_eq!((shown("11", 2), newest(&workload("11", 2))), (true, 2), "somebody else's write since");
        written.wrote(&key, 12, status(3));
        assert_eq!(newest(&workload("13", 4)), 4, "shown before it was known to be written");
        written.forget(&key);
        assert!(shown("12", 3));
    }
}
