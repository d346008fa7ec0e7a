//! From the stores to what one workload's plan may look at.

use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus};
use catamaran_plan::{
    Observed,
    observed::{Members, ObservedService},
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::stores::{Stores, WorkloadKey};

/// Observes one workload. `status` is its status as last written by us, if that is newer than the store's.
#[must_use]
pub fn observe(stores: &Stores, workload: &ElasticWorkload, status: ElasticWorkloadStatus, now: Timestamp) -> Observed {
    let key = WorkloadKey::of_workload(workload);
    let uid = workload.uid();
    let (mut sets, mut foreign_sets) = (Vec::new(), Vec::new());
    let entries = stores.replica_sets.children(&key).into_iter().chain(stores.machine_sets.children(&key));
    for entry in entries {
        if entry.owner.is_some() && entry.owner == uid {
            sets.push(entry.set);
        } else {
            foreign_sets.push((entry.set.hull(), entry.set.name));
        }
    }
    let instances = stores.instances.children(&key);
    for set in &mut sets {
        if let Members::Instances(members) = &mut set.members {
            members.instances = instances
                .iter()
                .filter(|entry| entry.owner.as_ref() == Some(&set.uid))
                .map(|entry| entry.instance.clone())
                .collect();
            members.instances.sort_by(|a, b| a.name.cmp(&b.name));
            members.crashes = stores.crashes.of(&set.uid);
        }
    }
    sets.sort_by(|a, b| a.number.cmp(&b.number).then_with(|| a.name.cmp(&b.name)));
    let service = stores.services.children(&key).into_iter().find(|entry| entry.name == key.name);
    let service = match service {
        None => ObservedService::Absent,
        Some(entry) if entry.owner.is_some() && entry.owner == uid => entry.service,
        Some(_) => ObservedService::Foreign,
    };
    Observed { now, kubevirt: stores.kubevirt(), sets, foreign_sets, service, status }
}
