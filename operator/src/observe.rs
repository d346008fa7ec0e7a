//! From the stores to what one workload's plan may look at.

use catamaran_autoscale::pods::Phase;
use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus};
use catamaran_plan::{
    Facts,
    facts::{Enforcement, Launcher, Members, OomKill, Pod, PodQuota, ServiceFacts},
};
use catamaran_protocol::node_quota::fingerprint;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    autoscaler::Autoscaler,
    findings::Findings,
    stores::{OomKilled, PodEntry, Stores, WorkloadKey},
};

/// Observes one workload. `status` is its status as last written by us, if that is newer than the store's.
#[must_use]
pub fn observe(stores: &Stores, workload: &ElasticWorkload, status: ElasticWorkloadStatus, now: Timestamp) -> Facts {
    let key = WorkloadKey::of_workload(workload);
    let uid = workload.uid();
    let (mut sets, mut foreign_sets) = (Vec::new(), Vec::new());
    let entries = stores.replica_sets.children(&key).into_iter().chain(stores.machine_sets.children(&key));
    for entry in entries {
        if entry.owner.is_some() && entry.owner == uid {
            sets.push(entry.set.clone());
        } else {
            foreign_sets.push((entry.set.hull(), entry.set.name.clone()));
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
            (members.crashes, members.unexplained_until) = stores.crashes.of(&set.uid);
        }
    }
    sets.sort_by(|a, b| a.number.cmp(&b.number).then_with(|| a.name.cmp(&b.name)));
    let service = stores.services.children(&key).into_iter().find(|entry| entry.name == key.name);
    let service = match service {
        None => ServiceFacts::Absent,
        Some(entry) if entry.owner.is_some() && entry.owner == uid => entry.service.clone(),
        Some(_) => ServiceFacts::Foreign,
    };
    Facts {
        now,
        kubevirt: stores.kubevirt(),
        sets,
        foreign_sets,
        service,
        status,
        scaling: None,
        resize: stores.resize(),
        usage_due: None,
        enforcement: Vec::new(),
        out_of_memory: Vec::new(),
    }
}

/// What node agents tell, where plans look for it.
#[derive(Clone, Copy)]
pub struct Agents<'a> {
    /// What pods use.
    pub autoscaler: &'a Autoscaler,
    /// What became of quotas, and kills for want of memory.
    pub findings: &'a Findings,
}

/// Adds the pods of the workload (those of ReplicaSets, and the launcher pods of instances) and what agents find at them. With
/// scaling also what each replica uses: the choice of victims looks at that.
pub fn add_pods(observed: &mut Facts, stores: &Stores, key: &WorkloadKey, agents: Agents<'_>, scaling: bool) {
    let Agents { autoscaler, findings } = agents;
    observed.usage_due = autoscaler.usage_due(observed.now);
    let usage = |entry: &PodEntry| autoscaler.cpu_of(&key.namespace, entry).filter(|_| scaling);
    let entries = stores.pods.index.children(key);
    observed.enforcement = entries.iter().filter_map(|entry| enforcement(entry, findings)).collect();
    observed.enforcement.sort_by(|a, b| a.pod.cmp(&b.pod));
    observed.out_of_memory = entries.iter().filter_map(|entry| out_of_memory(entry, findings)).collect();
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
                let slices = stores.slices.children(key);
                for instance in &mut instances.instances {
                    instance.usage = of(&instance.uid).next().and_then(|entry| usage(entry));
                    instance.launchers = of(&instance.uid)
                        .map(|entry| Launcher {
                            name: entry.pod.name.clone(),
                            uid: entry.uid.clone(),
                            annotation: entry.quota.annotation.clone(),
                            leaving: entry.leaving,
                            served: slices.iter().any(|slice| slice.has(&entry.pod.name)),
                        })
                        .collect();
                    instance.launchers.sort_by(|a, b| a.name.cmp(&b.name));
                }
            }
        }
    }
}

fn enforcement(entry: &PodEntry, findings: &Findings) -> Option<Enforcement> {
    let runs = entry.is_live() && entry.pod.phase == Phase::Running;
    let annotation = entry.quota.annotation.as_ref().filter(|_| runs)?;
    let node = entry.node.clone()?;
    let told = findings.told(&entry.uid, fingerprint(annotation));
    Some(Enforcement { pod: entry.pod.name.clone(), node: node.to_string(), told })
}

/// The last kill of a pod. What the kubelet says names the container and is better; it says nothing of a process beside the first.
fn out_of_memory(entry: &PodEntry, findings: &Findings) -> Option<OomKill> {
    if entry.pod.deleted {
        return None;
    }
    let kills = findings.kills(&entry.uid);
    let peak = kills.and_then(|kills| kills.peak);
    let pod = entry.pod.name.clone();
    let of_kubelet = entry.oom_kill.as_deref().map(|OomKilled { container, began: _, at, limit }| OomKill {
        pod: pod.clone(),
        container: Some(container.clone()),
        at: *at,
        limit: *limit,
        peak,
    });
    let of_agent = kills.and_then(|kills| kills.last).map(|at| OomKill {
        pod,
        container: None,
        at,
        limit: entry.memory_limit_at(at),
        peak,
    });
    of_kubelet.or(of_agent)
}
