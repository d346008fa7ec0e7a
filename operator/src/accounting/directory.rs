//! Whose a pod is, as the stores know it.

use std::sync::Arc;

use catamaran_autoscale::pods::Phase;
use catamaran_crds::Hull;
use catamaran_metering::{Account, Request};
use catamaran_protocol::stream::identity::PodIdentity;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::stores::{PodEntry, Stores, WorkloadKey};

/// Where accounts learn of pods.
pub trait Directory: Send + Sync + 'static {
    /// The pods that exist: a kubelet began with them and they have not ended. Those of a workload come one after the
    /// other, and share their owner.
    fn replicas(&self) -> Vec<Replica>;
    /// One of them.
    fn find(&self, pod: &PodIdentity) -> Option<Replica>;
    /// The accounts of the workloads that exist, with or without pods.
    fn accounts(&self) -> Vec<Account>;
}

/// A workload with pods, as accounts need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// metadata.namespace.
    pub namespace: Box<str>,
    /// The ElasticWorkload.
    pub workload: Box<str>,
    /// Its class, if it has one; `None` when that is not known now.
    pub class: Option<Option<Box<str>>>,
}

/// A pod, as accounts need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// metadata.uid.
    pub uid: Box<str>,
    /// Its workload.
    pub owner: Arc<Owner>,
    /// What the pod itself is: in a rollout from one hull to the other there are both.
    pub hull: Hull,
    /// When its kubelet began with it.
    pub started: Timestamp,
    /// What it has reserved.
    pub request: Request,
}

impl Directory for Stores {
    fn replicas(&self) -> Vec<Replica> {
        let mut found = Vec::new();
        for key in self.pods.index.keys() {
            let (owner, workload) = owner(self, &key);
            found.extend(self.own_pods(&key, workload.as_deref()).iter().filter_map(|entry| replica(&owner, entry)));
        }
        found
    }

    fn find(&self, pod: &PodIdentity) -> Option<Replica> {
        let key = self.pods.index.home(pod.uid())?;
        // Not by all children of the workload: it may have thousands, and each is asked for when its agent first
        // reports it.
        let (owner, workload) = owner(self, &key);
        let entry = self.pods.index.by_uid(pod.uid()).filter(|entry| self.owns(&key, workload.as_deref(), entry))?;
        replica(&owner, &entry)
    }

    fn accounts(&self) -> Vec<Account> {
        let workloads = self.workloads.state();
        let known = workloads.iter().filter_map(|stored| {
            let workload = stored.0.as_ref().ok()?;
            let hull = match workload.spec.virtual_machine {
                Some(_) => Hull::VirtualMachine,
                None => Hull::Container,
            };
            Some(Account {
                namespace: workload.namespace()?.into(),
                workload: workload.name_any().into(),
                class: workload.spec.class_name.as_deref().map(Into::into),
                hull,
            })
        });
        known.collect()
    }
}

/// An owner, and the uid of its workload while there is one.
fn owner(stores: &Stores, key: &WorkloadKey) -> (Arc<Owner>, Option<String>) {
    let stored = stores.workloads.get(&key.reference());
    let workload = stored.as_ref().and_then(|stored| stored.0.as_ref().ok());
    let class = workload.map(|workload| workload.spec.class_name.as_deref().map(Into::into));
    let owner = Owner { namespace: key.namespace.as_str().into(), workload: key.name.as_str().into(), class };
    (Arc::new(owner), stored.and_then(|stored| stored.uid()))
}

/// `None` for a pod that no kubelet has begun with, and for one that has ended.
fn replica(owner: &Arc<Owner>, entry: &PodEntry) -> Option<Replica> {
    match entry.pod.phase {
        Phase::Succeeded | Phase::Failed => return None,
        Phase::Pending | Phase::Running | Phase::Unknown => {}
    }
    let hull = match entry.instance {
        Some(_) => Hull::VirtualMachine,
        None => Hull::Container,
    };
    Some(Replica {
        uid: entry.uid.as_str().into(),
        owner: owner.clone(),
        hull,
        started: entry.pod.started?,
        request: entry.reserved,
    })
}
