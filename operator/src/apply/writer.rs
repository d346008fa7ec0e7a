//! From a plan's actions to requests, and from the API server's answers into the stores.

use std::sync::Arc;

use catamaran_crds::{
    Hull,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet},
};
use catamaran_plan::{Action, Goal, Plan, Scaled, SetUpdate, objects};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Service};
use kube::Client;

use super::{Applied, Failure, course::Course};
use crate::{
    metrics::{Metrics, Verb},
    stores::{InstanceEntry, PodEntry, Stores, WorkloadKey},
};

/// Writes for one operator process.
#[derive(Clone)]
pub struct Writer {
    pub(super) client: Client,
    pub(super) stores: Stores,
    pub(super) metrics: Metrics,
}

impl Writer {
    /// A writer that enters the API server's answers into `stores`.
    #[must_use]
    pub fn new(client: Client, stores: Stores, metrics: Metrics) -> Self {
        Self { client, stores, metrics }
    }

    /// Carries out the steps of a plan, as far as they go: what fails holds up only what needs it.
    pub async fn apply(&self, desired: &Goal, plan: &Plan, scaled: Option<&Scaled>) -> Applied {
        let mut course = Course::new(&plan.steps);
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
            Action::CreateSet(set) => self.create_set(desired, set).await?,
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
                self.stores.pods.asked_mark(uid, *marked, Timestamp::now());
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
}
