//! The last spec of a workload that made sense, with its class, while the present one makes none: it goes on running
//! and scaling.
//!
//! It is taken from the store when the watch shows the one that makes none, so that nothing is kept of all the others;
//! while it is needed it is in the status as well, and survives a restart.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use catamaran_crds::{
    ElasticWorkload, ElasticWorkloadSpec, ElasticWorkloadStatus, StoredHistory, WorkloadClass, WorkloadClassSpec,
};
use catamaran_plan::{Goal, resolve};
use serde::{Deserialize, Serialize};

use super::WorkloadKey;

/// What is remembered of all workloads.
#[derive(Default)]
pub struct LastGood {
    all: Mutex<HashMap<WorkloadKey, Remembered>>,
}

struct Remembered {
    /// Of the spec that is kept; without a generation where it is known from the status.
    version: SpecVersion,
    text: StoredHistory,
    /// Set once the present spec was looked at.
    instead: Option<Arc<StandIn>>,
}

/// A generation of a workload's spec, and the resourceVersion of its class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecVersion {
    /// The workload's uid.
    pub uid: Option<String>,
    generation: Option<i64>,
    class: Option<String>,
}

impl SpecVersion {
    /// That of a workload with this class.
    #[must_use]
    pub fn new(workload: &ElasticWorkload, class: Option<&WorkloadClass>) -> Self {
        Self {
            uid: workload.metadata.uid.clone(),
            generation: workload.metadata.generation,
            class: class.and_then(|class| class.metadata.resource_version.clone()),
        }
    }
}

/// The last spec that made sense, in the place of one that makes none.
#[derive(Debug)]
pub struct StandIn {
    /// The workload as it would be with that spec.
    pub workload: ElasticWorkload,
    /// Its class then.
    pub class: Option<Arc<WorkloadClass>>,
    /// What it asks for.
    pub goal: Goal,
    /// The text that is kept of it in the status.
    pub text: StoredHistory,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    spec: ElasticWorkloadSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<WorkloadClassSpec>,
}

impl StandIn {
    fn read(text: StoredHistory, present: &ElasticWorkload) -> Option<Self> {
        let Kept { spec, class } = text.read()?;
        let name = spec.class_name.clone().unwrap_or_default();
        let class = class.map(|class| Arc::new(WorkloadClass::new(&name, class)));
        let workload = ElasticWorkload { metadata: present.metadata.clone(), spec, status: present.status.clone() };
        let goal = resolve(&workload, class.as_deref()).ok()?;
        Some(Self { workload, class, goal, text })
    }
}

impl LastGood {
    /// The present spec makes no sense, and this is the one before it, with the class that it had; or the class is
    /// another one. Kept if it made sense, unless one before that is kept already.
    pub(super) fn left(&self, key: &WorkloadKey, before: &ElasticWorkload, class: Option<&WorkloadClass>) {
        let mut all = self.lock();
        let known = all.get(key).is_some_and(|known| known.version.uid == before.metadata.uid);
        if !known && resolve(before, class).is_ok() {
            let kept = Kept { spec: before.spec.clone(), class: class.map(|class| class.spec.clone()) };
            let (version, text) = (SpecVersion::new(before, class), StoredHistory::store(&kept));
            all.insert(key.clone(), Remembered { version, text, instead: None });
        }
    }

    /// This spec makes sense with this class: what was kept is not needed any more. Unless it is just this one that is
    /// kept, and whoever looks at it has not seen the next one yet.
    pub fn makes_sense(&self, key: &WorkloadKey, workload: &ElasticWorkload, class: Option<&WorkloadClass>) {
        let mut all = self.lock();
        if all.get(key).is_some_and(|known| known.version != SpecVersion::new(workload, class)) {
            all.remove(key);
        }
    }

    /// The present spec makes no sense: what goes on in its place, if that is known here or from the status.
    pub fn makes_none(
        &self,
        key: &WorkloadKey,
        present: &ElasticWorkload,
        status: &ElasticWorkloadStatus,
    ) -> Option<Arc<StandIn>> {
        let mut all = self.lock();
        let (version, text) = match all.get(key).filter(|known| known.version.uid == present.metadata.uid) {
            Some(known) => (known.version.clone(), known.text.clone()),
            None => {
                let version = SpecVersion { uid: present.metadata.uid.clone(), ..SpecVersion::default() };
                (version, status.last_good_spec.clone())
            }
        };
        let stand_in = StandIn::read(text.clone(), present).map(Arc::new);
        if stand_in.is_some() {
            all.insert(key.clone(), Remembered { version, text, instead: stand_in.clone() });
        }
        stand_in
    }

    /// What goes on in the place of the present spec, while that makes no sense.
    #[must_use]
    pub fn stand_in(&self, key: &WorkloadKey) -> Option<Arc<StandIn>> {
        self.lock().get(key)?.instead.clone()
    }

    /// A workload is gone.
    pub fn forget(&self, key: &WorkloadKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadKey, Remembered>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(uid: &str, generation: i64, zone: &str) -> ElasticWorkload {
        serde_json::from_value(json!({
            "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload",
            "metadata": {"namespace": "shop", "name": "web", "uid": uid, "generation": generation},
            "spec": {"className": "gold", "container": {"image": "registry.test/web:1"}, "scaling": {"maxReplicas": 5, "schedules": [
                {"name": "day", "timeZone": zone, "start": "0 8 * * *", "end": "0 20 * * *", "minReplicas": 3}]}},
        }))
        .expect("a workload")
    }

    #[test]
    fn the_last_good_spec_stands_in_also_after_a_restart_and_for_nobody_else() {
        let key = WorkloadKey { namespace: "shop".to_owned(), name: "web".to_owned() };
        let class = WorkloadClass::new("gold", WorkloadClassSpec::default());
        let (good, typo) = (workload("u", 1, "Europe/Paris"), workload("u", 2, "Europe/Pariss"));
        assert!(resolve(&good, Some(&class)).is_ok() && resolve(&typo, Some(&class)).is_err());

        let memory = LastGood::default();
        let nothing = ElasticWorkloadStatus::default();
        assert!(memory.makes_none(&key, &typo, &nothing).is_none(), "nothing is known of it");
        memory.left(&key, &good, Some(&class));
        memory.left(&key, &typo, Some(&class));
        let stand_in = memory.makes_none(&key, &typo, &nothing).expect("it is remembered");
        assert_eq!((&stand_in.workload.spec, stand_in.goal.generation), (&good.spec, 2), "of the present generation");
        assert!(memory.stand_in(&key).is_some());

        let status = ElasticWorkloadStatus { last_good_spec: stand_in.text.clone(), ..nothing.clone() };
        let restarted = LastGood::default();
        let again = restarted.makes_none(&key, &typo, &status).expect("it is in the status");
        assert_eq!(again.workload.spec, good.spec);

        let another = workload("v", 1, "Europe/Pariss");
        assert!(memory.makes_none(&key, &another, &nothing).is_none(), "another workload of the same name");
        memory.makes_sense(&key, &good, Some(&class));
        assert!(memory.stand_in(&key).is_some(), "by one who has not seen the next spec yet");
        memory.makes_sense(&key, &workload("u", 3, "Europe/Berlin"), Some(&class));
        assert!(memory.stand_in(&key).is_none());
    }
}
