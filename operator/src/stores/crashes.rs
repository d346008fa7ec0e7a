//! Guests that ended by themselves, found out as the watches pass: their objects live for a second or two only.
//!
//! Two watches have a say. A VirtualMachineInstance shows that it ends: its phase becomes final, or, when its launcher
//! pod goes, its condition Ready becomes False with reason PodTerminating, in whatever phase it is. Its launcher pod
//! shows whether somebody asked for that. An end counts, unless
//! - the deletion of the instance was seen before its end: a victim of ours, or of somebody else;
//! - the launcher pod was evicted, preempted or lost with its node, or its deletion was seen before the end of its
//!   guest;
//! - the launcher pod is gone without a word (a node that was removed).
//!
//! What came first is known from the order of each watch. Where one glance shows both (a new list), times decide.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use catamaran_plan::facts::Crash;
use jiff::{SignedDuration, Timestamp};

use super::{
    convert::{InstanceEnd, LauncherEnd},
    index::WorkloadKey,
};

/// How many crashes of a set are remembered: the backoff needs the last ones only.
const REMEMBERED: usize = 32;
/// How long the word of a launcher pod is waited for, before an end is taken for a loss.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// What is known of an instance is dropped after so long, if its deletion was never seen (a watch that started anew).
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(900);

/// The last crashes of each VirtualMachineInstanceReplicaSet, and what is known of instances that leave.
#[derive(Default)]
pub struct Crashes {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By uid of the set.
    by_set: HashMap<String, VecDeque<Crash>>,
    /// By uid of the instance.
    leaving: HashMap<String, Leaving>,
}

/// An instance that leaves, as far as seen.
struct Leaving {
    since: Timestamp,
    instance: Option<Seen>,
    launcher: Option<LauncherEnd>,
    counted: bool,
}

/// What the instance showed first.
enum Seen {
    /// Its deletion.
    Asked,
    /// Its end.
    Ended(Ended),
}

/// An instance that ended, and whose it is.
pub(super) struct Ended {
    pub(super) end: InstanceEnd,
    pub(super) set: String,
    pub(super) workload: WorkloadKey,
    pub(super) crash: Crash,
}

impl Crashes {
    /// Notes that an instance is being deleted, before it was seen to end.
    pub(super) fn asked(&self, instance: &str, now: Timestamp) {
        self.with(|state| {
            state.leaving(instance, now).instance.get_or_insert(Seen::Asked);
        });
    }

    /// Notes that an instance was seen to end before its deletion.
    pub(super) fn ended(&self, instance: &str, ended: Ended, now: Timestamp) {
        self.with(|state| {
            state.leaving(instance, now).instance.get_or_insert(Seen::Ended(ended));
            state.decide(instance);
        });
    }

    /// Notes how a launcher pod of an instance ended. Returns the workload, when that makes it a crash or explains an
    /// end.
    pub(super) fn launcher(&self, instance: &str, end: LauncherEnd, now: Timestamp) -> Option<WorkloadKey> {
        self.with(|state| {
            let leaving = state.leaving(instance, now);
            let news = leaving.launcher.is_none();
            leaving.launcher.get_or_insert(end);
            state.decide(instance).filter(|_| news)
        })
    }

    /// Drops what is known of an instance that is gone.
    pub(super) fn gone(&self, instance: &str) {
        self.with(|state| state.leaving.remove(instance));
    }

    /// Forgets a set.
    pub(super) fn forget(&self, set: &str) {
        self.with(|state| state.by_set.remove(set));
    }

    /// The crashes of a set, in the order in which they were seen; and until when an end of it is unexplained.
    #[must_use]
    pub fn in_set(&self, set: &str) -> (Vec<Crash>, Option<Timestamp>) {
        self.with(|state| {
            let crashes = state.by_set.get(set).map(|crashes| crashes.iter().copied().collect()).unwrap_or_default();
            let unexplained = state.leaving.values().filter(|leaving| leaving.is_unexplained(set));
            (crashes, unexplained.filter_map(|leaving| leaving.since.checked_add(PATIENCE).ok()).max())
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn leaving(&mut self, instance: &str, now: Timestamp) -> &mut Leaving {
        if !self.leaving.contains_key(instance) {
            self.leaving.retain(|_, leaving| now.duration_since(leaving.since) < FORGOTTEN);
        }
        self.leaving.entry(instance.to_owned()).or_insert(Leaving {
            since: now,
            instance: None,
            launcher: None,
            counted: false,
        })
    }

    /// Counts a crash once it is known to be one. Returns its workload when it has ended.
    fn decide(&mut self, instance: &str) -> Option<WorkloadKey> {
        let leaving = self.leaving.get_mut(instance)?;
        let Some(Seen::Ended(Ended { end, set, workload, crash })) = &leaving.instance else { return None };
        let by_itself = match (leaving.launcher, end) {
            (Some(LauncherEnd::ByItself), _) | (None, InstanceEnd::Guest) => true,
            (Some(LauncherEnd::Taken), _) | (None, InstanceEnd::PodGoes | InstanceEnd::PodGone) => false,
        };
        if by_itself && !leaving.counted {
            leaving.counted = true;
            let crashes = self.by_set.entry(set.clone()).or_default();
            if crashes.len() == REMEMBERED {
                crashes.pop_front();
            }
            crashes.push_back(*crash);
        }
        Some(workload.clone())
    }
}

impl Leaving {
    /// Whether an end of the set is known, and not yet whether by itself.
    fn is_unexplained(&self, of: &str) -> bool {
        match &self.instance {
            Some(Seen::Ended(ended)) => ended.end == InstanceEnd::PodGoes && self.launcher.is_none() && ended.set == of,
            Some(Seen::Asked) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_100).expect("a time")
    }

    fn ended(end: InstanceEnd) -> Ended {
        let crash = Crash { created: now(), ended: now(), newest: now() };
        let workload = WorkloadKey { namespace: "shop".to_owned(), name: "web".to_owned() };
        Ended { end, set: "set".to_owned(), workload, crash }
    }

    /// How many crashes there are, and whether an end is unexplained.
    fn counted(see: impl FnOnce(&Crashes)) -> (usize, bool) {
        let crashes = Crashes::default();
        see(&crashes);
        let (list, unexplained) = crashes.in_set("set");
        (list.len(), unexplained.is_some())
    }

    #[test]
    fn which_ends_are_crashes() {
        use InstanceEnd::{Guest, PodGoes, PodGone};
        use LauncherEnd::{ByItself, Taken};
        let asked = |crashes: &Crashes| crashes.asked("a", now());
        let end = |end| move |crashes: &Crashes| crashes.ended("a", ended(end), now());
        let pod = |end| move |crashes: &Crashes| drop(crashes.launcher("a", end, now()));
        for (what, found, expected) in [
            ("the guest ended", counted(end(Guest)), (1, false)),
            ("the pod goes, and why is not known yet", counted(end(PodGoes)), (0, true)),
            ("its launcher ended", counted(|c| (end(PodGoes)(c), pod(ByItself)(c)).0), (1, false)),
            ("the pod tells it first", counted(|c| (pod(ByItself)(c), end(PodGoes)(c)).0), (1, false)),
            ("it was evicted", counted(|c| (end(PodGoes)(c), pod(Taken)(c)).0), (0, false)),
            ("and the pod tells that first", counted(|c| (pod(Taken)(c), end(PodGoes)(c)).0), (0, false)),
            ("the node is gone", counted(end(PodGone)), (0, false)),
            ("it was to go", counted(|c| (asked(c), end(Guest)(c), pod(ByItself)(c)).0), (0, false)),
            ("it ended before it was to go", counted(|c| (end(Guest)(c), asked(c), pod(Taken)(c)).0), (1, false)),
            ("seen twice", counted(|c| (end(Guest)(c), end(Guest)(c), pod(ByItself)(c)).0), (1, false)),
        ] {
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn the_pods_word_wakes_the_workload_once_and_goes_with_the_instance() {
        let crashes = Crashes::default();
        assert_eq!(crashes.launcher("other", LauncherEnd::Taken, now()), None, "its instance has not ended");
        crashes.ended("a", ended(InstanceEnd::PodGoes), now());
        assert!(crashes.launcher("a", LauncherEnd::ByItself, now()).is_some());
        assert_eq!(crashes.launcher("a", LauncherEnd::ByItself, now()), None);
        crashes.gone("a");
        assert_eq!(crashes.in_set("set").0.len(), 1, "the crash is remembered");
        crashes.forget("set");
        assert_eq!(crashes.in_set("set").0.len(), 0);
    }

    #[test]
    fn instances_whose_deletion_was_missed_are_forgotten() {
        let crashes = Crashes::default();
        crashes.ended("a", ended(InstanceEnd::Guest), now());
        crashes.asked("b", now().checked_add(FORGOTTEN).expect("a time"));
        assert_eq!(crashes.with(|state| state.leaving.len()), 1);
    }
}
