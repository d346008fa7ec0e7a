//! Which pods there are.

use std::{collections::BTreeSet, sync::Arc};

use catamaran_plan::quantity;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};

use super::{
    simulator::Shared,
    world::{SeenPod, WorkloadId},
};

/// The container of a launcher pod that runs the guest.
const COMPUTE: &str = "compute";

/// Keeps the world's pods as the API server shows them. `label` names the workload of a pod.
pub(super) async fn watch(client: Client, label: String, shared: Arc<Shared>) {
    let config = watcher::Config::default().labels(&label);
    let mut events = watcher(Api::<Pod>::all(client), config).default_backoff().boxed();
    let mut listed: Option<BTreeSet<String>> = None;
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed = Some(BTreeSet::new()),
            Ok(Some(Event::InitApply(pod))) => {
                if let Some(listed) = &mut listed {
                    listed.extend(pod.uid());
                }
                shared.change(|world, now| apply(world, &pod, &label, now));
            }
            Ok(Some(Event::InitDone)) => {
                let listed = listed.take().unwrap_or_default();
                shared.change(|world, now| {
                    for uid in world.uids().difference(&listed) {
                        world.remove(uid, now);
                    }
                });
            }
            Ok(Some(Event::Apply(pod))) => shared.change(|world, now| apply(world, &pod, &label, now)),
            Ok(Some(Event::Delete(pod))) => {
                shared.change(|world, now| world.remove(&pod.uid().unwrap_or_default(), now));
            }
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, "the watch of pods goes on"),
        }
    }
}

fn apply(world: &mut super::world::World, pod: &Pod, label: &str, now: std::time::Duration) {
    match seen(pod, label) {
        Some(seen) => world.see(seen, now),
        // Not started yet, or ended: an agent has nothing to read.
        None => world.remove(&pod.uid().unwrap_or_default(), now),
    }
}

/// A pod that runs.
fn seen(pod: &Pod, label: &str) -> Option<SeenPod> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    let ready = pod.metadata.deletion_timestamp.is_none()
        && status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let restarts = |name: &str| {
        let of = status.container_statuses.iter().flatten().find(|container| container.name == name);
        of.map_or(0, |container| container.restart_count)
    };
    let main = spec.containers.iter().position(|container| container.name == COMPUTE).unwrap_or(0);
    let limits = spec.containers.get(main).and_then(|container| container.resources.as_ref()?.limits.as_ref());
    let limit = limits.and_then(|limits| quantity::millicores(limits.get("cpu")?).ok());
    Some(SeenPod {
        workload: WorkloadId { namespace: pod.namespace()?, name: pod.labels().get(label)?.clone() },
        name: pod.name_any(),
        uid: pod.uid()?,
        node: spec.node_name.clone()?,
        ready,
        containers: spec
            .containers
            .iter()
            .map(|container| (container.name.clone(), restarts(&container.name)))
            .collect(),
        main,
        limit: limit.map(|millicores| millicores as f64 / 1000.0),
    })
}
