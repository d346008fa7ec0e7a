//! What is known of the cluster: one watch a kind, kept in memory in the form that plans look at, and no more of it.

mod convert;
mod crashes;
mod endpoints;
mod freshness;
mod index;
mod last_good;
mod objects;
mod out_of_memory;
mod owned;
mod pods;
mod reserved;
mod resize;
mod trouble;
mod watch;
mod written;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use catamaran_controller::workers;
use catamaran_crds::{ElasticWorkload, Hull, WorkloadClass};
use catamaran_plan::{
    Goal, Invalid,
    facts::{KubeVirt, ResizeApi, SetFacts},
    resolve,
};
use dashmap::DashMap;
use kube::{
    Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::watch::Receiver;

pub use convert::{InstanceEntry, ServiceEntry, SetEntry};
pub use crashes::Crashes;
pub use endpoints::SliceEntry;
pub use freshness::{Lives, SignOfLife};
pub use index::{Index, WorkloadKey};
pub use last_good::{LastGood, SpecVersion, StandIn};
pub use objects::GUEST_CONTAINER;
pub(crate) use objects::controller;
pub use out_of_memory::{LimitsBefore, OomKilled};
pub use pods::{PodEntry, Pods};
pub(crate) use watch::start;
pub use written::Written;

/// Wakes workloads.
pub type Queue = workers::Queue<WorkloadKey>;

/// A workload as stored: one that cannot be read is kept as its error, so that it cannot stall the watch.
pub type StoredWorkload = DeserializeGuard<ElasticWorkload>;

/// The stores of all kinds.
#[derive(Clone)]
pub struct Stores {
    /// Workloads.
    pub workloads: Store<StoredWorkload>,
    /// The status of workloads that was written and may not be in the store yet.
    pub written: Arc<Written>,
    /// The last specs that made sense, of workloads whose present one makes none.
    pub last_good: Arc<LastGood>,
    /// Classes that can be read.
    pub classes: Store<WorkloadClass>,
    /// Why the other classes cannot be read, by name.
    pub unreadable_classes: Arc<DashMap<String, String>>,
    /// Replica sets of both hulls.
    pub replica_sets: Arc<Index<SetEntry>>,
    /// VirtualMachineInstanceReplicaSets.
    pub machine_sets: Arc<Index<SetEntry>>,
    /// VirtualMachineInstances.
    pub instances: Arc<Index<InstanceEntry>>,
    /// Pods, launcher pods included.
    pub pods: Arc<Pods>,
    /// Services.
    pub services: Arc<Index<ServiceEntry>>,
    /// EndpointSlices of their Services.
    pub slices: Arc<Index<SliceEntry>>,
    /// Guests that ended by themselves.
    pub crashes: Arc<Crashes>,
    /// Whether KubeVirt's kinds are served, as was last seen; `None` until that is known.
    kubevirt: Receiver<Option<KubeVirt>>,
    /// How old each of these may be.
    pub lives: Arc<Lives>,
    /// Whether pods can be resized; `None` until that is known.
    pub resize: Receiver<Option<ResizeApi>>,
    /// Everything has been listed once.
    listed: Arc<AtomicBool>,
}

impl Stores {
    /// Waits until everything has been listed once. Nothing is planned before. For one to wait: a store of kube wakes
    /// nobody but the last who asked.
    pub async fn ready(&self) {
        // A dropped writer means that the process ends; the watches report why.
        let _ = self.workloads.wait_until_ready().await;
        let _ = self.classes.wait_until_ready().await;
        self.replica_sets.ready().await;
        self.services.ready().await;
        self.slices.ready().await;
        self.pods.index.ready().await;
        let _ = self.kubevirt.clone().wait_for(Option::is_some).await;
        let _ = self.resize.clone().wait_for(Option::is_some).await;
        self.listed.store(true, Ordering::Release);
    }

    /// Resolves a workload with the class that it names.
    ///
    /// # Errors
    /// See [`resolve`]; also when the class is stored in a form that this version cannot read.
    pub fn resolve(&self, workload: &ElasticWorkload) -> Result<Goal, Invalid> {
        let Some(name) = &workload.spec.class_name else { return resolve(workload, None) };
        if let Some(message) = self.unreadable_classes.get(name) {
            return Err(Invalid::ClassUnreadable { name: name.clone(), message: message.clone() });
        }
        resolve(workload, self.class_of(workload).as_deref())
    }

    /// A workload in the store is about to be replaced. Where the new one makes no sense, the one before is kept.
    fn replaces(&self, before: &StoredWorkload, present: &StoredWorkload) {
        let Ok(before) = &before.0 else { return };
        let same = before.metadata.generation == present.meta().generation;
        if same || before.metadata.uid != present.meta().uid {
            return;
        }
        if present.0.as_ref().is_ok_and(|present| self.resolve(present).is_ok()) {
            return;
        }
        self.last_good.left(&WorkloadKey::of_workload(before), before, self.class_of(before).as_deref());
    }

    /// The same for a workload whose class is another one, or none any more.
    fn class_replaces(&self, before: Option<&WorkloadClass>, workload: &ElasticWorkload) {
        if self.resolve(workload).is_err() {
            self.last_good.left(&WorkloadKey::of_workload(workload), workload, before);
        }
    }

    /// The class that a workload names, if there is one.
    #[must_use]
    pub fn class_of(&self, workload: &ElasticWorkload) -> Option<Arc<WorkloadClass>> {
        self.classes.get(&ObjectRef::new(workload.spec.class_name.as_ref()?))
    }

    /// The replica sets that a workload owns, from the oldest to the newest and without their members, and those that
    /// are not its own.
    #[must_use]
    pub fn sets_of(&self, workload: &ElasticWorkload) -> (Vec<SetFacts>, Vec<(Hull, String)>) {
        let (key, uid) = (WorkloadKey::of_workload(workload), workload.uid());
        let (mut sets, mut foreign) = (Vec::new(), Vec::new());
        for entry in self.replica_sets.children(&key).into_iter().chain(self.machine_sets.children(&key)) {
            if entry.owner.is_some() && entry.owner == uid {
                sets.push(entry.set.clone());
            } else {
                foreign.push((entry.set.hull(), entry.set.name.clone()));
            }
        }
        sets.sort_by(|a, b| a.number.cmp(&b.number).then_with(|| a.name.cmp(&b.name)));
        (sets, foreign)
    }

    /// Whether [`Self::ready`] has come.
    #[must_use]
    pub fn listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Whether pods can be resized, as far as known.
    #[must_use]
    pub fn resize(&self) -> ResizeApi {
        self.resize.borrow().unwrap_or(ResizeApi::Absent)
    }

    /// Whether KubeVirt's kinds are served, as far as known.
    #[must_use]
    pub fn kubevirt(&self) -> KubeVirt {
        self.lives.judged(self.kubevirt.borrow().unwrap_or(KubeVirt::Unknown))
    }
}

/// What the watches need.
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) namespace: Option<String>,
    pub(crate) queue: Queue,
}
