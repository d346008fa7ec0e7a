//! Carries out a plan's actions. The only code that writes workload objects; it decides nothing.

use std::fmt::Debug;

use catamaran_crds::{
    ElasticWorkload, ElasticWorkloadStatus, Hull,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet},
    names::FIELD_MANAGER,
};
use catamaran_plan::{
    Action, Goal, Problem, SetReference,
    facts::RefusedResize,
    objects::{self, SetObject},
    plan::set_kind,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, Service},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    metrics::{Metrics, Verb},
    stores::{Index, InstanceEntry, SetEntry, Stores, controller},
};

/// What the API server says of a resize that the pod's node can never do (admission of pods/resize, seen in Kubernetes 1.36).
/// Other refusals, as of a ResourceQuota, would meet new pods as well.
const NEVER_ENOUGH: &str = "node didn't have enough allocatable resources";

/// Writes for one operator process.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    stores: Stores,
    metrics: Metrics,
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What it was planned on is out of date: plan again at once.
    #[error("the {object} changed in the meantime")]
    Conflict {
        /// What was to be written.
        object: String,
    },
    /// The API server says no, and will say so again until something changes.
    #[error("{}", .0.message())]
    Refused(Problem),
    /// No answer, or one that passes.
    #[error("writing the {object}: {source}")]
    Transient {
        /// What was to be written.
        object: String,
        /// What went wrong.
        source: kube::Error,
    },
}

impl Failure {
    fn of(object: String, error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => match status.code {
                409 => Self::Conflict { object },
                // Too many requests, time-outs and server errors pass; other answers to our writes are a no.
                400..=499 if !matches!(status.code, 408 | 429) => {
                    Self::Refused(Problem::Refused { object, message: status.message.clone() })
                }
                _ => Self::Transient { object, source: error },
            },
            _ => Self::Transient { object, source: error },
        }
    }

    /// For the metric of errors.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Refused(_) => "refused",
            Self::Transient { .. } => "transient",
        }
    }
}

impl Writer {
    /// A writer that enters the API server's answers into `stores`.
    #[must_use]
    pub fn new(client: Client, stores: Stores, metrics: Metrics) -> Self {
        Self { client, stores, metrics }
    }

    /// Carries out one action.
    ///
    /// # Errors
    /// See [`Failure`]; nothing is retried here.
    pub async fn carry_out(&self, desired: &Goal, action: &Action) -> Result<(), Failure> {
        match action {
            Action::CreateSet(set) => match objects::replica_set(desired, set) {
                SetObject::ReplicaSet(object) => {
                    let answer = self.create(desired, &*object).await?;
                    self.stores.replica_sets.enter(&answer.metadata, SetEntry::from(&answer));
                }
                SetObject::VirtualMachineInstanceReplicaSet(object) => {
                    let answer = self.create(desired, &*object).await?;
                    self.stores.machine_sets.enter(&answer.metadata, SetEntry::from(&answer));
                }
            },
            Action::UpdateSet(update) => {
                self.patch_set(&desired.namespace, &update.set, objects::set_patch(update)).await?;
            }
            Action::DeleteSet(set) => match set.hull {
                Hull::Container => {
                    self.delete::<ReplicaSet>(desired, &set.name, &set.uid).await?;
                }
                Hull::VirtualMachine => {
                    self.delete::<VirtualMachineInstanceReplicaSet>(desired, &set.name, &set.uid).await?;
                }
            },
            Action::DeleteInstance { name, uid } => {
                // A next plan that did not know of this one could choose others on top of it.
                if let Some(answer) = self.delete::<VirtualMachineInstance>(desired, name, uid).await? {
                    self.stores.instances.enter(&answer.metadata, InstanceEntry::from(&answer));
                }
            }
            // No answer about a pod is entered: the watch has to show a mark, as it does to the ReplicaSet controller; and the
            // workload is planned again when it shows a quota.
            Action::MarkPod { name, uid, marked } => {
                self.annotate_pod(&desired.namespace, name, &objects::pod_patch(uid, *marked)).await?;
            }
            Action::AnnotatePod { name, uid, annotation } => {
                let patch = objects::node_quota_patch(uid, annotation.as_deref());
                self.annotate_pod(&desired.namespace, name, &patch).await?;
            }
            Action::PauseInstance { name, paused } => self.pause(desired, name, *paused).await?,
            Action::ResizePod { name, uid, container, quota } => {
                self.metrics.write(Verb::Patch, "Pod/resize");
                let patch = Patch::Strategic(objects::resize_patch(uid, container, *quota));
                let answer =
                    self.api::<Pod>(&desired.namespace).patch_subresource("resize", name, &parameters(), &patch).await;
                if let Err(kube::Error::Api(status)) = &answer
                    && status.code == 403
                    && status.message.contains(NEVER_ENOUGH)
                {
                    let refused = RefusedResize { quota: *quota, message: status.message.clone() };
                    self.stores.pods.was_refused(uid, refused);
                    // With this known, it is planned again at once.
                    return Err(Failure::Conflict { object: describe::<Pod>(name) });
                }
                if of_a_pod(name, answer.map(|_| ()))? {
                    self.stores.pods.was_asked(uid, *quota);
                }
            }
            Action::ApplyService { uid, ports } => {
                let object = objects::service(desired, ports, uid.clone());
                let answer = match uid {
                    None => self.create(desired, &object).await?,
                    Some(_) => self.server_side_apply(desired, &object, true).await?,
                };
                self.stores.services.enter(&answer.metadata, (&answer).into());
            }
            Action::DeleteService { uid } => {
                self.delete::<Service>(desired, &desired.name, uid).await?;
            }
        }
        Ok(())
    }

    /// Changes annotations of a pod.
    ///
    /// # Errors
    /// See [`Failure`]. A pod that is gone, or is another one by now, is none.
    pub async fn annotate_pod(&self, namespace: &str, name: &str, patch: &serde_json::Value) -> Result<(), Failure> {
        self.metrics.write(Verb::Patch, "Pod");
        let answer = self.api::<Pod>(namespace).patch_metadata(name, &parameters(), &Patch::Merge(patch)).await;
        of_a_pod(name, answer.map(|_| ())).map(|_| ())
    }

    /// By virt-api's subresources, which take no precondition. It answers with a conflict while the guest does not run, or is
    /// paused, or let go on, already.
    async fn pause(&self, desired: &Goal, name: &str, paused: bool) -> Result<(), Failure> {
        let verb = if paused { "pause" } else { "unpause" };
        self.metrics.write(Verb::Update, &format!("VirtualMachineInstance/{verb}"));
        let path = format!(
            "/apis/subresources.kubevirt.io/v1/namespaces/{}/virtualmachineinstances/{name}/{verb}",
            desired.namespace
        );
        let request = http::Request::put(path).header(http::header::CONTENT_TYPE, "application/json");
        let object = format!("VirtualMachineInstance {name}");
        let request = match request.body(b"{}".to_vec()) {
            Ok(request) => request,
            Err(error) => return Err(Failure::of(object, kube::Error::HttpError(error))),
        };
        match self.client.request_text(request).await {
            Ok(_) => Ok(()),
            // Deleted in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 && status.message.contains(name) => Ok(()),
            Err(error) => Err(Failure::of(object, error)),
        }
    }

    /// Writes the status. Returns the resourceVersion that it made.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn write_status(
        &self,
        workload: &ElasticWorkload,
        status: &ElasticWorkloadStatus,
    ) -> Result<Option<String>, Failure> {
        let (name, namespace) = (workload.name_any(), workload.namespace().unwrap_or_default());
        let object = format!("status of ElasticWorkload {name}");
        let api: Api<ElasticWorkload> = Api::namespaced(self.client.clone(), &namespace);
        let body = json!({
            "apiVersion": ElasticWorkload::api_version(&()),
            "kind": ElasticWorkload::kind(&()),
            "metadata": { "name": name, "uid": workload.uid() },
            "status": status,
        });
        self.metrics.write(Verb::Patch, "ElasticWorkload/status");
        let answer = api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)).await;
        answer.map(|workload| workload.metadata.resource_version).map_err(|error| Failure::of(object, error))
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes an object that must not take over a stranger of the same name.
    async fn create<K>(&self, desired: &Goal, object: &K) -> Result<K, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let name = object.name_any();
        let found = self.api::<K>(&desired.namespace).get_metadata_opt(&name).await;
        match found.map_err(|error| Failure::of(describe::<K>(&name), error))? {
            // Without force: a stranger that slips in here owns its fields, and the API server answers with a conflict.
            None => self.server_side_apply(desired, object, false).await,
            // Ours, only not seen as such yet, or somebody took our labels off.
            Some(found) if controller(&found.metadata).as_ref() == Some(&desired.uid) => {
                let mut object = object.clone();
                object.meta_mut().uid = found.metadata.uid;
                self.server_side_apply(desired, &object, true).await
            }
            Some(_) => {
                let kind = match K::kind(&()).as_ref() {
                    "Service" => "Service",
                    "ReplicaSet" => set_kind(Hull::Container),
                    _ => set_kind(Hull::VirtualMachine),
                };
                Err(Failure::Refused(Problem::NameTaken { kind, name }))
            }
        }
    }

    async fn server_side_apply<K>(&self, desired: &Goal, object: &K, force: bool) -> Result<K, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let name = object.name_any();
        let mut parameters = PatchParams::apply(FIELD_MANAGER).validation_strict();
        parameters.force = force;
        self.metrics.write(Verb::Apply, &K::kind(&()));
        let answer = self.api::<K>(&desired.namespace).patch(&name, &parameters, &Patch::Apply(object)).await;
        answer.map_err(|error| Failure::of(describe::<K>(&name), error))
    }

    /// Changes a replica set, by a patch with its uid and resourceVersion.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn patch_set(
        &self,
        namespace: &str,
        set: &SetReference,
        patch: serde_json::Value,
    ) -> Result<(), Failure> {
        match set.hull {
            Hull::Container => {
                // Containers are named in it.
                let (patch, index) = (Patch::Strategic(patch), &self.stores.replica_sets);
                self.patch_set_of::<ReplicaSet>(namespace, set, &patch, index).await
            }
            Hull::VirtualMachine => {
                let (patch, index) = (Patch::Merge(patch), &self.stores.machine_sets);
                self.patch_set_of::<VirtualMachineInstanceReplicaSet>(namespace, set, &patch, index).await
            }
        }
    }

    async fn patch_set_of<K>(
        &self,
        namespace: &str,
        set: &SetReference,
        patch: &Patch<serde_json::Value>,
        index: &Index<SetEntry>,
    ) -> Result<(), Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
        SetEntry: for<'a> From<&'a K>,
    {
        self.metrics.write(Verb::Patch, &K::kind(&()));
        let answer = self.api::<K>(namespace).patch(&set.name, &parameters(), patch).await;
        let answer = answer.map_err(|error| match error {
            // Deleted in the meantime: the view is old, as with a conflict.
            kube::Error::Api(status) if status.code == 404 => Failure::Conflict { object: describe::<K>(&set.name) },
            error => Failure::of(describe::<K>(&set.name), error),
        })?;
        index.enter(answer.meta(), SetEntry::from(&answer));
        Ok(())
    }

    /// Deletes an object. Returns it where a finalizer keeps it for a while.
    async fn delete<K>(&self, desired: &Goal, name: &str, uid: &str) -> Result<Option<K>, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams::background().preconditions(preconditions);
        self.metrics.write(Verb::Delete, &K::kind(&()));
        match self.api::<K>(&desired.namespace).delete(name, &parameters).await {
            Ok(answer) => Ok(answer.left()),
            // Gone already: what was wanted.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(Failure::of(describe::<K>(name), error)),
        }
    }
}

/// A patch in our name.
fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Whether a pod was written. One that is gone, or is another one by now, needs it no more.
fn of_a_pod(name: &str, answer: kube::Result<()>) -> Result<bool, Failure> {
    match answer {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(Failure::of(describe::<Pod>(name), error)),
    }
}

fn describe<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}
