//! The requests about a workload itself: its status, and whether it was seen as it is.

use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus, names::FIELD_MANAGER};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{Failure, Writer};
use crate::{metrics::Verb, stores::WorkloadKey};

impl Writer {
    /// Writes the status. Returns the resourceVersion that it made.
    ///
    /// # Errors
    /// See [`Failure`]; a conflict when the workload is stored in a version that is not known yet.
    pub async fn write_status(
        &self,
        workload: &ElasticWorkload,
        status: &ElasticWorkloadStatus,
    ) -> Result<Option<String>, Failure> {
        let (name, namespace) = (workload.name_any(), workload.namespace().unwrap_or_default());
        let object = format!("status of ElasticWorkload {name}");
        let api: Api<ElasticWorkload> = Api::namespaced(self.client.clone(), &namespace);
        let version = self.stores.written.newest_version(&WorkloadKey::of_workload(workload), workload);
        let body = json!({
            "apiVersion": ElasticWorkload::api_version(&()),
            "kind": ElasticWorkload::kind(&()),
            // With its version: what was planned on an old view must not be said of a newer one.
            "metadata": { "name": name, "uid": workload.uid(), "resourceVersion": version.to_string() },
            "status": status,
        });
        self.metrics.write(Verb::Patch, "ElasticWorkload/status");
        let answer = api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)).await;
        answer.map(|workload| workload.metadata.resource_version).map_err(|error| Failure::new(object, error))
    }

    /// Whether the API server has another generation of a workload than this one.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn is_behind(&self, workload: &ElasticWorkload) -> Result<bool, Failure> {
        let (name, namespace) = (workload.name_any(), workload.namespace().unwrap_or_default());
        let api: Api<ElasticWorkload> = Api::namespaced(self.client.clone(), &namespace);
        // A list of one: the operator has no right to get.
        let found = api.list_metadata(&ListParams::default().fields(&format!("metadata.name={name}"))).await;
        let found = found.map_err(|error| Failure::new(format!("ElasticWorkload {name}"), error))?;
        Ok(found.items.first().is_none_or(|found| found.metadata.generation != workload.metadata.generation))
    }
}
