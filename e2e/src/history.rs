//! What happened to a workload's replicas, event by event, in the order of etcd: for invariants that hold at every
//! moment.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use catamaran_crds::{
    ElasticWorkload, Hull,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstancePhase},
    names::{REVISION_LABEL, WORKLOAD_LABEL},
};
use catamaran_plan::goal::{Bounds, RolloutPolicy};
use futures::StreamExt;
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::wait::eventually;

/// Records a workload from its creation on.
pub struct Recorder {
    events: Arc<Mutex<Vec<Happening>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// One watch event.
#[derive(Clone, Debug)]
struct Happening {
    /// The resourceVersion: the order of etcd, over all kinds.
    version: u64,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    /// A replica is as told, or gone.
    Replica { uid: String, state: Option<Replica> },
    /// The workload asks for so many replicas, within these bounds.
    Wanted { desired: u32, bounds: Bounds },
}

/// A replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Pod or virtual machine.
    pub hull: Hull,
    /// Its revision.
    pub revision: String,
    /// Whether it counts: neither terminating nor ended.
    pub live: bool,
    /// Whether it is ready.
    pub ready: bool,
}

/// The replicas of a workload after one event.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The resourceVersion of the event.
    pub version: u64,
    /// How many replicas are wanted.
    pub desired: u32,
    /// The bounds of a rollout at that count.
    pub bounds: Bounds,
    /// The replicas, by uid.
    pub replicas: BTreeMap<String, Replica>,
}

impl Moment {
    /// Replicas that are neither terminating nor ended.
    #[must_use]
    pub fn total(&self) -> usize {
        self.replicas.values().filter(|replica| replica.live).count()
    }

    /// Those of them that are ready.
    #[must_use]
    pub fn available(&self) -> usize {
        self.replicas.values().filter(|replica| replica.live && replica.ready).count()
    }

    /// Live replicas of a revision.
    #[must_use]
    pub fn of_revision(&self, revision: &str) -> usize {
        self.replicas.values().filter(|replica| replica.live && replica.revision == revision).count()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { min_available, max_total } = self.bounds;
        write!(
            f,
            "{}: {} live (at most {max_total}), {} available (at least {min_available}):",
            self.version,
            self.total(),
            self.available()
        )?;
        let mut by_revision: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        for replica in self.replicas.values().filter(|replica| replica.live) {
            let counts = by_revision.entry((replica.hull.as_str(), &replica.revision)).or_default();
            *counts = (counts.0 + 1, counts.1 + usize::from(replica.ready));
        }
        for ((hull, revision), (live, ready)) in by_revision {
            write!(f, " {hull} {revision} {ready}/{live}")?;
        }
        Ok(())
    }
}

/// The whole history of a workload.
#[derive(Clone, Debug)]
pub struct History(pub Vec<Moment>);

impl Recorder {
    /// Starts to record. With `virtual_machines`, KubeVirt's kinds have to be there.
    ///
    /// # Errors
    /// When a watch cannot be started.
    pub async fn start(client: &Client, namespace: &str, workload: &str, virtual_machines: bool) -> Result<Self> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let listed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let label = format!("{WORKLOAD_LABEL}={workload}");
        let mut tasks = vec![
            record(
                Api::<Pod>::namespaced(client.clone(), namespace),
                watcher::Config::default().labels(&label),
                &events,
                &listed,
            ),
            record(
                Api::<ElasticWorkload>::namespaced(client.clone(), namespace),
                watcher::Config::default().fields(&format!("metadata.name={workload}")),
                &events,
                &listed,
            ),
        ];
        if virtual_machines {
            let instances = Api::<VirtualMachineInstance>::namespaced(client.clone(), namespace);
            tasks.push(record(instances, watcher::Config::default().labels(&label), &events, &listed));
        }
        let wanted = tasks.len();
        eventually("the recorder's watches", Duration::from_secs(10), || {
            let ready = listed.load(std::sync::atomic::Ordering::Acquire) >= wanted;
            async move { Ok(ready.then_some(())) }
        })
        .await?;
        Ok(Self { events, tasks })
    }

    /// The history so far.
    #[must_use]
    pub fn history(&self) -> History {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        events.sort_by_key(|event| event.version);
        let mut replicas: BTreeMap<String, Replica> = BTreeMap::new();
        let mut wanted = None;
        let mut moments = Vec::new();
        for Happening { version, change } in events {
            match change {
                Change::Replica { uid, state: Some(replica) } => {
                    replicas.insert(uid, replica);
                }
                Change::Replica { uid, state: None } => {
                    replicas.remove(&uid);
                }
                Change::Wanted { desired, bounds } => wanted = Some((desired, bounds)),
            }
            if let Some((desired, bounds)) = wanted {
                moments.push(Moment { version, desired, bounds, replicas: replicas.clone() });
            }
        }
        History(moments)
    }

    /// Ends a test: the bounds were kept, and then all is `quiet`.
    ///
    /// # Errors
    /// The first event that broke a bound, or what `quiet` finds.
    pub async fn finish(&self, quiet: impl Future<Output = Result<()>>) -> Result<History> {
        let history = self.history();
        history.check_bounds()?;
        quiet.await?;
        Ok(history)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl History {
    /// The bounds of the rollout at every event: nothing takes an available replica away below the lower bound, and
    /// nothing adds a replica above the upper one. (A change of the count itself moves the bounds; it has then to come
    /// closer.)
    ///
    /// # Errors
    /// The first event that broke a bound, with the events before it.
    pub fn check_bounds(&self) -> Result<()> {
        let mut before: Option<&Moment> = None;
        for (index, moment) in self.0.iter().enumerate() {
            let (total, available) = (moment.total(), moment.available());
            let too_many =
                total > usize::try_from(moment.bounds.max_total)? && before.is_none_or(|before| total > before.total());
            let too_few = available < usize::try_from(moment.bounds.min_available)?
                && before.is_some_and(|before| available < before.available());
            if too_many || too_few {
                let story: Vec<String> =
                    self.0[index.saturating_sub(12)..=index].iter().map(ToString::to_string).collect();
                bail!(
                    "{} at event {index}:\n{}",
                    if too_many { "too many replicas" } else { "too few available" },
                    story.join("\n")
                );
            }
            before = Some(moment);
        }
        Ok(())
    }

    /// Only the upper bound: where replicas are lost from outside, the lower one is nobody's fault.
    ///
    /// # Errors
    /// The first event that broke it.
    pub fn check_upper_bound(&self) -> Result<()> {
        let mut before = 0;
        for moment in &self.0 {
            let total = moment.total();
            if total > usize::try_from(moment.bounds.max_total)? && total > before {
                bail!("too many replicas: {moment}");
            }
            before = total;
        }
        Ok(())
    }

    /// The last moment.
    ///
    /// # Errors
    /// When nothing happened.
    pub fn end(&self) -> Result<&Moment> {
        self.0.last().context("nothing was recorded")
    }

    /// How many replicas were ever there, by hull.
    #[must_use]
    pub fn ever(&self) -> HashMap<Hull, usize> {
        let mut uids: HashMap<&String, Hull> = HashMap::new();
        for moment in &self.0 {
            uids.extend(moment.replicas.iter().map(|(uid, replica)| (uid, replica.hull)));
        }
        let mut counts = HashMap::new();
        for hull in uids.into_values() {
            *counts.entry(hull).or_default() += 1;
        }
        counts
    }
}

/// What an object means for the history.
trait Witness: Resource<Scope = NamespaceResourceScope, DynamicType = ()> {
    fn change(&self, gone: bool) -> Option<Change>;
}

fn record<K>(
    api: Api<K>,
    config: watcher::Config,
    events: &Arc<Mutex<Vec<Happening>>>,
    listed: &Arc<std::sync::atomic::AtomicUsize>,
) -> JoinHandle<()>
where
    K: Witness + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (events, listed) = (events.clone(), listed.clone());
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
        while let Some(event) = stream.next().await {
            let (object, gone) = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
                Ok(Event::Delete(object)) => (object, true),
                Ok(Event::InitDone) => {
                    listed.fetch_add(1, std::sync::atomic::Ordering::Release);
                    continue;
                }
                Ok(Event::Init) | Err(_) => continue,
            };
            let version = object.resource_version().and_then(|version| version.parse().ok());
            if let (Some(version), Some(change)) = (version, object.change(gone)) {
                events.lock().unwrap_or_else(PoisonError::into_inner).push(Happening { version, change });
            }
        }
    })
}

impl Witness for Pod {
    fn change(&self, gone: bool) -> Option<Change> {
        // A launcher pod is the shell of a virtual machine, which is counted itself.
        if self.labels().contains_key("kubevirt.io") {
            return None;
        }
        let status = self.status.clone().unwrap_or_default();
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ready = status.conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let state = Replica {
            hull: Hull::Container,
            revision: self.labels().get(REVISION_LABEL).cloned().unwrap_or_default(),
            live: self.metadata.deletion_timestamp.is_none() && !ended,
            ready,
        };
        Some(Change::Replica { uid: self.uid()?, state: (!gone).then_some(state) })
    }
}

impl Witness for VirtualMachineInstance {
    fn change(&self, gone: bool) -> Option<Change> {
        let status = self.status.clone().unwrap_or_default();
        let ended = status.phase.is_some_and(VirtualMachineInstancePhase::is_final);
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let leaving = ready.is_some_and(|ready| ready.reason.as_deref() == Some("PodTerminating"));
        let state = Replica {
            hull: Hull::VirtualMachine,
            revision: self.labels().get(REVISION_LABEL).cloned().unwrap_or_default(),
            live: self.metadata.deletion_timestamp.is_none() && !ended && !leaving,
            ready: ready.is_some_and(|ready| ready.status == "True"),
        };
        Some(Change::Replica { uid: self.uid()?, state: (!gone).then_some(state) })
    }
}

impl Witness for ElasticWorkload {
    fn change(&self, gone: bool) -> Option<Change> {
        if gone {
            return None;
        }
        let stopped = self.spec.state == Some(catamaran_crds::State::Stopped);
        let desired = if stopped { 0 } else { u32::try_from(self.spec.replicas.unwrap_or(1)).unwrap_or(0) };
        let policy = RolloutPolicy::from(&self.spec.rollout.clone().unwrap_or_default());
        Some(Change::Wanted { desired, bounds: policy.bounds(desired) })
    }
}
