//! The operator: what its stores hold, what it plans on that, and its writes, one at a time.

use catamaran_crds::{Hull, names::NODE_QUOTA_ANNOTATION};
use catamaran_plan::{
    Action, Facts, Plan, SetUpdate, check,
    facts::{
        Crash, Enforcement, FrozenNote, Instance, InstanceSet, KubeVirt, Launcher, Members, Pause, Pod, PodSet,
        QuotaReport, Resize, ResizeApi, Selects, ServiceFacts, SetFacts, Stage, TemplateQuota,
    },
    goal::{quota::Quota, revision::Template},
    plan,
    plan::{NoteChange, SetQuota, SpecChange},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

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
    Create { revision: usize, hull: Hull, object: Box<Object> },
    Update { uid: u32, seen: Box<Object>, to: Box<Object> },
    DeleteSet { uid: u32 },
    DeleteInstance { id: u32 },
    Pause { id: u32, paused: bool },
    Leave { id: u32, since: Option<i64> },
    Annotate { id: u32, annotation: Option<String> },
    Resize { id: u32, container: String, quota: Quota },
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
    pub fn observed(&self, scenario: &Scenario) -> Facts {
        Facts {
            now: time(self.now),
            kubevirt: KubeVirt::Installed,
            sets: self.view.sets.iter().map(|set| self.observed_set(scenario, set)).collect(),
            foreign_sets: Vec::new(),
            service: match self.service {
                None => ServiceFacts::Absent,
                Some(wish) => ServiceFacts::Owned {
                    uid: "service".to_owned(),
                    ports: scenario.desired[wish].service_ports.clone(),
                    selects: Some(Selects::for_state(scenario.desired[wish].state)),
                },
            },
            status: self.status.clone(),
            watched_since: Timestamp::MIN,
            resize: ResizeApi::Served,
            usage_due: None,
            enforcement: self.enforcement(),
            out_of_memory: Vec::new(),
            strays: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// Agents that hold at once what they are told.
    fn enforcement(&self) -> Vec<Enforcement> {
        let runs = |replica: &&Replica| replica.ready.is_some() && replica.quota.annotation.is_some();
        let held = |replica: &Replica| Enforcement {
            pod: format!("pod-{:03}", replica.id),
            node: "node-1".to_owned(),
            told: QuotaReport::Held,
        };
        self.view.sets.iter().flat_map(|set| set.instances.iter().filter(runs).map(held)).collect()
    }

    fn observed_set(&self, scenario: &Scenario, set: &ViewedSet) -> SetFacts {
        let (object, revision) = (&set.object, &scenario.revisions[set.revision]);
        let status = &object.status;
        SetFacts {
            name: format!("web-{revision}"),
            uid: format!("set-{}", set.uid),
            resource_version: "1".to_owned(),
            revision: revision.clone(),
            number: object.number,
            replicas: object.asked,
            desired_replicas: object.noted,
            template_hash: object.template_hash.clone(),
            quota: object.quota.clone(),
            probed: false,
            deleting: object.deleting,
            failure: None,
            changed_by: None,
            members: match set.hull {
                Hull::Container => Members::Pods(PodSet {
                    live: status.live,
                    ready: status.ready,
                    available: status.available,
                    min_ready_seconds: object.min_ready,
                    current: object.current,
                    marks_asked: None,
                    // Victims of ReplicaSets are chosen by marks, which this simulation does not know.
                    pods: set.instances.iter().map(|replica| self.pod(replica)).collect(),
                }),
                Hull::VirtualMachine => Members::Instances(Box::new(InstanceSet {
                    paused: object.paused,
                    pause_seen: status.pause_seen,
                    counted: status.live,
                    instances: set.instances.iter().map(instance).collect(),
                    frozen: object
                        .frozen
                        .map(|since| since.map_or(FrozenNote::Frozen, |since| FrozenNote::Thawing(time(since)))),
                    crash_loop: object.crash_loop,
                    crashes: self
                        .crashes
                        .iter()
                        .filter(|crash| crash.set == set.uid)
                        .map(|crash| Crash {
                            created: time(crash.created),
                            ended: time(crash.ended),
                            newest: time(crash.newest),
                        })
                        .collect(),
                    unexplained_until: None,
                })),
            },
        }
    }

    fn pod(&self, replica: &Replica) -> Pod {
        let asked = self.asked.get(&replica.id).copied();
        Pod {
            name: format!("pod-{:03}", replica.id),
            uid: format!("pod-{}", replica.id),
            created: time(replica.created),
            ready_since: replica.ready.map(time),
            usage: None,
            marked: false,
            quota: replica.quota.clone(),
            asked,
            refused: None,
        }
    }

    /// The plan on what the stores hold, checked against its promises.
    pub fn planned(&self, scenario: &Scenario) -> Plan {
        let (desired, observed) = (&scenario.desired[self.wish], self.observed(scenario));
        let plan = plan(desired, &observed, None);
        check::check(desired, &observed, &plan).unwrap_or_else(|violation| panic!("{violation}\n{self}\n{plan}"));
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
                object: Box::new(Object {
                    asked: set.replicas,
                    noted: Some(set.desired_replicas),
                    number: set.number,
                    min_ready: set.min_ready_seconds,
                    template_hash: Some(set.template_hash.clone()),
                    quota: quota_of(&set.template),
                    ..Object::default()
                }),
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
            Action::PauseInstance { name, paused } => Write::Pause { id: number(name), paused: *paused },
            Action::LeaveService { pod: _, uid, since } => Write::Leave { id: number(uid), since: since.map(seconds) },
            Action::AnnotatePod { name: _, uid, annotation } => {
                Write::Annotate { id: number(uid), annotation: annotation.clone() }
            }
            Action::ResizePod { name: _, uid, container, quota } => {
                Write::Resize { id: number(uid), container: container.clone(), quota: *quota }
            }
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
            Write::Create { revision, hull, object: made } => {
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
                *object = Object { deleting: object.deleting, status: object.status.clone(), ..made.as_ref().clone() };
                self.see_set(index);
            }
            Write::Update { uid, seen, to } => {
                let Some(index) = self.position(*uid).filter(|index| self.sets[*index].object == **seen) else {
                    return Ok(false);
                };
                let object = to.as_ref().clone();
                let spec = |object: &Object| (object.asked, object.min_ready, object.paused, object.quota.clone());
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
            Write::Pause { id, paused } => {
                if let Some(replica) = self.replica(*id) {
                    replica.paused = *paused;
                }
            }
            Write::Leave { id, since } => {
                if let Some(replica) = self.replica(*id) {
                    replica.leaving = *since;
                }
            }
            Write::Annotate { id, annotation } => {
                if let Some(replica) = self.replica(*id) {
                    replica.quota.annotation.clone_from(annotation);
                }
            }
            Write::Resize { id, container, quota } => {
                let Some(replica) = self.replica(*id) else { return Ok(true) };
                let before = replica.quota.containers.get(container).unwrap_or_default();
                replica.quota.containers = replica.quota.containers.with(container, *quota);
                replica.quota.template = None;
                if !quota.keeps_all_of(before) {
                    return Err(format!("the API server refuses to make {quota} of {before}"));
                }
                replica.quota.resize = Resize::InProgress;
                replica.burst_fits(quota.cpu_limit)?;
                self.asked.insert(*id, *quota);
            }
            Write::Service(wanted) => self.service = wanted.then_some(flight.wish),
        }
        Ok(true)
    }

    fn replica(&mut self, id: u32) -> Option<&mut Replica> {
        self.sets.iter_mut().flat_map(|set| &mut set.replicas).find(|replica| replica.id == id)
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

    pub(super) fn see_instances(&mut self, scenario: &Scenario, index: usize) {
        let seen = |set: &&Set| set.hull == Hull::VirtualMachine || scenario.sees_pods;
        let Some(set) = self.sets.get(index).filter(seen) else { return };
        if let Some(seen) = self.view.sets.iter_mut().find(|seen| seen.uid == set.uid) {
            (seen.instances, seen.instance_losses) = (set.replicas.clone(), set.losses);
        }
    }

    /// All watches catch up.
    pub fn see_all(&mut self, scenario: &Scenario) {
        self.view.sets.retain(|seen| self.sets.iter().any(|set| set.uid == seen.uid));
        for index in 0..self.sets.len() {
            self.see_set(index);
            self.see_instances(scenario, index);
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
        stage: match replica.ready {
            Some(since) if !replica.paused => Stage::Ready(time(since)),
            Some(_) | None => Stage::Started,
        },
        pause: if replica.paused { Pause::Paused } else { Pause::Running },
        usage: None,
        launchers: vec![Launcher {
            name: format!("virt-launcher-{:03}", replica.id),
            uid: format!("pod-{}", replica.id),
            annotation: replica.quota.annotation.clone(),
            leaving: replica.leaving.map(time),
            served: false,
        }],
    }
}

/// The quota in a template, as the stores read it.
fn quota_of(template: &Template) -> TemplateQuota {
    let (metadata, containers) = match template {
        Template::Container(pod) => (&pod.metadata, pod.spec.clone().unwrap_or_default().containers),
        Template::VirtualMachine(machine) => (&machine.metadata, Vec::new()),
    };
    let annotations = metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    let of = |container: Container| (container.name, Quota::of_container(&container.resources.unwrap_or_default()));
    TemplateQuota {
        annotation: annotations.and_then(|annotations| annotations.get(NODE_QUOTA_ANNOTATION)).cloned(),
        // A pod has the API server's defaults.
        containers: containers.into_iter().map(of).map(|(name, quota)| (name, quota.with_defaults())).collect(),
        ..TemplateQuota::default()
    }
}

fn updated(mut object: Object, update: &SetUpdate) -> Object {
    let SetUpdate { set: _, spec, notes, quota } = update;
    let SpecChange { replicas, min_ready_seconds, paused } = spec;
    let NoteChange { desired_replicas, number, template_hash, crash_loop, frozen } = notes;
    object.template_hash = template_hash.clone().or(object.template_hash);
    if let Some(SetQuota { container, resources, annotation, lone: _ }) = quota {
        object.quota.annotation = annotation.clone().unwrap_or(object.quota.annotation);
        if let Some(resources) = resources {
            object.quota.containers = object.quota.containers.with(container, *resources);
        }
    }
    if let Some(note) = frozen {
        object.frozen = note.map(|note| match note {
            FrozenNote::Frozen => None,
            FrozenNote::Thawing(since) => Some(seconds(since)),
        });
    }
    object.asked = replicas.unwrap_or(object.asked);
    object.noted = desired_replicas.or(object.noted);
    object.number = number.unwrap_or(object.number);
    object.min_ready = min_ready_seconds.unwrap_or(object.min_ready);
    object.paused = paused.unwrap_or(object.paused);
    object.crash_loop = crash_loop.unwrap_or(object.crash_loop);
    object
}
