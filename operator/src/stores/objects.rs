//! What is read alike of objects of several kinds.

use catamaran_plan::goal::quota::Quota;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::ResourceExt;

/// The container of a launcher pod that runs the guest (KubeVirt).
pub const GUEST_CONTAINER: &str = "compute";
/// The label that launcher pods carry, with [`LAUNCHER`] (KubeVirt).
const LAUNCHER_LABEL: &str = "kubevirt.io";
const LAUNCHER: &str = "virt-launcher";

/// The uid of the controlling owner.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<String> {
    let owners = meta.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

/// Whether a pod is the launcher pod of a VirtualMachineInstance.
pub(super) fn is_launcher(pod: &core::Pod) -> bool {
    pod.labels().get(LAUNCHER_LABEL).is_some_and(|value| value == LAUNCHER)
}

/// The quota of a container by its name.
pub(super) fn container_quota(container: &core::Container) -> (String, Quota) {
    (container.name.clone(), container.resources.as_ref().map(Quota::of_container).unwrap_or_default())
}

/// What is reported of a container, if it runs.
pub(super) fn running<'a>(status: &'a core::PodStatus, container: &str) -> Option<&'a core::ContainerStatus> {
    let found = status.container_statuses.iter().flatten().find(|status| status.name == container);
    found.filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}
