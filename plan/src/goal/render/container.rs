//! The container hull: a pod template.

use catamaran_crds::{ContainerHull, Placement};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use super::{Rendered, ReplicaMarks, replica_metadata, set_twice, spread_constraints};
use crate::goal::{InPlace, Invalid, node_settings::NodeSettings, quota::Quota, revision::Template};

/// The name of the container of the short form.
const MAIN_CONTAINER: &str = "main";

/// The annotation that tells kubectl which container is meant; the quota follows it.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Renders the container hull, without the revision label.
///
/// # Errors
/// When the template and another part of the spec say different things.
pub fn container(
    marks: &ReplicaMarks<'_>,
    hull: &ContainerHull,
    quota: Quota,
    knobs: &NodeSettings,
    placement: &Placement,
) -> Result<Rendered, Invalid> {
    let template = match (&hull.image, &hull.template) {
        (Some(image), None) => short_form(image, hull),
        (None, Some(template)) => (**template).clone(),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Invalid::field("spec.container", "set exactly one of image and template"));
        }
    };
    let user = template.metadata.unwrap_or_default();
    let (labels, annotations) = (user.labels.unwrap_or_default(), user.annotations.unwrap_or_default());
    let default_container = annotations.get(DEFAULT_CONTAINER).cloned();
    let mut spec = template.spec.unwrap_or_default();
    let name = apply_quota(&mut spec, default_container.as_deref(), quota)?;
    apply_placement(&mut spec, placement, marks.workload)?;
    let node_quota = knobs.for_container(&name)?;
    let metadata = Some(replica_metadata(marks, "container", labels, annotations, node_quota.as_ref())?);
    let template = PodTemplateSpec { metadata, spec: Some(spec) };
    let in_place = InPlace::of_pod(&template, &name, quota, node_quota);
    Ok(Rendered { template: Template::Container(Box::new(template)), in_place })
}

fn short_form(image: &str, hull: &ContainerHull) -> PodTemplateSpec {
    // Exhaustive, so that a new field of the short form fails to compile until it is honoured here.
    let ContainerHull {
        image: _,
        image_pull_policy,
        command,
        args,
        working_dir,
        ports,
        env,
        env_from,
        readiness_probe,
        liveness_probe,
        startup_probe,
        lifecycle,
        security_context,
        template: _,
    } = hull.clone();
    let container = Container {
        name: MAIN_CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy,
        command: non_empty(command),
        args: non_empty(args),
        working_dir,
        ports: non_empty(ports),
        env: non_empty(env),
        env_from: non_empty(env_from),
        readiness_probe: readiness_probe.map(|boxed| *boxed),
        liveness_probe: liveness_probe.map(|boxed| *boxed),
        startup_probe: startup_probe.map(|boxed| *boxed),
        lifecycle: lifecycle.map(|boxed| *boxed),
        security_context: security_context.map(|boxed| *boxed),
        ..Container::default()
    };
    PodTemplateSpec { metadata: None, spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }) }
}

/// Gives the quota to its container, and returns the container's name.
fn apply_quota(spec: &mut PodSpec, default_container: Option<&str>, quota: Quota) -> Result<String, Invalid> {
    let index = match default_container {
        None => 0,
        Some(name) => spec.containers.iter().position(|container| container.name == name).ok_or_else(|| {
            Invalid::field(
                "spec.container.template.metadata.annotations",
                format!("{DEFAULT_CONTAINER} names {name:?}, which is no container of the template"),
            )
        })?,
    };
    let Some(container) = spec.containers.get_mut(index) else {
        return Err(Invalid::field("spec.container.template.spec.containers", "needs at least one container"));
    };
    let name = container.name.clone();
    let Some(resources) = quota.container_resources() else { return Ok(name) };
    if container.resources.as_ref().is_some_and(|own| own.limits.is_some() || own.requests.is_some()) {
        return Err(Invalid::field(
            &format!("spec.container.template.spec.containers[{index}].resources"),
            "the quota of this container comes from spec.quota or spec.className; leave one of the two out",
        ));
    }
    let own = container.resources.take().unwrap_or_default();
    container.resources = Some(k8s_openapi::api::core::v1::ResourceRequirements { claims: own.claims, ..resources });
    Ok(name)
}

fn apply_placement(spec: &mut PodSpec, placement: &Placement, workload: &str) -> Result<(), Invalid> {
    let Placement { node_selector, affinity, tolerations, topology_spread_constraints: _, priority_class_name } =
        placement.clone();
    fill(&mut spec.node_selector, (!node_selector.is_empty()).then_some(node_selector), "nodeSelector")?;
    fill(&mut spec.affinity, affinity, "affinity")?;
    fill(&mut spec.tolerations, non_empty(tolerations), "tolerations")?;
    let constraints = non_empty(spread_constraints(placement, workload));
    fill(&mut spec.topology_spread_constraints, constraints, "topologySpreadConstraints")?;
    fill(&mut spec.priority_class_name, priority_class_name.filter(|name| !name.is_empty()), "priorityClassName")
}

fn fill<T>(field: &mut Option<T>, value: Option<T>, name: &str) -> Result<(), Invalid> {
    match (&field, value) {
        (_, None) => Ok(()),
        (Some(_), Some(_)) => Err(set_twice("container", name)),
        (None, value) => {
            *field = value;
            Ok(())
        }
    }
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
