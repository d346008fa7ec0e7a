//! Replica sets of either hull.

use catamaran_crds::Hull;
use jiff::Timestamp;

use crate::facts::{
    arithmetic::{after, count},
    instances::{Instance, InstanceSet, Stage},
    pods::PodSet,
    quota::TemplateQuota,
};

/// A replica set of either hull that the workload owns.
#[derive(Clone, Debug, PartialEq)]
pub struct SetFacts {
    /// Its name.
    pub name: String,
    /// Its uid: the precondition of every write.
    pub uid: String,
    /// Its resourceVersion: the precondition of every change of scale.
    pub resource_version: String,
    /// The revision of its template.
    pub revision: String,
    /// Its place in the history; grows with each rollout.
    pub number: u64,
    /// `spec.replicas`.
    pub replicas: u32,
    /// The workload's replica count when the set was last scaled.
    pub desired_replicas: Option<u32>,
    /// The hash over what of its template cannot change in place, if it was noted.
    pub template_hash: Option<String>,
    /// The quota in its template, for replicas to come.
    pub quota: TemplateQuota,
    /// Whether its template has a liveness or startup probe: the kubelet would kill its replicas when they are frozen.
    pub probed: bool,
    /// True once it is being deleted; then it is left alone.
    pub deleting: bool,
    /// Why its controller cannot make replicas, in the API server's words (condition ReplicaFailure).
    pub failure: Option<String>,
    /// Who else wrote its template or its selector. What we did not write is not what the spec says.
    pub changed_by: Option<String>,
    /// What is known of its replicas.
    pub members: Members,
}

/// What is known of the replicas of a set, by hull.
#[derive(Clone, Debug, PartialEq)]
pub enum Members {
    /// A ReplicaSet: its controller counts.
    Pods(PodSet),
    /// A VirtualMachineInstanceReplicaSet: counted here, since its status knows neither availability nor a generation.
    Instances(Box<InstanceSet>),
}

/// The counts of a set at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Replicas that are neither terminating nor ended.
    pub live: u32,
    /// Those of them that are ready.
    pub ready: u32,
    /// Those that have been ready for minReadySeconds.
    pub available: u32,
}

impl SetFacts {
    /// What the replicas are.
    #[must_use]
    pub fn hull(&self) -> Hull {
        match self.members {
            Members::Pods(_) => Hull::Container,
            Members::Instances(_) => Hull::VirtualMachine,
        }
    }

    /// `spec.replicas`, or less while a set of virtual machines is paused and known to be: then it makes no
    /// replacements and can be taken at what it has. Whatever ends the pause has to lower it to what it may have then.
    ///
    /// Instances and their set are watched apart, so one may be counted that is not seen yet.
    #[must_use]
    pub fn asked_for(&self) -> u32 {
        match &self.members {
            Members::Instances(set) if set.paused && set.pause_seen => {
                self.replicas.min(set.live_count().max(set.counted))
            }
            Members::Pods(_) | Members::Instances(_) => self.replicas,
        }
    }

    /// How many replicas there are, at `now`.
    #[must_use]
    pub fn counts(&self, now: Timestamp, min_ready_seconds: u32) -> Counts {
        match &self.members {
            Members::Pods(pods) => Counts { live: pods.live, ready: pods.ready, available: pods.available },
            Members::Instances(set) => Counts {
                live: set.live_count(),
                ready: count(set.live().filter(|instance| matches!(instance.stage, Stage::Ready(_)))),
                available: count(
                    set.live()
                        .filter(|instance| available_from(instance, min_ready_seconds).is_some_and(|at| at <= now)),
                ),
            },
        }
    }

    /// Whether what is known of its replicas was counted after the last change of its spec. Instances are counted here.
    #[must_use]
    pub fn is_current(&self) -> bool {
        match &self.members {
            Members::Pods(pods) => pods.current,
            Members::Instances(_) => true,
        }
    }

    /// When the next ready instance becomes available, if that is ahead. The ReplicaSet controller tells by itself.
    #[must_use]
    pub fn next_available(&self, now: Timestamp, min_ready_seconds: u32) -> Option<Timestamp> {
        match &self.members {
            Members::Pods(_) => None,
            Members::Instances(set) => set
                .live()
                .filter_map(|instance| available_from(instance, min_ready_seconds))
                .filter(|at| *at > now)
                .min(),
        }
    }
}

fn available_from(instance: &Instance, min_ready_seconds: u32) -> Option<Timestamp> {
    match instance.stage {
        Stage::Ready(since) => Some(after(since, min_ready_seconds)),
        Stage::Leaving | Stage::Pending | Stage::Scheduling | Stage::Started => None,
    }
}
