//! Whose a pod is, as the stores know it.

use catamaran_autoscale::pods::{Phase, Requests};
use catamaran_crds::Hull;
use catamaran_metering::{Account, Request};
use catamaran_protocol::stream::identity::PodIdentity;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::stores::{PodEntry, Stores, WorkloadKey};

/// Where accounts learn of pods.
pub trait Directory: Send + Sync + 'static {
    /// The pods that exist: a kubelet began with them and they have not ended.
    fn replicas(&self) -> Vec<Replica>;
    /// One of them.
    fn find(&self, pod: &PodIdentity) -> Option<Replica>;
    /// The accounts of the workloads that exist, with or without pods.
    fn accounts(&self) -> Vec<Account>;
}

/// A pod, as accounts need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// metadata.uid.
    pub uid: Box<str>,
    /// metadata.namespace.
    pub namespace: Box<str>,
    /// The ElasticWorkload.
    pub workload: Box<str>,
    /// Its class, if it has one; `None` when that is not known now.
    pub class: Option<Option<Box<str>>>,
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
        self.pods.index.visit(|key, entries| {
            let class = class_of(self, key);
            found.extend(entries.filter_map(|entry| replica(key, entry, class.clone())));
        });
        found
    }

    fn find(&self, pod: &PodIdentity) -> Option<Replica> {
        let key = self.pods.workload_of(pod.namespace(), pod.name())?;
        let entry = self.pods.index.children(&key).into_iter().find(|entry| entry.uid == pod.uid())?;
        replica(&key, &entry, class_of(self, &key))
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

fn class_of(stores: &Stores, key: &WorkloadKey) -> Option<Option<Box<str>>> {
    let stored = stores.workloads.get(&key.reference())?;
    let workload = stored.0.as_ref().ok()?;
    Some(workload.spec.class_name.as_deref().map(Into::into))
}

/// `None` for a pod that no kubelet has begun with, and for one that has ended.
fn replica(key: &WorkloadKey, entry: &PodEntry, class: Option<Option<Box<str>>>) -> Option<Replica> {
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
        namespace: key.namespace.as_str().into(),
        workload: key.name.as_str().into(),
        class,
        hull,
        started: entry.pod.started?,
        request: request(entry),
    })
}

/// What the scheduler reserves: of the pod as a whole where it says so, else of its containers and sidecars; and its overhead.
fn request(entry: &PodEntry) -> Request {
    let sidecars = entry.pod.init_containers.iter().filter(|init| init.restart_always).map(|init| &init.container);
    let containers: Vec<&Requests> =
        entry.pod.containers.iter().chain(sidecars).map(|container| &container.requests).collect();
    let amount = |pick: fn(&Requests) -> Option<i64>| {
        let of_containers = containers.iter().filter_map(|requests| pick(requests)).fold(0, i64::saturating_add);
        let pod = pick(&entry.pod.requests).unwrap_or(of_containers);
        u64::try_from(pod.saturating_add(pick(&entry.pod.overhead).unwrap_or_default())).unwrap_or_default()
    };
    Request { cpu_millicores: amount(|requests| requests.cpu), memory_bytes: amount(|requests| requests.memory) }
}
