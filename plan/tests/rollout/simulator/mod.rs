//! A pure simulation of what a plan meets: the API server's objects, the ReplicaSet controller, virt-controller,
//! kubelets and guests, and an operator that carries out plans one write at a time, on a view that may be old, and that
//! may be killed.
//!
//! It is driven by a sequence of [`Choice`]s, and each choice has one outcome: so the property tests and the model
//! checker share it, and a failure can be played again.
//!
//! One thing is asked of the operator that the plan cannot see to: its own writes are in its stores at once, deletions
//! of instances too. Else a plan on older instances chooses other victims than the last one did, on top of them.

mod controllers;
mod operator;
mod scenario;
mod truth;

use std::collections::BTreeMap;

use catamaran_crds::{ElasticWorkloadStatus, Hull, State};
use catamaran_plan::{
    Goal,
    facts::{CrashLoop, PodQuota, TemplateQuota},
    goal::quota::Quota,
};
use catamaran_protocol::node_quota::NodeQuota;
pub use operator::{View, Write, time};
pub use scenario::{Scenario, Wish};

/// What a replica set says: everything that a write of the operator is conditional on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Object {
    /// `spec.replicas`.
    pub asked: u32,
    pub noted: Option<u32>,
    pub number: u64,
    pub min_ready: u32,
    pub paused: bool,
    pub crash_loop: Option<CrashLoop>,
    /// What is noted of the template.
    pub template_hash: Option<String>,
    /// The quota in the template.
    pub quota: TemplateQuota,
    /// Whether its instances are noted to be paused: since when they are unpaused, or `None` while they are not.
    pub frozen: Option<Option<i64>>,
    pub deleting: bool,
    /// Whether its controller has looked at the spec since it was written.
    pub current: bool,
    pub status: Status,
}

/// What its controller says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Status {
    pub live: u32,
    pub ready: u32,
    pub available: u32,
    pub pause_seen: bool,
    /// How many available replicas were lost by no deed of the operator, as far as this status knows.
    pub losses: u32,
}

/// A pod or a VirtualMachineInstance that is neither ended nor terminating.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub id: u32,
    pub created: i64,
    pub ready: Option<i64>,
    /// The quota of its pod.
    pub quota: PodQuota,
    /// A guest that KubeVirt has paused.
    pub paused: bool,
    /// Since when its pod is out of the Service.
    pub leaving: Option<i64>,
}

/// A replica set and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set {
    pub uid: u32,
    /// Index in [`Scenario::revisions`].
    pub revision: usize,
    pub hull: Hull,
    pub object: Object,
    pub replicas: Vec<Replica>,
    /// All losses so far.
    pub losses: u32,
}

/// A guest that ended by itself, as the operator remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrashSeen {
    pub set: u32,
    pub created: i64,
    pub ended: i64,
    /// When the newest of its set was created, then.
    pub newest: i64,
}

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Seconds since the beginning.
    pub now: i64,
    /// Index in [`Scenario::wishes`].
    pub wish: usize,
    pub sets: Vec<Set>,
    /// The wish whose ports the Service has.
    pub service: Option<usize>,
    pub status: ElasticWorkloadStatus,
    /// What the operator's stores hold.
    pub view: View,
    /// What is left of the plan that the operator carries out.
    pub flight: Option<Flight>,
    pub crashes: Vec<CrashSeen>,
    /// What the operator remembers to have resized, by replica.
    pub asked: BTreeMap<u32, Quota>,
    pub next_id: u32,
    pub next_set: u32,
    /// The upper bound that is in force: after a change of the spec it comes down with the replicas.
    pub ceiling: u32,
}

/// A plan in the middle of being carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Flight {
    pub writes: Vec<Write>,
    /// The wish that it was made for.
    pub wish: usize,
    /// How many losses it knew of.
    pub losses: u32,
    /// How many available replicas it knew of.
    pub available: u32,
    /// Written when all writes are through.
    pub status: ElasticWorkloadStatus,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The operator plans on what its stores hold.
    Plan,
    /// The operator carries out the next write, or, after the last one, writes the status.
    Write,
    /// A watch brings a set up to date in the operator's stores.
    SeeSet(usize),
    /// Another watch brings its instances up to date.
    SeeInstances(usize),
    /// All watches catch up.
    SeeAll,
    /// The operator is killed and starts again with empty hands and fresh lists.
    OperatorCrash,
    /// The controller of a set makes one pass; `seed` picks virt-controller's random victims.
    Controller { set: usize, seed: usize },
    /// A replica becomes ready, if its revision can.
    Progress { set: usize, replica: usize },
    /// The kubelet looks at a pod that was resized.
    Kubelet { set: usize, replica: usize },
    /// A replica is no longer ready.
    Unready { set: usize, replica: usize },
    /// A pod is evicted, or a guest ends.
    Vanish { set: usize, replica: usize },
    /// Time passes, in seconds.
    Time(i64),
    /// The user changes the spec.
    User(usize),
    /// Somebody deletes a replica set by hand.
    DeleteSet(usize),
}

impl Replica {
    /// The limit that its spec asks for.
    pub fn asked_limit(&self) -> Option<u64> {
        self.quota.containers.iter().next().and_then(|(_, quota)| quota.cpu_limit)
    }

    /// The kernel takes no limit below the burst. A burst above the limit so far is no matter: the agent holds what
    /// goes with cpu.max, and raises it when the kubelet has raised that.
    ///
    /// # Errors
    /// When the burst that the node agent was told does not go with the limit that is asked for next.
    pub fn burst_fits(&self, limit: Option<u64>) -> Result<(), String> {
        let told = self.quota.annotation.as_deref().map(NodeQuota::parse).transpose();
        let burst = told.map_err(|error| error.to_string())?.and_then(|quota| quota.cpu_burst_usec).unwrap_or(0);
        match limit.filter(|limit| burst > limit * 100) {
            Some(limit) => {
                Err(format!("the kernel refuses a burst of {burst} us beside a limit of {limit} millicores"))
            }
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "at {} s, wish {}, crashes {:?}", self.now, self.wish, self.crashes)?;
        for set in &self.sets {
            writeln!(f, "  set {} of revision {}: {:?}", set.uid, set.revision, set.object)?;
            writeln!(f, "    has {:?}", set.replicas)?;
        }
        for seen in &self.view.sets {
            writeln!(f, "  seen of set {}: {:?}", seen.uid, seen.object)?;
            writeln!(f, "    has {:?}", seen.instances)?;
        }
        writeln!(f, "  in flight: {:?}", self.flight.as_ref().map(|flight| &flight.writes))
    }
}

impl World {
    /// Nothing but the wish.
    pub fn new() -> Self {
        Self {
            now: 0,
            wish: 0,
            sets: Vec::new(),
            service: None,
            status: ElasticWorkloadStatus::default(),
            view: View::default(),
            flight: None,
            crashes: Vec::new(),
            asked: BTreeMap::new(),
            next_id: 1,
            next_set: 1,
            ceiling: 0,
        }
    }

    /// Lets `choice` happen. What cannot happen changes nothing.
    ///
    /// # Errors
    /// When a write breaks a bound of the rollout.
    pub fn step(&mut self, scenario: &Scenario, choice: Choice) -> Result<(), String> {
        match choice {
            Choice::Plan => self.plan(scenario),
            Choice::Write => self.write(scenario)?,
            Choice::SeeSet(index) => self.see_set(index),
            Choice::SeeInstances(index) => self.see_instances(scenario, index),
            Choice::SeeAll => self.see_all(scenario),
            Choice::OperatorCrash => {
                self.flight = None;
                self.crashes.clear();
                self.asked.clear();
                self.see_all(scenario);
            }
            Choice::Controller { set, seed } => self.controller(set, seed),
            Choice::Progress { set, replica } => self.progress(scenario, set, replica),
            Choice::Kubelet { set, replica } => self.kubelet(set, replica),
            Choice::Unready { set, replica } => self.lose(set, replica, false),
            Choice::Vanish { set, replica } => self.lose(set, replica, true),
            Choice::Time(seconds) => self.now += seconds,
            Choice::User(wish) => self.user(scenario, wish),
            Choice::DeleteSet(index) => {
                if let Some(set) = self.sets.get_mut(index) {
                    set.object.deleting = true;
                }
            }
        }
        self.check_total()
    }

    fn user(&mut self, scenario: &Scenario, wish: usize) {
        if wish < scenario.wishes.len() {
            self.wish = wish;
        }
    }

    fn progress(&mut self, scenario: &Scenario, set: usize, replica: usize) {
        let now = self.now;
        if let Some(set) = self.sets.get_mut(set)
            && !scenario.broken.contains(&set.revision)
            && let Some(replica) = set.replicas.get_mut(replica)
        {
            replica.ready.get_or_insert(now);
        }
    }

    fn lose(&mut self, set: usize, replica: usize, vanish: bool) {
        let now = self.now;
        let Some(set) = self.sets.get_mut(set) else { return };
        let Some(lost) = set.replicas.get_mut(replica) else { return };
        set.losses += u32::from(lost.ready.is_some());
        lost.ready = None;
        if vanish {
            let newest = set.replicas.iter().map(|replica| replica.created).max().unwrap_or(now);
            let lost = set.replicas.remove(replica);
            if set.hull == Hull::VirtualMachine {
                self.crashes.push(CrashSeen { set: set.uid, created: lost.created, ended: now, newest });
            }
        }
    }

    /// All losses so far.
    fn losses(&self) -> u32 {
        self.sets.iter().map(|set| set.losses).sum()
    }

    fn position(&self, uid: u32) -> Option<usize> {
        self.sets.iter().position(|set| set.uid == uid)
    }

    /// Makes worlds equal that differ by names only, for the model checker: pods are told apart by nothing but their
    /// state, and instances are numbered anew in the same order.
    pub fn normalize_names(&mut self) {
        for set in self.sets.iter_mut().filter(|set| set.hull == Hull::Container) {
            set.replicas.iter_mut().for_each(|replica| replica.id = 0);
            set.replicas.sort_by_key(|replica| (std::cmp::Reverse(replica.ready), replica.created));
        }
        let seen = self.view.sets.iter_mut().flat_map(|set| &mut set.instances).map(|replica| &mut replica.id);
        let there = self.sets.iter_mut().flat_map(|set| &mut set.replicas).map(|replica| &mut replica.id);
        let doomed = self.flight.iter_mut().flat_map(|flight| &mut flight.writes).filter_map(|write| match write {
            Write::DeleteInstance { id } => Some(id),
            _ => None,
        });
        let mut ids: Vec<&mut u32> = seen.chain(there).chain(doomed).filter(|id| **id > 0).collect();
        ids.sort();
        let (mut last, mut next) = (0, 0);
        for id in ids {
            if *id != last {
                next += 1;
            }
            last = *id;
            *id = next;
        }
        self.next_id = next + 1;
    }
}

/// The count that a spec without scaling asks for.
pub(crate) fn asked_for(goal: &Goal) -> u32 {
    match goal.state {
        State::Running | State::Frozen => goal.replicas.unwrap_or(1),
        State::Stopped => 0,
    }
}
