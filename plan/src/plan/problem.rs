//! What keeps a workload from its goal, or holds it up.

use std::fmt;

use catamaran_crds::names::REVISION_LABEL;
use jiff::Timestamp;

use crate::{
    facts::Trouble,
    goal::{Invalid, quota::Quota},
};

/// The condition and the reason while the controller of a replica set cannot make replicas; as a Deployment has it.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";
/// The reason of a rollout that missed its deadline.
pub const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
/// The reason while a write fails and is tried again.
pub(crate) const WRITE_FAILING: &str = "WriteFailing";

/// What keeps a workload from its goal until somebody acts (or, for some, until time passes).
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// The spec asks for what cannot be done.
    Invalid(Invalid),
    /// A virtual machine without KubeVirt.
    KubeVirtNotInstalled,
    /// The API server does not say what KubeVirt's kinds are like now.
    KubeVirtUnknown,
    /// An object that is not ours has the name.
    NameTaken {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// No progress for too long.
    DeadlineExceeded {
        /// The revision.
        revision: String,
        /// The deadline in seconds.
        seconds: u32,
        /// What keeps one of its replicas from becoming ready, if that is known.
        trouble: Option<Box<Trouble>>,
    },
    /// The wanted revision failed, an earlier one runs.
    RolledBack {
        /// The failed revision.
        from: String,
        /// The one that runs.
        to: String,
    },
    /// Guests end soon after their start.
    CrashLoop {
        /// The replica set.
        set: String,
        /// Rounds of it.
        rounds: u32,
        /// Until when replacements are held back.
        until: Timestamp,
    },
    /// The controller of a replica set cannot make replicas.
    ReplicasRefused {
        /// The set's kind.
        kind: &'static str,
        /// Its name.
        set: String,
        /// What the API server answers its controller.
        message: String,
    },
    /// A write fails for a reason that may pass: it is tried again.
    WriteFailing {
        /// What was written, for example `ReplicaSet web-abc`.
        object: String,
        /// What the API server answered, or why there was no answer.
        message: String,
    },
    /// The API server refused a write.
    Refused {
        /// What was written, for example `ReplicaSet web-abc`.
        object: String,
        /// What it answered.
        message: String,
    },
}

impl Problem {
    /// The reason of the conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(invalid) => invalid.reason(),
            Self::KubeVirtNotInstalled => "KubeVirtNotInstalled",
            Self::KubeVirtUnknown => "KubeVirtUnknown",
            Self::NameTaken { .. } => "NameTaken",
            Self::DeadlineExceeded { .. } => DEADLINE_EXCEEDED,
            Self::RolledBack { .. } => "RolledBack",
            Self::CrashLoop { .. } => "CrashLoopBackOff",
            Self::ReplicasRefused { .. } => REPLICA_FAILURE,
            Self::WriteFailing { .. } => WRITE_FAILING,
            Self::Refused { .. } => "Refused",
        }
    }

    /// What is wrong, and the way out.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Invalid(invalid) => invalid.to_string(),
            Self::KubeVirtNotInstalled => {
                "spec.virtualMachine needs KubeVirt, whose kinds this cluster does not serve; install KubeVirt (this goes on by itself then), or use spec.container".to_owned()
            }
            Self::KubeVirtUnknown => {
                "the API server does not list KubeVirt's kinds at present, so nothing is changed here; what runs goes on, and so does this when they can be listed; the operator's log has the answer".to_owned()
            }
            Self::NameTaken { kind, name } => format!(
                "metadata.name: the {kind} {name} exists and is not owned by this ElasticWorkload, so it is left alone; delete it, or choose another metadata.name for the workload"
            ),
            Self::DeadlineExceeded { revision, seconds, trouble } => {
                let why = match trouble {
                    Some(trouble) => trouble.to_string(),
                    None => format!(
                        "its replicas' Events say what they wait for (kubectl describe pods -l {REVISION_LABEL}={revision})"
                    ),
                };
                format!(
                    "revision {revision} made no progress for {seconds} s (spec.rollout.progressDeadlineSeconds); {why}; the rollout continues by itself once this is fixed"
                )
            }
            Self::RolledBack { from, to } => format!(
                "revision {from} missed spec.rollout.progressDeadlineSeconds, so revision {to} runs again (spec.rollout.onFailure: Rollback); correct the template to try again"
            ),
            Self::CrashLoop { set, rounds, until } => format!(
                "the guests of {set} end soon after their start (round {rounds}; no replacement before {until}); look at the guests' console (virtctl console) and correct spec.virtualMachine"
            ),
            Self::ReplicasRefused { kind, set, message } => {
                format!(
                    "{kind} {set} cannot make its replicas: {message}; {}; Kubernetes tries again by itself",
                    way_to_replicas(message)
                )
            }
            Self::WriteFailing { object, message } => {
                format!("writing the {object} fails, and is tried again by itself: {message}")
            }
            Self::Refused { object, message } => {
                format!("the API server refused {object}: {message}; correct that field, or what it refers to, in the workload's spec")
            }
        }
    }
}

/// By what the API server's admission answers (`plugin/pkg/admission`): a general word where it is somebody else's.
fn way_to_replicas(message: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["exceeded quota", "failed quota"]) {
        "ask for less (spec.quota, or the template's resources), or raise that ResourceQuota"
    } else if says(&["usage per Container", "usage per Pod", "limit to request ratio"]) {
        "change spec.quota, or the template's resources, or the LimitRange of the namespace"
    } else if says(&["not found", "no PriorityClass"]) {
        "create it, or correct its name in the template"
    } else if says(&["violates PodSecurity"]) {
        "correct the template as it says, or choose another level for the namespace"
    } else {
        "correct the template, or change what forbids it"
    }
}

/// What is left to do until all replicas of a set have their quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resizing {
    /// Replicas that do not have it yet.
    pub open: u32,
    /// What holds one of them up.
    pub held_up: Option<HeldUp>,
    /// One that was given another quota when it was created. It is left so, and not waited for.
    pub changed: Option<ChangedPod>,
}

/// A pod whose requests or limits were changed by admission when it was created: by a policy, or by a webhook such as
/// VerticalPodAutoscaler's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPod {
    /// Its name.
    pub pod: String,
    /// What it has.
    pub has: Quota,
    /// What its template asks for.
    pub wanted: Quota,
}

/// A pod whose resize does not come further by itself, or not soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// Its name.
    pub pod: String,
    /// How it is held up.
    pub by: Obstruction,
}

/// What keeps a pod from its quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstruction {
    /// Its node has no room now; the kubelet tries again by itself.
    Deferred(String),
    /// The kubelet fails to; it tries again by itself.
    Failing(String),
    /// It was asked for the quota and has another one again: somebody else changes it, and it is not fought over.
    Overruled,
}

impl fmt::Display for ChangedPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, has, wanted } = self;
        write!(
            f,
            "Pod {pod} was given {has} when it was created, where {wanted} is asked for, and is left so; exempt the \
             workload from the policy or webhook that changes it (kubectl get mutatingadmissionpolicies,\
             mutatingwebhookconfigurations), or ask for what it gives"
        )
    }
}
