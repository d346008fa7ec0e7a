//! Guests that ended by themselves. Their objects live for a tenth of a second only, so the watch notes them as they pass.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use catamaran_plan::facts::Crash;

/// How many crashes of a set are remembered: the backoff needs the last ones only.
const REMEMBERED: usize = 32;

/// The last crashes of each VirtualMachineInstanceReplicaSet, by its uid.
#[derive(Default)]
pub struct Crashes {
    by_set: Mutex<HashMap<String, VecDeque<(String, Crash)>>>,
}

impl Crashes {
    /// Notes a crash of an instance, once.
    pub(super) fn note(&self, set: &str, instance: &str, crash: Crash) {
        let mut by_set = self.by_set.lock().unwrap_or_else(PoisonError::into_inner);
        let crashes = by_set.entry(set.to_owned()).or_default();
        if crashes.iter().any(|(uid, _)| uid == instance) {
            return;
        }
        if crashes.len() == REMEMBERED {
            crashes.pop_front();
        }
        crashes.push_back((instance.to_owned(), crash));
    }

    /// Forgets a set.
    pub(super) fn forget(&self, set: &str) {
        self.by_set.lock().unwrap_or_else(PoisonError::into_inner).remove(set);
    }

    /// The crashes of a set, in the order in which they were seen.
    #[must_use]
    pub fn of(&self, set: &str) -> Vec<Crash> {
        let by_set = self.by_set.lock().unwrap_or_else(PoisonError::into_inner);
        by_set.get(set).map(|crashes| crashes.iter().map(|(_, crash)| *crash).collect()).unwrap_or_default()
    }
}
