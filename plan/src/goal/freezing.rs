//! Which templates can be frozen, and the annotation by which node agents freeze.

use catamaran_protocol::node_quota::NodeQuota;

use crate::goal::{Invalid, revision::Template};

/// The probe by which the kubelet would kill frozen replicas: its path in the template.
#[must_use]
pub fn killing_probe(template: &Template) -> Option<String> {
    match template {
        Template::Container(pod) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let containers = spec.containers.iter().chain(sidecars);
            containers.into_iter().find_map(|container| {
                let probe = match (&container.liveness_probe, &container.startup_probe) {
                    (Some(_), _) => "livenessProbe",
                    (None, Some(_)) => "startupProbe",
                    (None, None) => return None,
                };
                Some(format!("the {probe} of container {}", container.name))
            })
        }
        Template::VirtualMachine(machine) => {
            machine.spec.contains_key("livenessProbe").then(|| "the livenessProbe".to_owned())
        }
    }
}

/// Refuses a template that cannot be frozen.
///
/// # Errors
/// When it has a liveness or startup probe.
pub(crate) fn check(template: &Template) -> Result<(), Invalid> {
    match killing_probe(template) {
        None => Ok(()),
        Some(probe) => Err(Invalid::field(
            "spec.state",
            format!(
                "Frozen is not possible with {probe}: it would fail, and what is found frozen be killed; take the probe out, or use Stopped"
            ),
        )),
    }
}

/// The annotation that freezes as well, where the one that is there does not. One that cannot be read is replaced.
pub(crate) fn frozen_text(annotation: Option<&str>, container: &str) -> Option<String> {
    match annotation.and_then(|text| NodeQuota::parse(text).ok()) {
        Some(quota) if quota.frozen => None,
        Some(quota) => Some(NodeQuota { frozen: true, ..quota }.to_annotation()),
        None => Some(only_frozen(container).to_annotation()),
    }
}

/// The annotation that freezes no more, where the one that is there does: none when nothing else is in it.
pub(crate) fn thawed_text(annotation: Option<&str>) -> Option<Option<String>> {
    let quota = NodeQuota::parse(annotation?).ok().filter(|quota| quota.frozen)?;
    let alone = quota == only_frozen(&quota.container);
    Some((!alone).then(|| NodeQuota { frozen: false, ..quota }.to_annotation()))
}

fn only_frozen(container: &str) -> NodeQuota {
    NodeQuota { container: container.to_owned(), frozen: true, ..NodeQuota::default() }
}
