//! What the user wants, resolved: an [`ElasticWorkload`] and its class become a [`Desired`], which cannot hold a wrong one.

use std::sync::Arc;

use catamaran_crds::{ElasticWorkload, Hull, OnFailure, ServicePort, State, WorkloadClass};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    frozen,
    in_place::InPlace,
    knobs::Knobs,
    quota::Quota,
    render::{self, Rendered},
    revision::Template,
    scaling,
};
use catamaran_autoscale::{
    Decision, Policy,
    policy::{Mode, Settings},
    victims::Victims,
};

/// What the user wants, resolved and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The name of the workload.
    pub name: String,
    /// Its namespace; everything that is written lives there.
    pub namespace: String,
    /// Its uid, the owner of everything that is written.
    pub uid: String,
    /// The generation of the spec that this was made from.
    pub generation: i64,
    /// How many replicas are wanted; 0 when stopped.
    pub replicas: u32,
    /// Whether the user stopped the workload.
    pub state: State,
    /// The name of the wanted revision. A plan takes another one where a replica set can become like the template in place.
    pub revision: String,
    /// What its replicas are made from.
    pub template: Template,
    /// What of the template can change in place.
    pub in_place: InPlace,
    /// How it replaces the one before.
    pub rollout: RolloutPolicy,
    /// How the count follows load and time, with `spec.scaling`.
    pub scaling: Option<Arc<Policy>>,
    /// Which replicas go first.
    pub victims: Victims,
    /// The ports of the Service; empty when there is none.
    pub service_ports: Vec<ServicePort>,
}

impl Desired {
    /// The name of the replica set of a revision.
    #[must_use]
    pub fn set_name(&self, revision: &str) -> String {
        format!("{}-{revision}", self.name)
    }

    /// Whether the count is the autoscaler's affair now.
    #[must_use]
    pub fn is_scaled(&self) -> bool {
        self.state == State::Running && self.scaling.as_ref().is_some_and(|policy| policy.mode == Mode::Auto)
    }

    /// With the count that was decided, where that is carried out.
    #[must_use]
    pub fn decided(self, decision: &Decision) -> Self {
        let to = u32::try_from(decision.to).unwrap_or(0);
        Self { replicas: if self.is_scaled() { to } else { self.replicas }, ..self }
    }

    /// What replicas of the wanted revision are.
    #[must_use]
    pub fn hull(&self) -> Hull {
        self.template.hull()
    }
}

/// How a new revision replaces the old one, with the defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutPolicy {
    max_surge: IntOrString,
    max_unavailable: IntOrString,
    /// How long a replica has to be ready before it counts as available, in seconds.
    pub min_ready_seconds: u32,
    /// After how many seconds without progress a rollout has failed.
    pub progress_deadline_seconds: u32,
    /// How many old revisions without replicas are kept.
    pub revision_history_limit: usize,
    /// Whether the rollout is paused.
    pub paused: bool,
    /// What happens when the deadline passes.
    pub on_failure: OnFailure,
}

/// The bounds of a rollout, in replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least so many replicas stay available.
    pub min_available: u32,
    /// At most so many replicas exist.
    pub max_total: u32,
}

impl RolloutPolicy {
    /// The bounds for a count of replicas. A surge is rounded up and an unavailability down; when both come out as 0 one replica
    /// may be unavailable, or nothing could ever change (`ResolveFenceposts` of the Deployment controller).
    #[must_use]
    pub fn bounds(&self, replicas: u32) -> Bounds {
        let surge = resolve_count(&self.max_surge, replicas, Rounding::Up);
        let unavailable = match resolve_count(&self.max_unavailable, replicas, Rounding::Down) {
            0 if surge == 0 => 1,
            unavailable => unavailable,
        };
        Bounds { min_available: replicas.saturating_sub(unavailable), max_total: replicas.saturating_add(surge) }
    }
}

impl From<&catamaran_crds::Rollout> for RolloutPolicy {
    fn from(rollout: &catamaran_crds::Rollout) -> Self {
        let quarter = || IntOrString::String("25%".to_owned());
        let seconds =
            |value: Option<i32>, default: u32| value.map_or(default, |value| u32::try_from(value).unwrap_or(0));
        Self {
            max_surge: rollout.max_surge.clone().unwrap_or_else(quarter),
            max_unavailable: rollout.max_unavailable.clone().unwrap_or_else(quarter),
            min_ready_seconds: seconds(rollout.min_ready_seconds, 0),
            progress_deadline_seconds: seconds(rollout.progress_deadline_seconds, 600),
            revision_history_limit: rollout
                .revision_history_limit
                .map_or(10, |limit| usize::try_from(limit).unwrap_or(0)),
            paused: rollout.paused.unwrap_or(false),
            on_failure: rollout.on_failure.unwrap_or_default(),
        }
    }
}

enum Rounding {
    Up,
    Down,
}

/// A count, or a percentage of `replicas`; the schema admits nothing else, so anything else is 0.
fn resolve_count(value: &IntOrString, replicas: u32, rounding: Rounding) -> u32 {
    match value {
        IntOrString::Int(count) => u32::try_from(*count).unwrap_or(0),
        IntOrString::String(text) => {
            let percent: u64 = text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0);
            let hundredfold = percent * u64::from(replicas);
            let count = match rounding {
                Rounding::Up => hundredfold.div_ceil(100),
                Rounding::Down => hundredfold / 100,
            };
            u32::try_from(count).unwrap_or(u32::MAX)
        }
    }
}

/// Why an ElasticWorkload cannot be run as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A field holds what cannot be done; the text says which and what to do.
    #[error("{field}: {message}")]
    Field {
        /// The path of the field.
        field: String,
        /// What is wrong and the way out.
        message: String,
    },
    /// The class does not exist (yet).
    #[error("spec.className: WorkloadClass {0:?} does not exist; create it, or name another")]
    ClassNotFound(String),
    /// The object is stored in a form that this version cannot read.
    #[error("the object cannot be read: {0}; correct the field and apply it again")]
    Unreadable(String),
}

impl Invalid {
    /// A wrong field.
    #[must_use]
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), message: message.into() }
    }

    /// The reason of the condition Stalled.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } | Self::Unreadable(_) => "InvalidSpec",
            Self::ClassNotFound(_) => "WorkloadClassNotFound",
        }
    }
}

/// Resolves a workload: with its class where it names one, into templates and numbers.
///
/// `class` is what the name in `spec.className` leads to, if anything does.
///
/// # Errors
/// When the spec asks for what cannot be done; the schema and its CEL rules catch most of that before it is stored.
pub fn resolve(workload: &ElasticWorkload, class: Option<&WorkloadClass>) -> Result<Desired, Invalid> {
    let spec = &workload.spec;
    let class = match (&spec.class_name, class) {
        (None, _) => None,
        (Some(_), Some(class)) => Some(&class.spec),
        (Some(name), None) => return Err(Invalid::ClassNotFound(name.clone())),
    };
    let metadata = &workload.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let quota = Quota::resolve(spec.quota.as_ref(), class)?;
    let knobs = Knobs::resolve(spec.quota.as_ref(), class, quota)?;
    let placement = spec.placement.clone().unwrap_or_default();
    let Rendered { template, in_place } = match (&spec.container, &spec.virtual_machine) {
        (Some(container), None) => render::container(&name, container, quota, &knobs, &placement)?,
        (None, Some(machine)) => render::virtual_machine(&name, machine, quota, &knobs, &placement)?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(Invalid::field("spec", "set exactly one of container and virtualMachine"));
        }
    };
    let state = spec.state.unwrap_or_default();
    if state == State::Frozen {
        frozen::check(&template)?;
    }
    let wanted = u32::try_from(spec.replicas.unwrap_or(1))
        .map_err(|_| Invalid::field("spec.replicas", "must not be negative"))?;
    let revision = template.revision();
    Ok(Desired {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        replicas: match state {
            State::Running | State::Frozen => wanted,
            State::Stopped => 0,
        },
        state,
        template: render::with_revision(template, &revision),
        revision,
        in_place,
        scaling: spec
            .scaling
            .as_ref()
            .map(|scaling| scaling::resolve(scaling, Settings::default()).map(Arc::new))
            .transpose()?,
        victims: scaling::victims(spec.scaling.as_ref()),
        rollout: RolloutPolicy::from(&spec.rollout.clone().unwrap_or_default()),
        service_ports: spec.service.as_ref().map(|service| service.ports.clone()).unwrap_or_default(),
        name,
    })
}
