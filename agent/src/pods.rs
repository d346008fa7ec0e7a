//! What the agent keeps of a pod.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use catamaran_crds::names::{NODE_QUOTA_ANNOTATION, WORKLOAD_LABEL};
use catamaran_protocol::node_quota::{NodeQuota, fingerprint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::Object;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::layout::{ContainerId, Uid};

/// Marks a pod whose kubelet read it from a file: its cgroup has another uid than the object.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The object, with the fields that are used; the others are not kept in memory.
pub type PodObject = Object<Spec, Status>;

/// spec
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// spec.containers
    #[serde(default)]
    pub containers: Vec<SpecContainer>,
    /// spec.initContainers
    #[serde(default)]
    pub init_containers: Vec<SpecContainer>,
}

/// spec.containers\[\]
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct SpecContainer {
    /// name
    pub name: String,
    /// resources
    #[serde(default)]
    pub resources: Resources,
}

/// spec.containers\[\].resources
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Resources {
    /// limits
    #[serde(default)]
    pub limits: BTreeMap<String, Quantity>,
}

/// status
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// status.containerStatuses
    #[serde(default)]
    pub container_statuses: Vec<ContainerStatus>,
    /// status.initContainerStatuses
    #[serde(default)]
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// status.containerStatuses\[\]
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// name
    pub name: String,
    /// containerID, such as `containerd://0123abc`
    #[serde(default, rename = "containerID")]
    pub container_id: String,
    /// state
    #[serde(default)]
    pub state: State,
}

/// status.containerStatuses\[\].state
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// running
    pub running: Option<Running>,
}

/// status.containerStatuses\[\].state.running
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Running {}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// metadata.namespace
    pub namespace: Box<str>,
    /// metadata.name
    pub name: Box<str>,
    /// metadata.uid
    pub uid: Uid,
    /// It is being deleted.
    pub terminating: bool,
    /// Those that run.
    pub containers: Vec<Container>,
    /// The quota annotation.
    pub annotation: Option<Annotation>,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name in the pod.
    pub name: Box<str>,
    /// The runtime's id.
    pub id: ContainerId,
    /// The CPU limit that the spec asks for, in millicores.
    pub cpu_limit_millicores: Option<u64>,
}

/// A quota annotation.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Of its text.
    pub fingerprint: u64,
    /// What it asks for, or why it is refused.
    pub quota: Result<NodeQuota, Box<str>>,
}

impl Pod {
    /// What is kept of an object; `None` for a mirror pod, and for one with names that are none.
    #[must_use]
    pub fn from_object(object: &PodObject) -> Option<Self> {
        let metadata = &object.metadata;
        let annotations = metadata.annotations.as_ref();
        if annotations.is_some_and(|annotations| annotations.contains_key(MIRROR_ANNOTATION)) {
            return None;
        }
        let labelled = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(WORKLOAD_LABEL));
        let text = annotations.and_then(|annotations| annotations.get(NODE_QUOTA_ANNOTATION));
        let containers = object.status.iter().flat_map(|status| {
            let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
            statuses.filter(|status| status.state.running.is_some()).filter_map(|status| {
                Some(Container {
                    name: status.name.as_str().into(),
                    id: ContainerId::from_status(&status.container_id)?,
                    cpu_limit_millicores: cpu_limit(&object.spec, &status.name),
                })
            })
        });
        Some(Self {
            namespace: metadata.namespace.as_deref()?.into(),
            name: metadata.name.as_deref()?.into(),
            uid: Uid::new(metadata.uid.as_deref()?)?,
            terminating: metadata.deletion_timestamp.is_some(),
            containers: containers.collect(),
            annotation: text.map(|text| Annotation::parse(text, labelled)),
        })
    }
}

impl Annotation {
    fn parse(text: &str, labelled: bool) -> Self {
        let quota = match labelled {
            true => NodeQuota::parse(text).map_err(|error| error.to_string().into()),
            false => Err(format!("the pod has no label {WORKLOAD_LABEL}").into()),
        };
        Self { fingerprint: fingerprint(text), quota }
    }
}

fn cpu_limit(spec: &Spec, container: &str) -> Option<u64> {
    let mut containers = spec.containers.iter().chain(&spec.init_containers);
    let limit = containers.find(|found| found.name == container)?.resources.limits.get("cpu")?;
    catamaran_plan::quantity::millicores(limit).ok()
}

/// The pods of this node, shared by all who look at them.
#[derive(Clone, Debug, Default)]
pub struct Pods(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pods: Mutex<BTreeMap<Box<str>, Arc<Pod>>>,
    /// Kept until somebody waits for it.
    edited: Notify,
}

impl Pods {
    /// A pod as it is now.
    pub fn set(&self, pod: Pod) {
        let mut pods = self.lock();
        let known = pods.get(pod.uid.as_str());
        // An equal pod stays the same one, so that whoever looks at it sees at once that nothing changed.
        if known.is_some_and(|known| **known == pod) {
            return;
        }
        if pod.annotation.is_some() || known.is_some_and(|known| known.annotation.is_some()) {
            self.0.edited.notify_one();
        }
        pods.insert(pod.uid.as_str().into(), Arc::new(pod));
    }

    /// Waits until a pod with a quota is another one: its quota or its CPU limit was edited, or a container of it was
    /// started.
    pub async fn edited(&self) {
        self.0.edited.notified().await;
    }

    /// A pod is gone.
    pub fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Only these are left.
    pub fn keep(&self, uids: &std::collections::HashSet<Box<str>>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, uid: &Uid) -> Option<Arc<Pod>> {
        self.lock().get(uid.as_str()).cloned()
    }

    /// All of them now, by uid.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Arc<Pod>>> {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
