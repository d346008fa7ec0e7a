//! The requests that change a workload's children.

use std::fmt::Debug;

use catamaran_crds::{Hull, kubevirt::VirtualMachineInstanceReplicaSet, names::FIELD_MANAGER};
use catamaran_plan::{Goal, Problem, SetReference, facts::RefusedResize, goal::quota::Quota, objects, plan::set_kind};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, Service},
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Failure, Writer};
use crate::{
    metrics::Verb,
    stores::{Index, SetEntry, controller},
};

impl Writer {
    /// Asks for a pod's resize, or only whether it would be admitted. False when the pod is gone.
    ///
    /// A refusal that lasts is remembered, whoever refuses: a LimitRange, a quota, a policy, the node, or the API
    /// server since the pod's class of service would change. With it known, it is planned again at once, and a new
    /// revision brings the quota.
    pub(super) async fn resize(
        &self,
        namespace: &str,
        (name, uid): (&str, &str),
        container: &str,
        quota: Quota,
        dry_run: bool,
    ) -> Result<bool, Failure> {
        let patch = Patch::Strategic(objects::resize_patch(uid, container, quota));
        let parameters = PatchParams { dry_run, ..parameters() };
        let answer = self.api::<Pod>(namespace).patch_subresource("resize", name, &parameters, &patch).await;
        if let Err(kube::Error::Api(status)) = &answer
            && matches!(status.code, 400 | 403 | 405 | 422)
        {
            self.stores.pods.was_refused(uid, RefusedResize { quota, message: status.message.clone() });
            return Err(Failure::Conflict { object: describe::<Pod>(name) });
        }
        of_a_pod(name, answer.map(|_| ()))
    }

    /// Changes annotations or labels of a pod.
    ///
    /// # Errors
    /// See [`Failure`]. A pod that is gone, or is another one by now, is none.
    pub async fn annotate_pod(&self, namespace: &str, name: &str, patch: &serde_json::Value) -> Result<(), Failure> {
        self.metrics.write(Verb::Patch, "Pod");
        let answer = self.api::<Pod>(namespace).patch_metadata(name, &parameters(), &Patch::Merge(patch)).await;
        of_a_pod(name, answer.map(|_| ())).map(|_| ())
    }

    /// By virt-api's subresources, which take no precondition. It answers with a conflict while the guest does not run,
    /// or is paused, or unpaused, already.
    pub(super) async fn pause(&self, desired: &Goal, name: &str, paused: bool) -> Result<(), Failure> {
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
            Err(error) => return Err(Failure::new(object, kube::Error::HttpError(error))),
        };
        match self.client.request_text(request).await {
            Ok(_) => Ok(()),
            // Deleted in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 && status.message.contains(name) => Ok(()),
            Err(error) => Err(Failure::new(object, error)),
        }
    }

    pub(super) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes an object that must not take over a stranger of the same name.
    ///
    /// By POST, as other controllers do, and not by server-side apply: that refuses what the typed schema takes for a
    /// map and the API server for a list, as a variable that is set twice. Fields that the API server does not know are
    /// refused.
    pub(super) async fn create<K>(&self, desired: &Goal, object: &K) -> Result<K, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let (name, described) = (object.name_any(), describe::<K>(&object.name_any()));
        let url = format!(
            "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict",
            K::url_path(&(), Some(&desired.namespace))
        );
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError);
        let request = body.and_then(|body| {
            let request = http::Request::post(url).header(http::header::CONTENT_TYPE, "application/json");
            request.body(body).map_err(kube::Error::HttpError)
        });
        let request = request.map_err(|error| Failure::new(described.clone(), error))?;
        self.metrics.write(Verb::Create, &K::kind(&()));
        match self.client.request(request).await {
            Err(kube::Error::Api(status)) if status.code == 409 => self.claim(desired, object, &name).await,
            answer => answer.map_err(|error| Failure::new(described, error)),
        }
    }

    /// Takes back an object of ours that was not seen as such: not yet, or because somebody took our labels off.
    async fn claim<K>(&self, desired: &Goal, object: &K, name: &str) -> Result<K, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let found = self.api::<K>(&desired.namespace).get_metadata_opt(name).await;
        match found.map_err(|error| Failure::new(describe::<K>(name), error))? {
            // Gone by now, or going.
            None => Err(Failure::Conflict { object: describe::<K>(name) }),
            Some(found) if controller(&found.metadata).as_ref() == Some(&desired.uid) => {
                let (labels, annotations) = (&object.meta().labels, &object.meta().annotations);
                let metadata = json!({ "uid": found.metadata.uid, "labels": labels, "annotations": annotations });
                let patch = Patch::Merge(json!({ "metadata": metadata }));
                self.metrics.write(Verb::Patch, &K::kind(&()));
                let answer = self.api::<K>(&desired.namespace).patch(name, &parameters(), &patch).await;
                answer.map_err(|error| Failure::new(describe::<K>(name), error))
            }
            Some(_) => {
                let kind = match K::kind(&()).as_ref() {
                    "Service" => "Service",
                    "ReplicaSet" => set_kind(Hull::Container),
                    _ => set_kind(Hull::VirtualMachine),
                };
                Err(Failure::Refused(Problem::NameTaken { kind, name: name.to_owned() }))
            }
        }
    }

    /// Brings a Service of ours to what is wanted, by a patch with its uid and resourceVersion. Lists are replaced as a
    /// whole: server-side apply would keep the ports that its creation owns, and those that others added.
    pub(super) async fn correct_service(&self, desired: &Goal, wanted: &Service) -> Result<Service, Failure> {
        let name = &desired.name;
        let old_view = || Failure::Conflict { object: describe::<Service>(name) };
        let known = self.stores.services.find(&wanted.metadata).ok_or_else(old_view)?;
        let patch = objects::service_patch(&known.resource_version, &known.selector, wanted);
        self.metrics.write(Verb::Patch, "Service");
        let answer = self.api::<Service>(&desired.namespace).patch(name, &parameters(), &Patch::Merge(patch)).await;
        answer
            .map_err(|error| if is_gone(&error) { old_view() } else { Failure::new(describe::<Service>(name), error) })
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
        let object = describe::<K>(&set.name);
        // Deleted in the meantime: the view is old, as with a conflict.
        let answer =
            answer.map_err(
                |error| if is_gone(&error) { Failure::Conflict { object } } else { Failure::new(object, error) },
            )?;
        index.enter(answer.meta(), SetEntry::from(&answer));
        Ok(())
    }

    /// Deletes an object. Returns it where a finalizer keeps it for a while.
    pub(super) async fn delete<K>(&self, desired: &Goal, name: &str, uid: &str) -> Result<Option<K>, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams::background().preconditions(preconditions);
        self.metrics.write(Verb::Delete, &K::kind(&()));
        match self.api::<K>(&desired.namespace).delete(name, &parameters).await {
            Ok(answer) => Ok(answer.left()),
            // What was wanted.
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(Failure::new(describe::<K>(name), error)),
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
        Err(error) => Err(Failure::new(describe::<Pod>(name), error)),
    }
}

/// Whether there is no such object any more.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn describe<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}
