//! virt-controller's loop over VMIRSs: adopts, releases, creates, deletes and counts VMIs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catamaran_crds::kubevirt::{
    VirtualMachineInstance, VirtualMachineInstanceReplicaSet, VirtualMachineInstanceStatus,
};
use futures::{StreamExt, future::join_all};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    core::{Selector, SelectorExt},
    runtime::{
        controller::{Action, Controller},
        events::{Event, EventType, Recorder},
        reflector::ObjectRef,
        watcher,
    },
};
use serde_json::json;

use super::{
    informer::Informer,
    instances::accept,
    replica_set::{FIRST_PHASE, Failure, decide, status},
};

/// What virt-controller notes on a VMIRS when it sees it first.
const OBSERVED: [&str; 2] = ["kubevirt.io/latest-observed-api-version", "kubevirt.io/storage-observed-api-version"];
/// client-go's queue starts with 5 ms after a failure and doubles.
const FIRST_RETRY: Duration = Duration::from_millis(5);

pub(super) struct Sets {
    client: Client,
    instances: Informer<VirtualMachineInstance>,
    events: Recorder,
    /// By uid of the set: which creations and deletions the cache has still to show.
    expected: Mutex<HashMap<String, Vec<Expected>>>,
    /// By uid of the set: failures in a row, and the last of them.
    failures: Mutex<HashMap<String, (u32, Failure)>>,
}

enum Expected {
    Created(String),
    Deleted(String),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error("wrong selector: {0}")]
    Selector(#[from] kube::core::ParseExpressionError),
    #[error("{0}")]
    Scale(String),
}

/// Runs for ever.
pub(super) async fn run(client: Client, lag: Duration) {
    let (sets, set_changes) =
        Informer::start(Api::<VirtualMachineInstanceReplicaSet>::all(client.clone()), watcher::Config::default(), lag);
    let (instances, instance_changes) = Informer::start(Api::all(client.clone()), watcher::Config::default(), lag);
    let events = Recorder::new(client.clone(), "virtualmachinereplicaset-controller".into());
    let context = Arc::new(Sets { client, instances, events, expected: Mutex::default(), failures: Mutex::default() });
    // A VMI without an owner may be one to adopt: every set of its namespace looks.
    let known = sets.store.clone();
    let owners = move |instance: VirtualMachineInstance| {
        let owner = instance.owner_references().iter().find(|owner| owner.controller == Some(true)).cloned();
        let mut found: Vec<ObjectRef<VirtualMachineInstanceReplicaSet>> = Vec::new();
        match owner {
            Some(owner) => found.extend(
                (owner.kind == "VirtualMachineInstanceReplicaSet")
                    .then(|| ObjectRef::new(&owner.name).within(&instance.namespace().unwrap_or_default())),
            ),
            None => found.extend(
                known
                    .state()
                    .iter()
                    .filter(|set| set.namespace() == instance.namespace())
                    .map(|set| ObjectRef::from_obj(&**set)),
            ),
        }
        found
    };
    Controller::for_stream(set_changes, sets.store.clone())
        .watches_stream(instance_changes, owners)
        .run(reconcile, failed, context)
        .for_each(|_| async {})
        .await;
}

async fn reconcile(set: Arc<VirtualMachineInstanceReplicaSet>, context: Arc<Sets>) -> Result<Action, Error> {
    let namespace = set.namespace().unwrap_or_default();
    if note_first_sight(&set, &context.client).await? {
        return Ok(Action::await_change());
    }
    let api: Api<VirtualMachineInstance> = Api::namespaced(context.client.clone(), &namespace);
    let claimed = claim(&set, &context, &api).await?;
    let instances: Vec<&VirtualMachineInstance> = claimed.iter().map(AsRef::as_ref).collect();
    let uid = set.uid().unwrap_or_default();
    let decision = decide(&set, &instances, context.expectations_met(&uid), &mut rand::rng());
    let outcome = context.scale(&set, &api, &decision, &instances).await;
    let known =
        context.failures.lock().unwrap_or_else(PoisonError::into_inner).get(&uid).map(|(_, failure)| failure.clone());
    let failure =
        outcome.as_ref().err().cloned().or_else(|| (set.spec.paused == Some(true)).then_some(known).flatten());
    let selector: Selector = set.spec.selector.clone().try_into()?;
    let now = Time(Timestamp::now());
    let wanted = status(&set, &decision, failure.as_ref(), &selector.to_string(), &now);
    if set.status.as_ref() != Some(&wanted) {
        context.pause_events(&set, &wanted).await;
        let mut changed = (*set).clone();
        changed.status = Some(wanted);
        let sets: Api<VirtualMachineInstanceReplicaSet> = Api::namespaced(context.client.clone(), &namespace);
        sets.replace_status(&set.name_any(), &PostParams::default(), &changed).await?;
    }
    match outcome {
        Ok(()) => {
            context.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
            Ok(Action::await_change())
        }
        Err(failure) => Err(Error::Scale(failure.message)),
    }
}

fn failed(set: Arc<VirtualMachineInstanceReplicaSet>, error: &Error, context: Arc<Sets>) -> Action {
    tracing::debug!(set = set.name_any(), %error, "again");
    let failures = context.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.get(&set.uid().unwrap_or_default()).map_or(0, |(count, _)| *count);
    Action::requeue(FIRST_RETRY * 2_u32.saturating_pow(count.min(17)))
}

/// virt-controller updates what it sees for the first time, so that its generation grows. True when it did.
async fn note_first_sight(set: &VirtualMachineInstanceReplicaSet, client: &Client) -> Result<bool, Error> {
    let domain = set.spec.template.as_ref().and_then(|template| template.spec.get("domain"));
    let no_resources = domain.is_some_and(|domain| domain.get("resources").is_none());
    let noted = OBSERVED.iter().all(|name| set.annotations().get(*name).is_some_and(|value| value == "v1"));
    if noted || set.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    let mut patch = json!({
        "metadata": {"resourceVersion": set.resource_version(), "annotations": {OBSERVED[0]: "v1", OBSERVED[1]: "v1"}},
    });
    if no_resources {
        patch["spec"] = json!({"template": {"spec": {"domain": {"resources": {}}}}});
    }
    let api: Api<VirtualMachineInstanceReplicaSet> =
        Api::namespaced(client.clone(), &set.namespace().unwrap_or_default());
    api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(true)
}

/// Whether a set may adopt: asked of the API server once in a pass, since a set that is being deleted with its VMIs
/// orphaned must not take them back (`RecheckDeletionTimestamp` of Kubernetes' controllers, which virt-controller uses
/// as well).
async fn may_adopt(
    set: &VirtualMachineInstanceReplicaSet,
    client: &Client,
    known: &mut Option<bool>,
) -> Result<bool, Error> {
    if let Some(known) = *known {
        return Ok(known);
    }
    let api: Api<VirtualMachineInstanceReplicaSet> =
        Api::namespaced(client.clone(), &set.namespace().unwrap_or_default());
    let now = api.get_metadata_opt(&set.name_any()).await?;
    let adopts = now.is_some_and(|now| now.uid() == set.uid() && now.metadata.deletion_timestamp.is_none());
    Ok(*known.insert(adopts))
}

/// The VMIs of a set: takes in matching ones without an owner, lets go of its own that match no more.
async fn claim(
    set: &VirtualMachineInstanceReplicaSet,
    context: &Sets,
    api: &Api<VirtualMachineInstance>,
) -> Result<Vec<Arc<VirtualMachineInstance>>, Error> {
    let selector: Selector = set.spec.selector.clone().try_into()?;
    let mut claimed = Vec::new();
    let mut adopts = None;
    for instance in context.instances.store.state() {
        if instance.namespace() != set.namespace() {
            continue;
        }
        let owner = instance.owner_references().iter().find(|owner| owner.controller == Some(true));
        let owned = owner.map(|owner| Some(&owner.uid) == set.metadata.uid.as_ref());
        let version = instance.resource_version();
        let matches = selector.matches(instance.labels());
        let active = set.metadata.deletion_timestamp.is_none() && instance.metadata.deletion_timestamp.is_none();
        let owners = match owned {
            Some(true) if matches => None,
            Some(true) => Some(json!([])),
            None if matches && active && may_adopt(set, &context.client, &mut adopts).await? => {
                let mut owner = set.controller_owner_ref(&());
                if let Some(owner) = &mut owner {
                    owner.block_owner_deletion = Some(true);
                }
                Some(json!([owner]))
            }
            None | Some(false) => continue,
        };
        if let Some(owners) = owners {
            let patch = json!({"metadata": {"resourceVersion": version, "ownerReferences": owners}});
            api.patch(&instance.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        if matches {
            claimed.push(instance);
        }
    }
    Ok(claimed)
}

impl Sets {
    fn expectations_met(&self, set: &str) -> bool {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = expected.get_mut(set) else { return true };
        list.retain(|expected| match expected {
            Expected::Created(uid) => !self.instances.saw_created(uid),
            Expected::Deleted(uid) => !self.instances.saw_deleted(uid),
        });
        list.is_empty()
    }

    /// Creates and deletes at once, as virt-controller does; the first failure is the one that is told.
    async fn scale(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        api: &Api<VirtualMachineInstance>,
        decision: &super::replica_set::Decision,
        instances: &[&VirtualMachineInstance],
    ) -> Result<(), Failure> {
        let uid = set.uid().unwrap_or_default();
        let created = join_all((0..decision.create).map(|_| async {
            let made = api.create(&PostParams::default(), &new_instance(set)).await;
            let made =
                made.map_err(|error| ("FailedCreate", format!("Error creating virtual machine instance: {error}")))?;
            self.tell(
                set,
                EventType::Normal,
                "SuccessfulCreate",
                format!("Started the virtual machine by creating the new virtual machine instance {}", made.name_any()),
            )
            .await;
            Ok(Expected::Created(made.uid().unwrap_or_default()))
        }));
        let deleted = join_all(decision.delete.iter().chain(&decision.finished).map(|name| async move {
            let uid =
                instances.iter().find(|instance| instance.name_any() == *name).and_then(|instance| instance.uid());
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
                ..DeleteParams::default()
            };
            match api.delete(name, &parameters).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    return Err(("FailedDelete", format!("Error deleting virtual machine instance {name}: {error}")));
                }
            }
            self.tell(
                set,
                EventType::Normal,
                "SuccessfulDelete",
                format!("Stopped the virtual machine by deleting the virtual machine instance {name}"),
            )
            .await;
            Ok(Expected::Deleted(uid.unwrap_or_default()))
        }));
        let (created, deleted) = tokio::join!(created, deleted);
        let mut first = None;
        let mut expected = Vec::new();
        for outcome in created.into_iter().chain(deleted) {
            match outcome {
                Ok(awaited) => expected.push(awaited),
                Err((reason, message)) => {
                    self.tell(set, EventType::Warning, reason, message.clone()).await;
                    first.get_or_insert(Failure { reason, message });
                }
            }
        }
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.clone()).or_default().extend(expected);
        let Some(failure) = first else { return Ok(()) };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failures.entry(uid).or_insert((0, failure.clone()));
        entry.0 += 1;
        Err(entry.1.clone())
    }

    async fn pause_events(
        &self,
        set: &VirtualMachineInstanceReplicaSet,
        wanted: &catamaran_crds::kubevirt::VirtualMachineInstanceReplicaSetStatus,
    ) {
        let paused = |status: &catamaran_crds::kubevirt::VirtualMachineInstanceReplicaSetStatus| {
            status.conditions.iter().flatten().any(|condition| condition.type_ == "ReplicaPaused")
        };
        match (set.status.as_ref().is_some_and(paused), paused(wanted)) {
            (false, true) => self.tell(set, EventType::Normal, "SuccessfulPaused", "Paused".to_owned()).await,
            (true, false) => self.tell(set, EventType::Normal, "SuccessfulResumed", "Resumed".to_owned()).await,
            (true, true) | (false, false) => {}
        }
    }

    /// An Event is a service to people; that one got lost stops nothing.
    async fn tell(&self, set: &VirtualMachineInstanceReplicaSet, type_: EventType, reason: &str, note: String) {
        let note = note.chars().take(1000).collect();
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        if let Err(error) = self.events.publish(&event, &set.object_ref(&())).await {
            tracing::debug!(%error, "an Event was lost");
        }
    }
}

/// A VMI from the template, as virt-api hands it on.
fn new_instance(set: &VirtualMachineInstanceReplicaSet) -> VirtualMachineInstance {
    let template = set.spec.template.clone().unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    let mut owner = set.controller_owner_ref(&());
    if let Some(owner) = &mut owner {
        owner.block_owner_deletion = Some(true);
    }
    let mut instance = VirtualMachineInstance {
        metadata: ObjectMeta {
            generate_name: Some(set.name_any()),
            namespace: set.namespace(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: catamaran_crds::kubevirt::VirtualMachineInstanceSpec { body: template.spec },
        status: Some(VirtualMachineInstanceStatus { phase: Some(FIRST_PHASE), ..Default::default() }),
    };
    accept(&mut instance);
    instance
}
