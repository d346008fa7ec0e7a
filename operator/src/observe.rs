//! From the stores to what one workload's plan may look at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use catamaran_autoscale::pods::Phase;
use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus};
use catamaran_plan::{
    Facts,
    facts::{Cause, Enforcement, Instance, Launcher, Members, OomKill, Pod, ServiceFacts, Severity, Stage, Trouble},
};
use catamaran_protocol::node_quota::fingerprint;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    autoscaler::Autoscaler,
    findings::Findings,
    stores::{InstanceEntry, OomKilled, PodEntry, Stores, WorkloadKey},
};

/// What node agents report, where plans look for it.
#[derive(Clone, Copy)]
pub struct Agents<'a> {
    /// What pods use.
    pub autoscaler: &'a Autoscaler,
    /// What became of quotas, and OOM kills.
    pub findings: &'a Findings,
}

/// All that is known of one workload. `status` is its status as last written by us, if that is newer than the store's;
/// with `scaling` the facts hold what each replica uses, since the choice of victims looks at that.
#[must_use]
pub fn observe(
    stores: &Stores,
    agents: Agents<'_>,
    workload: &ElasticWorkload,
    status: ElasticWorkloadStatus,
    scaling: bool,
    now: Timestamp,
) -> Facts {
    let key = WorkloadKey::of_workload(workload);
    let uid = workload.uid();
    let (mut sets, foreign_sets) = stores.sets_of(workload);
    let entries = stores.own_pods(&key, uid.as_deref());
    let slices = stores.slices.children(&key);
    let served = slices.iter().flat_map(|slice| slice.launchers()).collect();
    let pods = Pods { stores, agents, key: &key, scaling, live: by_owner(&entries), served };
    let mut instances: HashMap<&str, Vec<Instance>> = HashMap::new();
    let known = stores.instances.children(&key);
    for entry in &known {
        let Some(owner) = &entry.owner else { continue };
        instances.entry(owner).or_default().push(pods.complete(entry.instance.clone()));
    }
    for set in &mut sets {
        match &mut set.members {
            Members::Pods(members) => {
                members.pods = pods.of_set(&set.uid);
                let asked = members.pods.iter().filter_map(|pod| stores.pods.mark_asked(&pod.uid));
                members.marks_asked = asked.min();
            }
            Members::Instances(members) => {
                members.instances = instances.remove(set.uid.as_str()).unwrap_or_default();
                members.instances.sort_by(|a, b| a.name.cmp(&b.name));
                (members.crashes, members.unexplained_until) = stores.crashes.in_set(&set.uid);
            }
        }
    }
    let mut enforcement: Vec<_> = entries.iter().filter_map(|entry| enforcement(entry, agents.findings)).collect();
    enforcement.sort_by(|a, b| a.pod.cmp(&b.pod));
    Facts {
        now,
        watched_since: stores.watched_since(now),
        kubevirt: stores.kubevirt(),
        sets,
        foreign_sets,
        service: service(stores, &key, uid.as_deref()),
        strays: stores.strays(&key),
        status,
        resize: stores.resize(),
        usage_due: agents.autoscaler.usage_due(now),
        enforcement,
        out_of_memory: entries.iter().filter_map(|entry| out_of_memory(entry, agents.findings)).collect(),
        troubles: pods.troubles(&known),
    }
}

fn service(stores: &Stores, key: &WorkloadKey, uid: Option<&str>) -> ServiceFacts {
    let entry = stores.services.children(key).into_iter().find(|entry| entry.name == key.name);
    match entry {
        None => ServiceFacts::Absent,
        Some(entry) if entry.owner.is_some() && entry.owner.as_deref() == uid => entry.service.clone(),
        Some(_) => ServiceFacts::Foreign,
    }
}

type ByOwner<'a> = HashMap<&'a str, Vec<&'a PodEntry>>;

/// The live pods of each owner, by name: gathered once, since there are workloads with many thousands.
fn by_owner(entries: &[Arc<PodEntry>]) -> ByOwner<'_> {
    let mut pods: ByOwner<'_> = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.is_live()) {
        let Some(owner) = &entry.owner else { continue };
        pods.entry(owner).or_default().push(entry);
    }
    for pods in pods.values_mut() {
        pods.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
    }
    pods
}

/// The pods of a workload: those of ReplicaSets, and the launcher pods of instances.
struct Pods<'a> {
    stores: &'a Stores,
    agents: Agents<'a>,
    key: &'a WorkloadKey,
    scaling: bool,
    live: ByOwner<'a>,
    /// Launcher pods that an EndpointSlice of the Service has.
    served: HashSet<&'a str>,
}

impl Pods<'_> {
    fn owned_by(&self, owner: &str) -> &[&PodEntry] {
        self.live.get(owner).map_or(&[], Vec::as_slice)
    }

    fn usage(&self, entry: &PodEntry) -> Option<i64> {
        self.agents.autoscaler.cpu_of(&self.key.namespace, entry).filter(|_| self.scaling)
    }

    fn of_set(&self, set: &str) -> Vec<Pod> {
        let pod = |entry: &&PodEntry| Pod {
            name: entry.pod.name.clone(),
            uid: entry.uid.clone(),
            created: entry.created,
            ready_since: entry.ready_since(),
            usage: self.usage(entry),
            marked: entry.marked,
            quota: entry.quota.clone(),
            asked: self.stores.pods.asked(&entry.uid),
            refused: self.stores.pods.refused(&entry.uid),
        };
        self.owned_by(set).iter().map(pod).collect()
    }

    /// An instance with its launcher pods and what the guest uses.
    fn complete(&self, instance: Instance) -> Instance {
        let launchers = self.owned_by(&instance.uid);
        let launcher = |entry: &&PodEntry| Launcher {
            name: entry.pod.name.clone(),
            uid: entry.uid.clone(),
            annotation: entry.quota.annotation.clone(),
            leaving: entry.leaving,
            served: self.served.contains(entry.pod.name.as_str()),
        };
        Instance {
            usage: launchers.first().and_then(|entry| self.usage(entry)),
            launchers: launchers.iter().map(launcher).collect(),
            ..instance
        }
    }

    /// Of each set the replica that is worst off, the first by name where several are. What a launcher pod says is
    /// said of its guest, where KubeVirt says nothing.
    fn troubles(&self, instances: &[Arc<InstanceEntry>]) -> Vec<Trouble> {
        let replicas = self.live.values().flatten().filter(|entry| entry.instance.is_none());
        let of_pods = replicas.filter_map(|entry| {
            let cause = entry.trouble.as_deref()?;
            Some(Troubled { set: entry.owner.as_deref()?, kind: "Pod", name: &entry.pod.name, cause })
        });
        let guests = instances.iter().filter(|entry| !matches!(entry.instance.stage, Stage::Ready(_) | Stage::Leaving));
        let of_guests = guests.filter_map(|entry| {
            let launcher = || self.owned_by(&entry.instance.uid).first().and_then(|pod| pod.trouble.as_deref());
            let (name, cause) = (&entry.instance.name, entry.trouble.as_ref().or_else(launcher)?);
            Some(Troubled { set: entry.owner.as_deref()?, kind: "VirtualMachineInstance", name, cause })
        });
        let mut worst: BTreeMap<&str, Troubled<'_>> = BTreeMap::new();
        for troubled in of_pods.chain(of_guests) {
            let known = worst.entry(troubled.set).or_insert(troubled);
            if troubled.rank() < known.rank() {
                *known = troubled;
            }
        }
        worst.into_values().map(Trouble::from).collect()
    }
}

/// A replica that is not ready, and why.
#[derive(Clone, Copy)]
struct Troubled<'a> {
    set: &'a str,
    kind: &'static str,
    name: &'a str,
    cause: &'a Cause,
}

impl Troubled<'_> {
    fn rank(&self) -> (Severity, &str) {
        (self.cause.severity, self.name)
    }
}

impl From<Troubled<'_>> for Trouble {
    fn from(Troubled { set, kind, name, cause }: Troubled<'_>) -> Self {
        Self { set: set.to_owned(), replica: format!("{kind} {name}"), cause: cause.clone() }
    }
}

fn enforcement(entry: &PodEntry, findings: &Findings) -> Option<Enforcement> {
    let runs = entry.is_live() && entry.pod.phase == Phase::Running;
    let annotation = entry.quota.annotation.as_ref().filter(|_| runs)?;
    let node = entry.node.clone()?;
    let told = findings.quota_report(&entry.uid, fingerprint(annotation));
    Some(Enforcement { pod: entry.pod.name.clone(), node: node.to_string(), told })
}

/// The last kill of a pod. What the kubelet says names the container and is better; it says nothing of a process beside
/// the first.
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
