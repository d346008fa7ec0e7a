//! The operator: what its stores hold, what it plans on that, and its writes, one at a time.

use catamaran_crds::Hull;
use catamaran_plan::{
    Action, Observed, Plan, SetUpdate,
    crash_loop::{Crash, CrashLoop},
    invariants,
    observed::{Instance, InstanceSet, KubeVirt, Members, ObservedService, ObservedSet, PodSet, Stage},
    plan,
};
use jiff::Timestamp;

use super::{Flight, Object, Replica, Scenario, Set, World};

/// The stores: each set and its instances as of the last event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    pub sets: Vec<ViewedSet>,
}

/// A set as last seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewedSet {
    pub uid: u32,
    pub revision: usize,
    pub hull: Hull,
    pub object: Object,
    pub instances: Vec<Replica>,
    /// The losses that `instances` knows of.
    pub instance_losses: u32,
}

/// One write, with what it is conditional on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Create { revision: usize, hull: Hull, asked: u32, noted: u32, number: u64, min_ready: u32 },
    Update { uid: u32, seen: Box<Object>, to: Box<Object> },
    DeleteSet { uid: u32 },
    DeleteInstance { id: u32 },
    Service(bool),
}

/// The moment `seconds` after the beginning.
pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn seconds(time: Timestamp) -> i64 {
    time.as_second() - 1_800_000_000
}

impl World {
    /// What the plan gets to see.
    pub fn observed(&self, scenario: &Scenario) -> Observed {
        Observed {
            now: time(self.now),
            kubevirt: KubeVirt::Installed,
            sets: self.view.sets.iter().map(|set| self.observed_set(scenario, set)).collect(),
            foreign_sets: Vec::new(),
            service: match self.service {
                None => ObservedService::Absent,
                Some(wish) => ObservedService::Owned {
                    uid: "service".to_owned(),
                    ports: scenario.desired[wish].service_ports.clone(),
                    selects_workload: true,
                },
            },
            status: self.status.clone(),
            scaling: None,
            usage_due: None,
        }
    }

    fn observed_set(&self, scenario: &Scenario, set: &ViewedSet) -> ObservedSet {
        let (object, revision) = (&set.object, &scenario.revisions[set.revision]);
        let status = &object.status;
        ObservedSet {
            name: format!("web-{revision}"),
            uid: format!("set-{}", set.uid),
            resource_version: "1".to_owned(),
            revision: revision.clone(),
            number: object.number,
            replicas: object.asked,
            desired_replicas: object.noted,
            deleting: object.deleting,
            members: match set.hull {
                Hull::Container => Members::Pods(PodSet {
                    live: status.live,
                    ready: status.ready,
                    available: status.available,
                    min_ready_seconds: object.min_ready,
                    current: object.current,
                    // Victims of ReplicaSets are chosen by marks, which this simulation does not know.
                    pods: Vec::new(),
                }),
                Hull::VirtualMachine => Members::Instances(InstanceSet {
                    paused: object.paused,
                    pause_seen: status.pause_seen,
                    counted: status.live,
                    instances: set.instances.iter().map(instance).collect(),
                    crash_loop: object.crash_loop.map(|(rounds, last, until)| CrashLoop {
                        rounds,
                        last: time(last),
                        until: time(until),
                    }),
                    crashes: self
                        .crashes
                        .iter()
                        .filter(|crash| crash.set == set.uid)
                        .map(|crash| Crash { created: time(crash.created), ended: time(crash.ended) })
                        .collect(),
                }),
            },
        }
    }

    /// The plan on what the stores hold, checked against its promises.
    pub fn planned(&self, scenario: &Scenario) -> Plan {
        let (desired, observed) = (&scenario.desired[self.wish], self.observed(scenario));
        let plan = plan(desired, &observed);
        invariants::check(desired, &observed, &plan).unwrap_or_else(|violation| panic!("{violation}\n{self}\n{plan}"));
        plan
    }

    pub(super) fn plan(&mut self, scenario: &Scenario) {
        if self.flight.is_some() {
            return;
        }
        let plan = self.planned(scenario);
        self.start(scenario, &plan);
    }

    /// Begins to carry out a plan.
    pub fn start(&mut self, scenario: &Scenario, plan: &Plan) {
        let writes = plan.steps.iter().map(|step| self.as_write(scenario, &step.action)).collect();
        let known = self.view.sets.iter().map(|set| match set.hull {
            Hull::Container => set.object.status.losses,
            Hull::VirtualMachine => set.instance_losses,
        });
        self.flight = Some(Flight {
            writes,
            wish: self.wish,
            losses: known.sum(),
            available: u32::try_from(plan.status.available_replicas).expect("not negative"),
            status: plan.status.clone(),
        });
    }

    fn as_write(&self, scenario: &Scenario, action: &Action) -> Write {
        match action {
            Action::CreateSet(set) => Write::Create {
                revision: scenario.revision(&set.revision),
                hull: set.template.hull(),
                asked: set.replicas,
                noted: set.desired_replicas,
                number: set.number,
                min_ready: set.min_ready_seconds,
            },
            Action::UpdateSet(update) => {
                let uid = number(&update.set.uid);
                let seen = self.view.sets.iter().find(|set| set.uid == uid).expect("planned on a set that is seen");
                Write::Update {
                    uid,
                    seen: Box::new(seen.object.clone()),
                    to: Box::new(updated(seen.object.clone(), update)),
                }
            }
            Action::DeleteSet(set) => Write::DeleteSet { uid: number(&set.uid) },
            Action::DeleteInstance { name: _, uid } => Write::DeleteInstance { id: number(uid) },
            Action::MarkPod { name, .. } => unreachable!("{name} is marked although no pod is seen"),
            Action::ApplyService { .. } => Write::Service(true),
            Action::DeleteService { .. } => Write::Service(false),
        }
    }

    /// Carries out the next write. A conflict ends the pass, as in the operator.
    pub(super) fn write(&mut self, scenario: &Scenario) -> Result<(), String> {
        let Some(mut flight) = self.flight.take() else { return Ok(()) };
        if flight.writes.is_empty() {
            self.status = flight.status;
            return Ok(());
        }
        let write = flight.writes.remove(0);
        let before = self.clone();
        if self.carry_out(&flight, &write)? {
            self.flight = Some(flight.clone());
        }
        self.check_write(&before, &scenario.desired[flight.wish], &flight)
            .map_err(|error| format!("{write:?}: {error}"))
    }

    /// True when it went through.
    fn carry_out(&mut self, flight: &Flight, write: &Write) -> Result<bool, String> {
        match write {
            Write::Create { revision, hull, asked, noted, number, min_ready } => {
                let index = self.sets.iter().position(|set| set.revision == *revision).unwrap_or_else(|| {
                    let (uid, object) = (self.next_set, Object::default());
                    self.next_set += 1;
                    self.sets.push(Set {
                        uid,
                        revision: *revision,
                        hull: *hull,
                        object,
                        replicas: Vec::new(),
                        losses: 0,
                    });
                    self.sets.len() - 1
                });
                let object = &mut self.sets[index].object;
                (object.asked, object.noted, object.number) = (*asked, Some(*noted), *number);
                (object.min_ready, object.current) = (*min_ready, false);
                self.see_set(index);
            }
            Write::Update { uid, seen, to } => {
                let Some(index) = self.position(*uid).filter(|index| self.sets[*index].object == **seen) else {
                    return Ok(false);
                };
                let object = to.as_ref().clone();
                let spec = |object: &Object| (object.asked, object.min_ready, object.paused);
                let current = seen.current && spec(&object) == spec(seen);
                self.sets[index].object = Object { current, ..object };
                self.see_set(index);
            }
            Write::DeleteSet { uid } => {
                if let Some(index) = self.position(*uid) {
                    let set = self.sets.remove(index);
                    if !set.replicas.is_empty() {
                        return Err(format!("a set with replicas is deleted: {set:?}"));
                    }
                }
            }
            Write::DeleteInstance { id } => {
                for set in &mut self.sets {
                    set.replicas.retain(|replica| replica.id != *id);
                }
                for seen in &mut self.view.sets {
                    seen.instances.retain(|replica| replica.id != *id);
                }
            }
            Write::Service(wanted) => self.service = wanted.then_some(flight.wish),
        }
        Ok(true)
    }

    pub(super) fn see_set(&mut self, index: usize) {
        let Some(set) = self.sets.get(index) else { return };
        match self.view.sets.iter_mut().find(|seen| seen.uid == set.uid) {
            Some(seen) => seen.object = set.object.clone(),
            None => self.view.sets.push(ViewedSet {
                uid: set.uid,
                revision: set.revision,
                hull: set.hull,
                object: set.object.clone(),
                instances: Vec::new(),
                instance_losses: 0,
            }),
        }
        self.view.sets.sort_by_key(|set| set.uid);
    }

    pub(super) fn see_instances(&mut self, index: usize) {
        let Some(set) = self.sets.get(index).filter(|set| set.hull == Hull::VirtualMachine) else { return };
        if let Some(seen) = self.view.sets.iter_mut().find(|seen| seen.uid == set.uid) {
            (seen.instances, seen.instance_losses) = (set.replicas.clone(), set.losses);
        }
    }

    /// All watches catch up.
    pub fn see_all(&mut self) {
        self.view.sets.retain(|seen| self.sets.iter().any(|set| set.uid == seen.uid));
        for index in 0..self.sets.len() {
            self.see_set(index);
            self.see_instances(index);
        }
    }

    /// When the operator looks again by itself.
    pub fn next_look(&self, scenario: &Scenario) -> Option<i64> {
        self.planned(scenario).requeue_at.map(seconds)
    }
}

fn number(uid: &str) -> u32 {
    uid.rsplit('-').next().and_then(|digits| digits.parse().ok()).expect("a uid of the simulation")
}

fn instance(replica: &Replica) -> Instance {
    Instance {
        name: format!("vmi-{:03}", replica.id),
        uid: format!("vmi-{}", replica.id),
        created: time(replica.created),
        stage: replica.ready.map_or(Stage::Started, |since| Stage::Ready(time(since))),
        usage: None,
    }
}

fn updated(mut object: Object, update: &SetUpdate) -> Object {
    let SetUpdate { set: _, replicas, desired_replicas, number, min_ready_seconds, paused, crash_loop } = update;
    object.asked = replicas.unwrap_or(object.asked);
    object.noted = desired_replicas.or(object.noted);
    object.number = number.unwrap_or(object.number);
    object.min_ready = min_ready_seconds.unwrap_or(object.min_ready);
    object.paused = paused.unwrap_or(object.paused);
    if let Some(note) = crash_loop {
        object.crash_loop = note.map(|note| (note.rounds, seconds(note.last), seconds(note.until)));
    }
    object
}
