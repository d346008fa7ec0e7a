//! What a workload that was deleted with `--cascade=orphan` leaves behind: replica sets and replicas that go on, and
//! that nobody may take over (docs/adr/0006, 0015).
//!
//! What node agents hold for them is set back, as it is when an agent goes: a quota is a workload's, and without one
//! nobody could edit it, or thaw a replica that is frozen. The quota that the kubelet holds stays; it is in the pods'
//! own spec.

use std::{collections::HashSet, sync::Arc};

use catamaran_plan::{SetReference, facts::SetFacts, objects};

use crate::{
    apply::{Failure, Writer},
    stores::{SetEntry, Stores, WorkloadKey},
};

/// Of a workload that is gone, or is being deleted, what has a quota for node agents and no owner.
struct Orphans {
    /// Their templates have it: replicas to come would be held to it as well.
    sets: Vec<SetFacts>,
    /// Name and uid of each.
    pods: Vec<(String, String)>,
}

impl Orphans {
    fn find(stores: &Stores, key: &WorkloadKey) -> Self {
        let is_orphan = |entry: &Arc<SetEntry>| entry.owner.is_none() && !entry.set.deleting;
        let all = [stores.replica_sets.children(key), stores.machine_sets.children(key)].into_iter().flatten();
        let sets: Vec<_> = all.filter(is_orphan).map(|entry| entry.set.clone()).collect();
        // The rule for a workload that takes everything along: each replica that goes would be a look at all that are
        // left.
        if sets.is_empty() {
            return Self { sets, pods: Vec::new() };
        }
        let owned =
            |owner: Option<&String>, owners: &HashSet<String>| owner.is_some_and(|owner| owners.contains(owner));
        let mut owners: HashSet<String> = sets.iter().map(|set| set.uid.clone()).collect();
        let mut instances = stores.instances.children(key);
        instances.retain(|entry| owned(entry.owner.as_ref(), &owners));
        owners.extend(instances.into_iter().map(|entry| entry.instance.uid.clone()));
        let held = stores
            .pods
            .index
            .children(key)
            .into_iter()
            .filter(|pod| pod.is_live() && pod.quota.annotation.is_some() && owned(pod.owner.as_ref(), &owners));
        Self {
            pods: held.map(|pod| (pod.pod.name.clone(), pod.uid.clone())).collect(),
            sets: sets.into_iter().filter(|set| set.quota.annotation.is_some()).collect(),
        }
    }
}

/// Takes the quota for node agents off everything that a workload left behind. Does nothing where it left nothing, or
/// had none.
///
/// # Errors
/// See [`Failure`]: what is left is found again by the next call.
pub async fn release(stores: &Stores, writer: &Writer, key: &WorkloadKey) -> Result<(), Failure> {
    let Orphans { sets, pods } = Orphans::find(stores, key);
    for set in &sets {
        tracing::info!(namespace = key.namespace, name = key.name, set = set.name, "an orphan is released");
        writer.patch_set(&key.namespace, &SetReference::new(set), objects::unheld_template_patch(set)).await?;
    }
    for (name, uid) in &pods {
        tracing::info!(namespace = key.namespace, name = key.name, pod = name, "an orphan is released");
        writer.annotate_pod(&key.namespace, name, &objects::node_quota_patch(uid, None)).await?;
    }
    Ok(())
}
