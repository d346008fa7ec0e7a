//! Carries out a plan's actions. The only code that writes workload objects; it decides nothing.

use std::{fmt::Debug, sync::Arc};

use catamaran_autoscale::Decision;
use catamaran_crds::{
    ElasticWorkload, ElasticWorkloadStatus, Hull,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet},
    names::FIELD_MANAGER,
};
use catamaran_plan::{
    Action, Goal, Plan, Problem, Scaled, SetReference, SetUpdate, Step,
    facts::RefusedResize,
    goal::quota::Quota,
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
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    metrics::{Metrics, Verb},
    stores::{Index, InstanceEntry, PodEntry, SetEntry, Stores, WorkloadKey, controller},
};

/// Writes for one operator process.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    stores: Stores,
    metrics: Metrics,
}

/// At most so many steps are carried out in one pass: the next pass goes on, after other workloads had their turn.
const MOST_STEPS: usize = 100;

/// What became of the steps of a plan. [`Writer::apply`] alone makes one, so nothing can be recorded that was not
/// carried out.
#[derive(Debug, Default)]
pub struct Applied {
    count: Option<Decision>,
    missed_count: bool,
    failures: Vec<Failure>,
    left: usize,
}

impl Applied {
    /// The decision whose count is written by now, if it changes the count.
    #[must_use]
    pub fn count(&self) -> Option<&Decision> {
        self.count.as_ref()
    }

    /// Whether a decision changes the count, and that could not be written.
    #[must_use]
    pub fn missed_count(&self) -> bool {
        self.missed_count
    }

    /// The writes that failed.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// How many steps were left for the next pass.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }
}

/// The way through the steps of a plan: what fails holds up only what needs it.
struct Course<'a> {
    steps: std::slice::Iter<'a, Step>,
    left: &'a [Step],
    undone: Vec<&'a Action>,
    failures: Vec<Failure>,
}

impl<'a> Course<'a> {
    fn of(steps: &'a [Step]) -> Self {
        let (now, left) = steps.split_at(steps.len().min(MOST_STEPS));
        Self { steps: now.iter(), left, undone: Vec::new(), failures: Vec::new() }
    }

    /// The next step to carry out.
    fn next(&mut self) -> Option<&'a Step> {
        loop {
            let step = self.steps.next()?;
            if !self.undone.iter().any(|earlier| step.action.needs(earlier)) {
                return Some(step);
            }
            self.undone.push(&step.action);
        }
    }

    fn failed(&mut self, step: &'a Step, failure: Failure) {
        self.failures.push(failure);
        self.undone.push(&step.action);
    }

    fn end(self, scaled: Option<&Scaled>) -> Applied {
        let left = self.left.iter().map(|step| &step.action);
        let missed = self.undone.into_iter().chain(left).any(Action::brings_count);
        let count = scaled.map(|scaled| &scaled.decision).filter(|decision| decision.write().is_some());
        Applied {
            count: count.filter(|_| !missed).cloned(),
            missed_count: missed && count.is_some(),
            failures: self.failures,
            left: self.left.len(),
        }
    }
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

    /// As it is reported in the status, with the API server's own words where it answered.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::Conflict { object } => {
                Problem::WriteFailing { object: object.clone(), message: "it changes all the time".to_owned() }
            }
            Self::Transient { object, source } => {
                let message = match source {
                    kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
                    error => error.to_string(),
                };
                Problem::WriteFailing { object: object.clone(), message }
            }
        }
    }
}

impl Writer {
    /// A writer that enters the API server's answers into `stores`.
    #[must_use]
    pub fn new(client: Client, stores: Stores, metrics: Metrics) -> Self {
        Self { client, stores, metrics }
    }

    /// Carries out the steps of a plan, as far as they go: what fails holds up only what needs it.
    pub async fn apply(&self, desired: &Goal, plan: &Plan, scaled: Option<&Scaled>) -> Applied {
        let mut course = Course::of(&plan.steps);
        while let Some(step) = course.next() {
            tracing::info!(%step, "writing");
            if let Err(failure) = self.carry_out(desired, &step.action).await {
                self.metrics.failed(failure.class());
                course.failed(step, failure);
            }
        }
        course.end(scaled)
    }

    /// Carries out one action.
    ///
    /// # Errors
    /// See [`Failure`]; nothing is retried here.
    async fn carry_out(&self, desired: &Goal, action: &Action) -> Result<(), Failure> {
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
                self.try_quota(desired, update).await?;
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
            // No answer about a pod is entered: the watch has to show a mark, as it does to the ReplicaSet controller;
            // and the workload is planned again when it shows a quota.
            Action::MarkPod { name, uid, marked } => {
                self.annotate_pod(&desired.namespace, name, &objects::pod_patch(uid, *marked)).await?;
            }
            Action::LeaveService { pod, uid, since } => {
                let patch = objects::service_label_patch(&desired.name, uid, *since);
                self.annotate_pod(&desired.namespace, pod, &patch).await?;
            }
            Action::AnnotatePod { name, uid, annotation } => {
                let patch = objects::node_quota_patch(uid, annotation.as_deref());
                self.annotate_pod(&desired.namespace, name, &patch).await?;
            }
            Action::PauseInstance { name, paused } => self.pause(desired, name, *paused).await?,
            Action::ResizePod { name, uid, container, quota } => {
                self.metrics.write(Verb::Patch, "Pod/resize");
                if self.resize(&desired.namespace, (name, uid), container, *quota, false).await? {
                    self.stores.pods.was_asked(uid, *quota);
                }
            }
            Action::ApplyService { uid, ports } => {
                let object = objects::service(desired, ports, uid.clone());
                let answer = match uid {
                    None => self.create(desired, &object).await?,
                    Some(_) => self.correct_service(desired, &object).await?,
                };
                self.stores.services.enter(&answer.metadata, (&answer).into());
            }
            Action::DeleteService { uid } => {
                self.delete::<Service>(desired, &desired.name, uid).await?;
            }
        }
        Ok(())
    }

    /// Before a template gets another quota, it is tried on one of its pods, without effect: once the template has a
    /// quota that admission refuses, a pod that is lost would never be made again.
    async fn try_quota(&self, desired: &Goal, update: &SetUpdate) -> Result<(), Failure> {
        let Some((container, quota)) =
            update.quota.as_ref().and_then(|quota| Some((&quota.container, quota.resources?)))
        else {
            return Ok(());
        };
        let key = WorkloadKey { namespace: desired.namespace.clone(), name: desired.name.clone() };
        let pods = self.stores.pods.index.children(&key);
        let of_set = |pod: &&Arc<PodEntry>| pod.is_live() && pod.owner.as_ref() == Some(&update.set.uid);
        let Some(pod) = pods.iter().find(of_set) else { return Ok(()) };
        self.resize(&desired.namespace, (&pod.pod.name, &pod.uid), container, quota, true).await.map(|_| ())
    }

    /// Asks for a pod's resize, or only whether it would be admitted. False when the pod is gone.
    ///
    /// A refusal that lasts is remembered, whoever refuses: a LimitRange, a quota, a policy, the node, or the API
    /// server since the pod's class of service would change. With it known, it is planned again at once, and a new
    /// revision brings the quota.
    async fn resize(
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
    /// or is paused, or let go on, already.
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
        answer.map(|workload| workload.metadata.resource_version).map_err(|error| Failure::of(object, error))
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
        let found = found.map_err(|error| Failure::of(format!("ElasticWorkload {name}"), error))?;
        Ok(found.items.first().is_none_or(|found| found.metadata.generation != workload.metadata.generation))
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
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
    async fn create<K>(&self, desired: &Goal, object: &K) -> Result<K, Failure>
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
        let request = request.map_err(|error| Failure::of(described.clone(), error))?;
        self.metrics.write(Verb::Create, &K::kind(&()));
        match self.client.request(request).await {
            Err(kube::Error::Api(status)) if status.code == 409 => self.claim(desired, object, &name).await,
            answer => answer.map_err(|error| Failure::of(described, error)),
        }
    }

    /// Takes back an object of ours that was not seen as such: not yet, or because somebody took our labels off.
    async fn claim<K>(&self, desired: &Goal, object: &K, name: &str) -> Result<K, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let found = self.api::<K>(&desired.namespace).get_metadata_opt(name).await;
        match found.map_err(|error| Failure::of(describe::<K>(name), error))? {
            // Gone by now, or going.
            None => Err(Failure::Conflict { object: describe::<K>(name) }),
            Some(found) if controller(&found.metadata).as_ref() == Some(&desired.uid) => {
                let (labels, annotations) = (&object.meta().labels, &object.meta().annotations);
                let metadata = json!({ "uid": found.metadata.uid, "labels": labels, "annotations": annotations });
                let patch = Patch::Merge(json!({ "metadata": metadata }));
                self.metrics.write(Verb::Patch, &K::kind(&()));
                let answer = self.api::<K>(&desired.namespace).patch(name, &parameters(), &patch).await;
                answer.map_err(|error| Failure::of(describe::<K>(name), error))
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
    async fn correct_service(&self, desired: &Goal, wanted: &Service) -> Result<Service, Failure> {
        let (name, api) = (wanted.name_any(), self.api::<Service>(&desired.namespace));
        let of = |error| Failure::of(describe::<Service>(&name), error);
        let there = api.get(&name).await.map_err(of)?;
        let Some(patch) = objects::service_patch(&there, wanted) else { return Ok(there) };
        self.metrics.write(Verb::Patch, "Service");
        api.patch(&name, &parameters(), &Patch::Merge(patch)).await.map_err(of)
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

#[cfg(test)]
mod tests {
    use catamaran_plan::plan::{Reason, SetQuota, SpecChange};

    use catamaran_autoscale::decide;

    use super::*;

    fn step(action: Action) -> Step {
        Step { action, why: Reason::Notes }
    }

    fn update(name: &str, replicas: Option<u32>) -> SetUpdate {
        let (name, uid, resource_version) = (name.to_owned(), name.to_owned(), "1".to_owned());
        let set = SetReference { hull: Hull::Container, name, uid, resource_version };
        SetUpdate { spec: SpecChange { replicas, ..SpecChange::default() }, ..SetUpdate::none(set) }
    }

    fn scale(name: &str) -> Step {
        step(Action::UpdateSet(Box::new(update(name, Some(2)))))
    }

    fn quota(name: &str) -> Step {
        let quota = SetQuota { container: "main".to_owned(), resources: None, annotation: Some(None), lone: false };
        step(Action::UpdateSet(Box::new(SetUpdate { quota: Some(quota), ..update(name, None) })))
    }

    fn annotate(pod: &str) -> Step {
        step(Action::AnnotatePod { name: pod.to_owned(), uid: pod.to_owned(), annotation: None })
    }

    fn resize(pod: &str) -> Step {
        let (name, uid, container) = (pod.to_owned(), pod.to_owned(), "main".to_owned());
        step(Action::ResizePod { name, uid, container, quota: Default::default() })
    }

    fn service() -> Step {
        step(Action::DeleteService { uid: "service".to_owned() })
    }

    fn scaled() -> Scaled {
        let policy = policy();
        let bounds = catamaran_autoscale::Bounds::fixed(2, 5);
        let observed = decide::Observed {
            replicas: 1,
            status_replicas: 1,
            bounds: &bounds,
            pods: &[],
            samples: &[],
            taken: &[],
            scaled_to_zero: false,
        };
        let history = catamaran_autoscale::History::default();
        let now = jiff::Timestamp::UNIX_EPOCH;
        Scaled { decision: catamaran_autoscale::decide(&policy, &observed, &history, now), history }
    }

    fn policy() -> catamaran_autoscale::Policy {
        let scaling = serde_json::from_value(json!({"minReplicas": 2, "maxReplicas": 5, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]}));
        let scaling = scaling.expect("a scaling");
        catamaran_plan::goal::scaling::resolve(&scaling, Default::default()).expect("it makes sense")
    }

    /// Carries out steps of which some fail, each in its way; which ones were tried, and what came of it.
    fn play(steps: &[Step], failing: &[(usize, u16)]) -> (Vec<usize>, Applied) {
        let (mut tried, mut course) = (Vec::new(), Course::of(steps));
        while let Some(step) = course.next() {
            let index = steps.iter().position(|other| std::ptr::eq(other, step)).expect("one of them");
            tried.push(index);
            if let Some((_, code)) = failing.iter().find(|(failing, _)| *failing == index) {
                let status = kube::core::Status::failure("webhook denies it", "InternalError").with_code(*code);
                course.failed(step, Failure::of("X x".to_owned(), kube::Error::Api(status.boxed())));
            }
        }
        let applied = course.end(Some(&scaled()));
        (tried, applied)
    }

    #[test]
    fn a_failed_step_holds_up_only_what_needs_it() {
        let (tried, applied) = play(&[scale("a"), scale("b"), service()], &[(0, 500)]);
        assert_eq!((tried.as_slice(), applied.failures().len()), ([0, 1, 2].as_slice(), 1));
        assert!(applied.missed_count() && applied.count().is_none(), "one of the sets was not scaled");

        let (tried, applied) = play(&[scale("a"), service()], &[(1, 503)]);
        assert_eq!((tried.as_slice(), applied.missed_count()), ([0, 1].as_slice(), false));
        assert_eq!(applied.count().and_then(Decision::write), Some(2), "a Service does not matter to the count");

        for code in [409, 422, 429, 500, 504] {
            let steps = [quota("a"), annotate("p"), resize("p"), service()];
            let (tried, _) = play(&steps, &[(0, code)]);
            assert_eq!(tried, [0, 3], "no pod has a quota before its template");
            let steps = [annotate("p"), resize("p"), annotate("q"), resize("q")];
            let (tried, applied) = play(&steps, &[(0, code)]);
            assert_eq!(tried, [0, 2, 3], "the burst of p was not lowered");
            assert_eq!(applied.failures().len(), 1);
        }
    }

    #[test]
    fn a_pass_carries_out_a_hundred_steps_at_most() {
        let mut steps: Vec<Step> = (0..250).map(|index| annotate(&index.to_string())).collect();
        let (tried, applied) = play(&steps, &[]);
        assert_eq!((tried.len(), applied.left(), applied.count().is_some()), (100, 150, true));
        steps.push(scale("a"));
        let (_, applied) = play(&steps, &[]);
        assert!(applied.missed_count(), "what brings the count is still to come");
    }

    #[test]
    fn the_words_of_the_api_server_are_reported() {
        let of = |code: u16| {
            let status = kube::core::Status::failure("failed calling webhook", "InternalError").with_code(code);
            Failure::of("ReplicaSet web-1".to_owned(), kube::Error::Api(status.boxed())).problem()
        };
        assert_eq!((of(403).reason(), of(500).reason(), of(504).reason()), ("Refused", "WriteFailing", "WriteFailing"));
        for code in [400, 403, 408, 422, 429, 500, 503, 504] {
            assert!(of(code).message().contains("failed calling webhook"), "{}", of(code).message());
        }
    }
}
