//! The pods of a workload, as far as a decision looks at them, and how the HPA sorts them.
//!
//! Source: `groupPods` and `calculateRequests` in `replica_calculator.go`, `PodRequests` in
//! `k8s.io/component-helpers/resource`.

use jiff::Timestamp;

use super::{
    arithmetic::{fit_i64, later},
    policy::{Resource, Settings},
    proposal::MetricError,
};

/// One pod that the workload's selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name: the key of its samples.
    pub name: String,
    /// `status.phase`.
    pub phase: Phase,
    /// Whether it has a deletionTimestamp.
    pub deleted: bool,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// Its condition Ready, if it has one.
    pub ready: Option<Readiness>,
    /// The containers that run as long as the pod.
    pub containers: Vec<Container>,
    /// Its init containers, in order.
    pub init_containers: Vec<InitContainer>,
    /// What the pod as a whole asks for (`spec.resources.requests`); a resource that is not named there is `None`.
    pub requests: Requests,
    /// `spec.overhead`; only counted with requests of the pod as a whole, as the HPA does.
    pub overhead: Requests,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have started.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container ended badly, and none will run again.
    Failed,
    /// The node is out of reach, or nobody has said yet.
    Unknown,
}

/// The condition Ready of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Its status.
    pub status: ConditionStatus,
    /// Since when (`lastTransitionTime`).
    pub since: Timestamp,
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// A container and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub requests: Requests,
}

/// An init container and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitContainer {
    /// Whether it goes on to run beside the containers (`restartPolicy: Always`).
    pub restart_always: bool,
    /// Its name and what it asks for.
    pub container: Container,
}

/// What is asked for. `None`: no request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// In millicores.
    pub cpu: Option<i64>,
    /// In bytes.
    pub memory: Option<i64>,
}

impl Requests {
    /// The request of a resource in thousandths. Those other than cpu and memory are not known here.
    fn of(&self, resource: &Resource) -> Option<i128> {
        match resource {
            Resource::Cpu => self.cpu.map(i128::from),
            Resource::Memory => self.memory.map(|bytes| i128::from(bytes) * 1000),
            Resource::Other(_) => None,
        }
    }
}

/// How a pod counts in a metric of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// On its way out, or failed: it and its sample do not count.
    Ignored,
    /// Not yet (or no longer) at work: its sample does not count.
    Unready,
    /// At work, without a sample.
    Missing,
    /// At work: its sample counts.
    Ready,
}

/// When a sample was taken, and over which time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub at: Timestamp,
    pub window: jiff::SignedDuration,
}

impl Pod {
    /// Whether it is running and ready: such pods share the value of an object.
    #[must_use]
    pub fn is_running_and_ready(&self) -> bool {
        self.phase == Phase::Running && self.ready.is_some_and(|ready| ready.status == ConditionStatus::True)
    }

    /// How it counts, given when its sample was taken, if there is one. Only for cpu does it matter how long the pod
    /// has been up: a start burns cpu that says nothing about the load.
    pub(super) fn group(&self, sample: Option<Taken>, cpu: bool, settings: &Settings, now: Timestamp) -> Group {
        if self.deleted || self.phase == Phase::Failed {
            return Group::Ignored;
        }
        if self.phase == Phase::Pending {
            return Group::Unready;
        }
        match sample {
            None => Group::Missing,
            Some(taken) if cpu && self.is_starting(taken, settings, now) => Group::Unready,
            Some(_) => Group::Ready,
        }
    }

    fn is_starting(&self, sample: Taken, settings: &Settings, now: Timestamp) -> bool {
        let (Some(ready), Some(started)) = (self.ready, self.started) else { return true };
        let not_ready = ready.status == ConditionStatus::False;
        if later(started, settings.cpu_initialization_period) > now {
            // A sample that reaches back before the last change of readiness is of the start.
            not_ready || sample.at < later(ready.since, sample.window)
        } else {
            // A pod that was never ready; one that lost its readiness is under load and counts.
            not_ready && later(started, settings.initial_readiness_delay) > ready.since
        }
    }

    /// What the pod asks for, in thousandths, as Utilization counts it; `None` where a container that counts has no
    /// such request.
    #[must_use]
    pub fn requested(&self, resource: &Resource) -> Option<i64> {
        self.request(resource, None).ok()
    }

    /// What the pod, or one container of it, asks for, in thousandths.
    ///
    /// # Errors
    /// When a container that counts has no such request, or there is no such container.
    pub(super) fn request(&self, resource: &Resource, container: Option<&str>) -> Result<i64, MetricError> {
        let milli = match container {
            Some(name) => self.request_of_container(resource, name)?,
            None if self.requests != Requests::default() => self.request_as_a_whole(resource)?,
            None => self.lasting().map(|container| self.needed(container, resource)).sum::<Result<i128, _>>()?,
        };
        Ok(fit_i64(milli))
    }

    /// The containers that run as long as the pod.
    fn lasting(&self) -> impl Iterator<Item = &Container> {
        let sidecars = self.init_containers.iter().filter(|init| init.restart_always).map(|init| &init.container);
        self.containers.iter().chain(sidecars)
    }

    fn needed(&self, container: &Container, resource: &Resource) -> Result<i128, MetricError> {
        container.requests.of(resource).ok_or_else(|| MetricError::NoRequest {
            resource: resource.to_string(),
            container: container.name.clone(),
            pod: self.name.clone(),
        })
    }

    fn request_of_container(&self, resource: &Resource, name: &str) -> Result<i128, MetricError> {
        let container = self.lasting().find(|container| container.name == name);
        let container =
            container.ok_or_else(|| MetricError::NoContainer { container: name.to_owned(), pod: self.name.clone() })?;
        self.needed(container, resource)
    }

    /// The request of the pod as a whole; for a resource that it does not name, what its containers need at most at a
    /// time.
    fn request_as_a_whole(&self, resource: &Resource) -> Result<i128, MetricError> {
        let of = |container: &Container| container.requests.of(resource);
        let add = |sum: Option<i128>, more: Option<i128>| match (sum, more) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
        let asked = self.requests.of(resource).or_else(|| {
            let running = self.containers.iter().map(of).fold(None, add);
            let (mut sidecars, mut total, mut starting) = (None, running, None);
            for init in &self.init_containers {
                if init.restart_always {
                    sidecars = add(sidecars, of(&init.container));
                    total = add(total, of(&init.container));
                    starting = starting.max(sidecars);
                } else {
                    starting = starting.max(add(of(&init.container), sidecars));
                }
            }
            total.max(starting)
        });
        add(asked, self.overhead.of(resource))
            .ok_or_else(|| MetricError::NoPodRequest { resource: resource.to_string(), pod: self.name.clone() })
    }
}
