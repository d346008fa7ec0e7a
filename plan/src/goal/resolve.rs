//! What the user wants, resolved: an [`ElasticWorkload`] and its class become a [`Goal`], which cannot hold a wrong
//! one.

use std::sync::Arc;

use catamaran_crds::{ElasticWorkload, Hull, ServicePort, State, WorkloadClass};
use jiff::Timestamp;

use crate::goal::{
    InPlace, Invalid, RolloutPolicy, freezing,
    node_settings::NodeSettings,
    quota::Quota,
    render::{self, Rendered, ReplicaMarks},
    restart::restarted_at,
    revision::Template,
    scaling,
};
use catamaran_autoscale::{
    Policy,
    policy::{Mode, Settings},
    victims::Victims,
};

/// What the user wants, resolved and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The name of the workload.
    pub name: String,
    /// Its namespace; everything that is written lives there.
    pub namespace: String,
    /// Its uid, the owner of everything that is written.
    pub uid: String,
    /// The generation of the spec that this was made from.
    pub generation: i64,
    /// How many replicas the spec asks for, if it says so.
    pub replicas: Option<u32>,
    /// Whether the user stopped the workload.
    pub state: State,
    /// The name of the wanted revision. A plan takes another one where a replica set can become like the template in
    /// place.
    pub revision: String,
    /// When a restart was last asked for.
    pub restarted_at: Option<Timestamp>,
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

impl Goal {
    /// The name of the replica set of a revision.
    #[must_use]
    pub fn set_name(&self, revision: &str) -> String {
        format!("{}-{revision}", self.name)
    }

    /// What becomes of decisions on the count, with `spec.scaling`.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.scaling.as_ref().map(|policy| policy.mode)
    }

    /// What replicas of the wanted revision are.
    #[must_use]
    pub fn hull(&self) -> Hull {
        self.template.hull()
    }
}

/// Resolves a workload: with its class where it names one, into templates and numbers.
///
/// `class` is what the name in `spec.className` leads to, if anything does.
///
/// # Errors
/// When the spec asks for what cannot be done; the schema and its CEL rules catch most of that before it is stored.
pub fn resolve(workload: &ElasticWorkload, class: Option<&WorkloadClass>) -> Result<Goal, Invalid> {
    let spec = &workload.spec;
    let class = match (&spec.class_name, class) {
        (None, _) => None,
        (Some(_), Some(class)) => Some(&class.spec),
        (Some(name), None) => return Err(Invalid::ClassNotFound(name.clone())),
    };
    let metadata = &workload.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let quota = Quota::resolve(spec.quota.as_ref(), class)?;
    let knobs = NodeSettings::resolve(spec.quota.as_ref(), class, quota)?;
    let placement = spec.placement.clone().unwrap_or_default();
    let restarted_at = restarted_at(workload)?;
    let marks = ReplicaMarks { workload: &name, restarted_at };
    let Rendered { template, in_place } = match (&spec.container, &spec.virtual_machine) {
        (Some(container), None) => render::container(&marks, container, quota, &knobs, &placement)?,
        (None, Some(machine)) => render::virtual_machine(&marks, machine, quota, &knobs, &placement)?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(Invalid::field("spec", "set exactly one of container and virtualMachine"));
        }
    };
    let state = spec.state.unwrap_or_default();
    if state == State::Frozen {
        freezing::check(&template)?;
    }
    let replicas = spec.replicas.map(u32::try_from).transpose();
    let replicas = replicas.map_err(|_| Invalid::field("spec.replicas", "must not be negative"))?;
    let revision = template.revision();
    Ok(Goal {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        replicas,
        state,
        restarted_at,
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
