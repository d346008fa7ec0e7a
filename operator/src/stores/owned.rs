//! Which pods a workload owns. A label says whose a pod would like to be; its owner says whose it is.

use std::sync::Arc;

use super::{Index, InstanceEntry, PodEntry, SetEntry, Stores, WorkloadKey};
use catamaran_plan::facts::Stray;

impl Stores {
    /// The pods of a workload of this uid: those of its own replica sets, and the launcher pods of their instances. A
    /// pod that somebody else made with its label is none, nor is one that was taken out by its labels. Without a uid,
    /// as the workload is gone, its sets go on as its own.
    #[must_use]
    pub fn own_pods(&self, key: &WorkloadKey, workload: Option<&str>) -> Vec<Arc<PodEntry>> {
        let sets = self.own_sets(key, workload);
        let mut pods = self.pods.index.children(key);
        pods.retain(|pod| is_of(&sets, &self.instances, pod));
        pods
    }

    /// Whether a workload of this uid owns a pod.
    #[must_use]
    pub fn owns(&self, key: &WorkloadKey, workload: Option<&str>, pod: &PodEntry) -> bool {
        is_of(&self.own_sets(key, workload), &self.instances, pod)
    }

    /// The pods with a workload's label that are none of its replicas, and would get their traffic.
    #[must_use]
    pub fn strays(&self, key: &WorkloadKey) -> Vec<Stray> {
        let pods = self.pods.index.children(key);
        let mut strays: Vec<_> = pods.iter().filter_map(|pod| stray(&self.instances, pod)).collect();
        strays.sort_by(|a, b| a.pod.cmp(&b.pod));
        strays
    }

    fn own_sets(&self, key: &WorkloadKey, workload: Option<&str>) -> Vec<Arc<SetEntry>> {
        let mut sets = self.replica_sets.children(key);
        sets.extend(self.machine_sets.children(key));
        sets.retain(|set| workload.is_none() || set.owner.as_deref() == workload);
        sets
    }
}

fn is_of(sets: &[Arc<SetEntry>], instances: &Index<InstanceEntry>, pod: &PodEntry) -> bool {
    let Some(owner) = &pod.owner else { return false };
    let is_set = |uid: &String| sets.iter().any(|set| set.set.uid == *uid);
    match &pod.instance {
        None => is_set(owner),
        Some(_) => instances.by_uid(owner).is_some_and(|instance| instance.owner.as_ref().is_some_and(is_set)),
    }
}

/// A pod that nobody controls, or the launcher pod of an instance that nobody controls. What another controller makes
/// is its own affair.
fn stray(instances: &Index<InstanceEntry>, pod: &PodEntry) -> Option<Stray> {
    let is_stray = match &pod.owner {
        None => true,
        // One that is ready is older than any delay between two watches.
        Some(owner) => {
            pod.instance.is_some()
                && pod.ready_since().is_some()
                && instances.by_uid(owner).is_none_or(|instance| instance.owner.is_none())
        }
    };
    let revision = pod.released.as_deref().filter(|revision| !revision.is_empty()).map(str::to_owned);
    (is_stray && pod.is_live() && pod.leaving.is_none()).then(|| Stray {
        pod: pod.pod.name.clone(),
        uid: pod.uid.clone(),
        revision,
    })
}

#[cfg(test)]
mod tests {
    use catamaran_crds::kubevirt::VirtualMachineInstance;
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    /// An object named and identified by `name`, of an owner.
    fn object<T: DeserializeOwned>(name: &str, owner: Option<&str>, labels: Value, rest: Value) -> T {
        let owners =
            owner.map(|uid| json!([{"apiVersion": "v1", "kind": "O", "name": uid, "uid": uid, "controller": true}]));
        let mut object = json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1",
            "labels": labels, "ownerReferences": owners}});
        object.as_object_mut().expect("an object").extend(rest.as_object().cloned().unwrap_or_default());
        serde_json::from_value(object).expect("an object")
    }

    fn set(name: &str) -> Arc<SetEntry> {
        Arc::new(SetEntry::from(&object::<ReplicaSet>(name, Some("web"), json!({}), json!({}))))
    }

    fn instances() -> Index<InstanceEntry> {
        let index = Index::default();
        let labels = json!({"catamaran.dev/workload": "web"});
        for (name, owner) in [("vmi-1", Some("vms")), ("vmi-2", None), ("vmi-3", Some("other"))] {
            let spec = json!({"spec": {"domain": {}}});
            let instance: VirtualMachineInstance = object(name, owner, labels.clone(), spec);
            index.apply(&instance.metadata, InstanceEntry::from(&instance));
        }
        index
    }

    fn pod(owner: Option<&str>, instance: bool, label: &str, revision: Option<&str>) -> PodEntry {
        let mut labels = json!({"catamaran.dev/workload": label, "catamaran.dev/revision": revision});
        if instance {
            (labels["kubevirt.io"], labels["vm.kubevirt.io/name"]) = (json!("virt-launcher"), json!("vmi"));
        }
        if revision.is_none() {
            labels.as_object_mut().expect("labels").remove("catamaran.dev/revision");
        }
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-02T10:00:00Z"});
        let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
        PodEntry::from(&object::<Pod>("pod", owner, labels, status))
    }

    #[test]
    fn a_pod_is_of_the_workload_whose_set_controls_it() {
        let (sets, instances) = ([set("rs"), set("vms")], instances());
        for (what, owner, instance, own, is_stray) in [
            ("a replica", Some("rs"), false, true, false),
            ("of a set that is not the workload's", Some("other"), false, false, false),
            ("nobody's", None, false, false, true),
            ("a guest", Some("vmi-1"), true, true, false),
            ("a guest that was taken out", Some("vmi-2"), true, false, true),
            ("somebody else's guest", Some("vmi-3"), true, false, false),
            ("a guest whose label was taken off", Some("vmi-4"), true, false, true),
        ] {
            let pod = pod(owner, instance, "web", None);
            assert_eq!(is_of(&sets, &instances, &pod), own, "{what}");
            assert_eq!(stray(&instances, &pod).is_some(), is_stray, "{what}");
        }
    }

    #[test]
    fn a_stray_is_told_with_its_revision_until_it_is_out() {
        let found = |label: &str, revision: Option<&str>| stray(&instances(), &pod(None, false, label, revision));
        assert_eq!(found("web", Some("abc")).map(|stray| stray.revision), Some(Some("abc".to_owned())));
        assert_eq!(found("web", None).map(|stray| stray.revision), Some(None));
        assert_eq!(found("web_1795000000", None), None);
    }
}
