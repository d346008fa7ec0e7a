//! Why a plan is as it is, in words: shown by `explain`, in Events and in the golden tests by the same code.

use std::fmt;

use jiff::Timestamp;

use crate::{facts::Stage, plan::SetReference};
use catamaran_autoscale::victims::Victims;

/// Why a step is taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The first replica set of the workload.
    FirstRevision,
    /// The template changed.
    NewRevision,
    /// A pod cannot have the wanted quota where it is, so all are replaced.
    Infeasible(Infeasible),
    /// The quota changed; this takes effect without a restart.
    Quota,
    /// The burst goes down before the limit does.
    LowerBurst,
    /// The count of a set changes.
    Scale(Move),
    /// An old revision is wanted again, or notes are out of date.
    Notes,
    /// A scale-in of virtual machines begins.
    PauseToChoose {
        /// How many will go.
        surplus: u32,
    },
    /// A scale-in of virtual machines ends.
    ChosenGone,
    /// The pause of a scale-in is over.
    PauseOver,
    /// The pause after crashes is over.
    CrashPauseOver,
    /// No guest has crashed for long enough.
    CrashesOver,
    /// This instance is the one to go.
    Victim {
        /// How far it was.
        stage: Stage,
        /// How it was chosen among the ready ones.
        victims: Victims,
    },
    /// This pod is one of those to go.
    Marked {
        /// How it was chosen.
        victims: Victims,
    },
    /// This pod is not to go any more.
    Spared,
    /// Its guest is to go, and gets no more requests first.
    Leaves,
    /// It has the workload's label and is none of its replicas.
    Stray,
    /// Guests end soon after their start.
    CrashLoop {
        /// Rounds of it.
        rounds: u32,
    },
    /// Beyond the revisions that are kept.
    History {
        /// How many are kept.
        limit: usize,
    },
    /// The workload is frozen.
    Freeze,
    /// It is no longer frozen.
    Thaw,
    /// The Service is missing.
    ServiceMissing,
    /// The Service differs from the spec.
    ServiceDiffers,
    /// The spec has no Service any more.
    ServiceUnwanted,
}

/// A pod that its node can never give the wanted quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Infeasible {
    /// Its name.
    pub pod: String,
    /// What the kubelet says.
    pub message: String,
}

/// Why a share changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It stays.
    Stay,
    /// The workload is stopped or wants nothing.
    Stop,
    /// Its share of a change in the workload's count, in mid-rollout.
    Proportional,
    /// It follows the workload's count.
    Follow,
    /// The new revision grows into the room that the bounds leave.
    Surge,
    /// Unavailable replicas of an old revision go first.
    DropUnhealthy {
        /// How many.
        unhealthy: u32,
    },
    /// An old revision makes way, as far as enough replicas stay available.
    MakeWay,
    /// The new revision is complete, what is left of the old goes.
    Superseded,
}

/// The next size of one replica set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// `spec.replicas` to write.
    pub asked: u32,
    /// Why.
    pub why: Move,
}

/// What the plan waits for; a watch event or `requeue_at` brings it on.
#[derive(Clone, Debug, PartialEq)]
pub enum Wait {
    /// virt-controller has to see the pause.
    PauseSeen(SetReference),
    /// virt-controller has to see the deletions.
    DeletionsSeen(SetReference),
    /// Replacements are held back.
    CrashLoop {
        /// Which set.
        set: SetReference,
        /// Until when.
        until: Timestamp,
    },
    /// The replica set of the wanted revision is being deleted.
    SetDeleted {
        /// Its name.
        name: String,
    },
    /// The marks of the victims have to be seen.
    MarksSeen {
        /// Which set.
        set: SetReference,
        /// Until when that is waited for.
        until: Timestamp,
    },
    /// EndpointSlices and kube-proxies have to drop the victims.
    OutOfService {
        /// The name of the set.
        set: String,
        /// Until when it is waited for.
        until: Timestamp,
    },
    /// The usage of replicas has to come in before the least busy can be chosen.
    Usage {
        /// The name of the set.
        set: String,
        /// Until when it is waited for.
        until: Timestamp,
    },
    /// The ReplicaSet controller has to count the pods of a set that was changed.
    Counted {
        /// Its name.
        name: String,
    },
    /// Kubelets have to resize pods, and the node agents to be told.
    Resized {
        /// How many replicas.
        replicas: u32,
    },
    /// Replicas have to become available before the rollout goes on.
    Available {
        /// How many are.
        available: u32,
        /// How many are wanted.
        wanted: u32,
    },
    /// Replicas are not all frozen yet.
    Frozen {
        /// How many are not.
        replicas: u32,
    },
    /// The rollout is paused.
    Paused,
    /// KubeVirt has to be installed.
    KubeVirt,
    /// The API server has to list KubeVirt's kinds.
    KubeVirtListed,
}

impl Wait {
    /// When it is over at the latest, whatever happens.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        match self {
            Self::CrashLoop { until, .. }
            | Self::MarksSeen { until, .. }
            | Self::OutOfService { until, .. }
            | Self::Usage { until, .. } => Some(*until),
            Self::PauseSeen(_)
            | Self::DeletionsSeen(_)
            | Self::SetDeleted { .. }
            | Self::Counted { .. }
            | Self::Resized { .. }
            | Self::Available { .. }
            | Self::Frozen { .. }
            | Self::Paused
            | Self::KubeVirt
            | Self::KubeVirtListed => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstRevision => f.write_str("the first revision"),
            Self::NewRevision => f.write_str("the template changed"),
            Self::Infeasible(Infeasible { pod, message }) => {
                write!(f, "Pod {pod} cannot be resized where it runs ({message}), so a new revision brings the quota")
            }
            Self::Quota => f.write_str("the quota changed; nothing restarts"),
            Self::LowerBurst => f.write_str("the kernel refuses a limit below the burst, so the burst goes down first"),
            Self::Scale(why) => f.write_str(match why {
                Move::Stay => "nothing to do",
                Move::Stop => "no replicas are wanted",
                Move::Proportional => "its share of the changed count, in mid-rollout",
                Move::Follow => "the wanted count",
                Move::Surge => "the new revision takes the room that the bounds leave",
                Move::DropUnhealthy { .. } => "unavailable replicas of an old revision go first",
                Move::MakeWay => "an old revision makes way, enough others are available",
                Move::Superseded => "the new revision is complete",
            }),
            Self::Notes => f.write_str("what is noted on it is out of date"),
            Self::PauseToChoose { surplus } => {
                write!(f, "{surplus} too many; paused to choose which go, since left alone the set takes random ones")
            }
            Self::ChosenGone => f.write_str("what was to go is gone"),
            Self::PauseOver => f.write_str("nothing is left to choose"),
            Self::CrashPauseOver => f.write_str("the pause after the crashes is over"),
            Self::CrashesOver => f.write_str("no guest has ended for long enough"),
            Self::Victim { stage, victims } => f.write_str(match (stage, victims) {
                (Stage::Leaving | Stage::Pending | Stage::Scheduling, _) => "chosen to go: not yet started",
                (Stage::Started, _) => "chosen to go: not ready",
                (Stage::Ready(_), victims) => chosen(*victims),
            }),
            Self::Marked { victims } => f.write_str(chosen(*victims)),
            Self::Leaves => f.write_str("its guest is to go, and gets no more requests before it does"),
            Self::Stray => f.write_str("it has the workload's label and is none of its replicas"),
            Self::Spared => f.write_str("it is not to go any more"),
            Self::CrashLoop { rounds } => {
                write!(f, "guests end soon after their start (round {rounds}); replacing them is slowed down")
            }
            Self::History { limit } => write!(f, "only {limit} old revisions are kept"),
            Self::Freeze => f.write_str("spec.state is Frozen"),
            Self::Thaw => f.write_str("spec.state is not Frozen any more"),
            Self::ServiceMissing => f.write_str("the Service is missing"),
            Self::ServiceDiffers => f.write_str("the Service differs from the spec"),
            Self::ServiceUnwanted => f.write_str("the spec has no Service"),
        }
    }
}

fn chosen(victims: Victims) -> &'static str {
    match victims {
        Victims::Default => "chosen to go: the most recently ready",
        Victims::LeastBusy => "chosen to go: the least busy",
        Victims::Newest => "chosen to go: the newest",
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PauseSeen(set) => write!(f, "virt-controller has to see the pause of {}", set.name),
            Self::DeletionsSeen(set) => write!(f, "virt-controller has to see the deletions in {}", set.name),
            Self::CrashLoop { set, until } => write!(f, "replacements in {} are held back until {until}", set.name),
            Self::MarksSeen { set, until: _ } => write!(f, "the marks on the victims in {} have to be seen", set.name),
            Self::OutOfService { set, until } => {
                write!(f, "the Service has to drop the victims in {set}; waited for until {until}")
            }
            Self::Usage { set, until } => {
                write!(f, "node agents have to tell the usage of the replicas in {set}; waited for until {until}")
            }
            Self::Counted { name } => write!(f, "the ReplicaSet controller has to count the pods of {name}"),
            Self::SetDeleted { name } => write!(f, "{name} is being deleted"),
            Self::Resized { replicas } => write!(f, "{replicas} replicas do not have the changed quota yet"),
            Self::Available { available, wanted } => write!(f, "{available} of {wanted} replicas are available"),
            Self::Frozen { replicas } => write!(f, "{replicas} replicas have yet to be frozen"),
            Self::Paused => f.write_str("the rollout is paused"),
            Self::KubeVirt => f.write_str("KubeVirt is not installed"),
            Self::KubeVirtListed => f.write_str("the API server does not list KubeVirt's kinds"),
        }
    }
}
