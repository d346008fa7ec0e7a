//! From the stores to what one workload's plan may look at.

use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus};
use catamaran_plan::{
    Observed,
    observed::{Launcher, Members, ObservedService, Pod, PodQuota},
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    autoscaler::Autoscaler,
    stores::{PodEntry, Stores, WorkloadKey},
};

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
    Observed {
        now,
        kubevirt: stores.kubevirt(),
        sets,
        foreign_sets,
        service,
        status,
        scaling: None,
        resize: stores.resize(),
        usage_due: None,
    }
}

/// Adds the pods of the workload: those of ReplicaSets, and the launcher pods of instances.
pub fn add_pods(observed: &mut Observed, stores: &Stores, key: &WorkloadKey) {
    add_pods_using(observed, stores, key, |_| None);
}

/// Adds the pods, and what each replica uses: the choice of victims looks at that.
pub fn add_usage(observed: &mut Observed, stores: &Stores, key: &WorkloadKey, autoscaler: &Autoscaler) {
    observed.usage_due = autoscaler.usage_due(observed.now);
    add_pods_using(observed, stores, key, |entry| autoscaler.cpu_of(&key.namespace, entry));
}

fn add_pods_using(
    observed: &mut Observed,
    stores: &Stores,
    key: &WorkloadKey,
    usage: impl Fn(&PodEntry) -> Option<i64>,
) {
    let entries = stores.pods.index.children(key);
    let of = |owner: &str| {
        let owner = owner.to_owned();
        entries.iter().filter(move |entry| entry.is_live() && entry.owner.as_ref() == Some(&owner))
    };
    for set in &mut observed.sets {
        match &mut set.members {
            Members::Pods(pods) => {
                pods.pods = of(&set.uid)
                    .map(|entry| Pod {
                        name: entry.pod.name.clone(),
                        uid: entry.uid.clone(),
                        created: entry.created,
                        ready_since: entry.ready_since(),
                        usage: usage(entry),
                        marked: entry.marked,
                        quota: PodQuota {
                            asked: stores.pods.asked(&entry.uid),
                            refused: stores.pods.refused(&entry.uid),
                            ..entry.quota.clone()
                        },
                    })
                    .collect();
                pods.pods.sort_by(|a, b| a.name.cmp(&b.name));
            }
            Members::Instances(instances) => {
                for instance in &mut instances.instances {
                    instance.usage = of(&instance.uid).next().and_then(&usage);
                    instance.launchers = of(&instance.uid)
                        .map(|entry| Launcher {
                            name: entry.pod.name.clone(),
                            uid: entry.uid.clone(),
                            annotation: entry.quota.annotation.clone(),
                        })
                        .collect();
                    instance.launchers.sort_by(|a, b| a.name.cmp(&b.name));
                }
            }
        }
    }
}
