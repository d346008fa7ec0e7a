//! virt-controller's and virt-handler's loops over VMIs, in one: what `guest` says is written.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catamaran_crds::kubevirt::{VirtualMachineInstance, VirtualMachineInstancePhase, VirtualMachineInstanceStatus};
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{
        controller::{Action, Controller},
        reflector::ObjectRef,
        watcher,
    },
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    guest::{Next, Situation, next},
    informer::Informer,
    knobs::Knobs,
    launcher::{COMPUTE, CREATED_BY, GATE, IMAGE, LAUNCHER, pod},
};

/// virt-api's finalizer: the VMI stays until its pod is gone.
const FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";
/// After a write that failed.
const RETRY: Duration = Duration::from_millis(20);

pub(super) struct Instances {
    client: Client,
    knobs: Knobs,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// By uid of the VMI: those that a pod was made for.
    launched: Mutex<HashSet<String>>,
    /// By uid and phase of the VMI, or by uid of the pod that terminates: since when.
    since: Mutex<HashMap<String, Instant>>,
    /// Namespace and name of the VMIs that are paused.
    paused: Arc<Mutex<HashSet<(String, String)>>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Pod(#[from] serde_json::Error),
}

/// Runs for ever.
pub(super) async fn run(client: Client, knobs: Knobs, paused: Arc<Mutex<HashSet<(String, String)>>>) {
    let (instances, instance_changes) =
        Informer::start(Api::all(client.clone()), watcher::Config::default(), Duration::ZERO);
    let launchers = watcher::Config::default().labels(LAUNCHER);
    let (pods, pod_changes) = Informer::start(Api::all(client.clone()), launchers, Duration::ZERO);
    let (nodes, node_changes) = Informer::start(Api::all(client.clone()), watcher::Config::default(), Duration::ZERO);
    let store = instances.store.clone();
    let on_node = move |node: Node| {
        let name = node.name_any();
        let there = |instance: &VirtualMachineInstance| {
            instance.status.as_ref().is_some_and(|status| status.node_name.as_deref() == Some(&name))
        };
        store
            .state()
            .iter()
            .filter(|instance| there(instance))
            .map(|instance| ObjectRef::from_obj(&**instance))
            .collect::<Vec<_>>()
    };
    let context =
        Arc::new(Instances { client, knobs, pods, nodes, launched: Mutex::default(), since: Mutex::default(), paused });
    Controller::for_stream(instance_changes, instances.store.clone())
        .owns_stream(pod_changes)
        .watches_stream(node_changes, on_node)
        .run(reconcile, |_, _, _| Action::requeue(RETRY), context)
        .for_each(|_| async {})
        .await;
}

/// What virt-api's mutating webhook adds to a new VMI.
pub(super) fn accept(instance: &mut VirtualMachineInstance) {
    let finalizers = instance.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let status = instance.status.get_or_insert_default();
    status.phase.get_or_insert(VirtualMachineInstancePhase::Pending);
    let body = &mut instance.spec.body;
    body.entry("architecture").or_insert(json!("amd64"));
    body.entry("evictionStrategy").or_insert(json!("None"));
    let Some(Value::Object(domain)) = body.get_mut("domain") else { return };
    domain.entry("machine").or_insert(json!({"type": "q35"}));
    domain.entry("firmware").or_insert(json!({"uuid": random_uuid()}));
    if let Value::Object(cpu) = domain.entry("cpu").or_insert(json!({})) {
        let sockets = cpu.get("sockets").and_then(Value::as_u64).unwrap_or(1);
        cpu.entry("sockets").or_insert(json!(sockets));
        cpu.entry("cores").or_insert(json!(1));
        cpu.entry("threads").or_insert(json!(1));
        cpu.entry("maxSockets").or_insert(json!(sockets * 4));
        cpu.entry("model").or_insert(json!("host-model"));
    }
}

/// Of version 4.
fn random_uuid() -> String {
    let random: u128 = rand::random();
    let part = |shift: u32, bits: u32| (random >> shift) & ((1 << bits) - 1);
    let (first, second, third) = (part(96, 32), part(80, 16), part(68, 12));
    format!("{first:08x}-{second:04x}-4{third:03x}-8{:03x}-{:012x}", part(56, 12), part(0, 48))
}

async fn reconcile(instance: Arc<VirtualMachineInstance>, context: Arc<Instances>) -> Result<Action, Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let name = instance.name_any();
    let uid = instance.uid().unwrap_or_default();
    let api: Api<VirtualMachineInstance> = Api::namespaced(context.client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let accepted = instance.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if !accepted {
        // Made by hand: no webhook has seen it.
        if instance.metadata.deletion_timestamp.is_none() {
            let mut changed = (*instance).clone();
            accept(&mut changed);
            api.replace(&name, &PostParams::default(), &changed).await?;
        }
        return Ok(Action::await_change());
    }
    let launcher = context.pods.store.state().into_iter().find(|pod| pod.labels().get(CREATED_BY) == Some(&uid));
    let situation = context.situation(&instance, launcher.as_deref());
    let now = Time(Timestamp::now());
    match next(&instance, &now, &situation) {
        Next::Launch => {
            let made = pods.create(&PostParams::default(), &pod(&instance)?).await?;
            tracing::debug!(instance = name, pod = made.name_any(), "launched");
            lock(&context.launched).insert(uid);
        }
        Next::Status(status) => write(&api, &instance, *status).await?,
        Next::Release => {
            let others: Vec<&String> =
                instance.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
            let patch = json!({"metadata": {"resourceVersion": instance.resource_version(), "finalizers": others}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        Next::Wait(time) => return Ok(Action::requeue(time)),
        Next::Nothing => {}
        step @ (Next::Gate(_) | Next::DeletePod | Next::PodEnds | Next::PodCannotPull | Next::RemovePod) => {
            let Some(pod) = launcher else { return Ok(Action::await_change()) };
            change_pod(&pods, &pod, &step, &instance, &now).await?;
        }
    }
    Ok(Action::await_change())
}

async fn change_pod(
    pods: &Api<Pod>,
    pod: &Pod,
    step: &Next,
    instance: &VirtualMachineInstance,
    now: &Time,
) -> Result<(), Error> {
    let name = pod.name_any();
    let outcome = match step {
        Next::Gate(open) => {
            let value = if *open { "True" } else { "False" };
            let patch = json!({"status": {"conditions": [{"type": GATE, "status": value, "lastTransitionTime": now}]}});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(|_| ())
        }
        Next::PodEnds => {
            let phase = instance.status.as_ref().and_then(|status| status.phase);
            let failed = phase != Some(VirtualMachineInstancePhase::Succeeded);
            let exit = if failed { 137 } else { 0 };
            let end = json!({"terminated": {
                "exitCode": exit, "reason": if failed { "Error" } else { "Completed" }, "finishedAt": now,
            }});
            let ended = |type_: &str| json!({"type": type_, "status": "False", "reason": "PodCompleted", "lastTransitionTime": now});
            let patch = json!({"status": {
                "phase": if failed { "Failed" } else { "Succeeded" },
                "conditions": [ended("Ready"), ended("ContainersReady")],
                "containerStatuses": [compute(&end)],
            }});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(|_| ())
        }
        Next::PodCannotPull => {
            let message = "Back-off pulling image: ErrImagePull: not found";
            let state = json!({"waiting": {"reason": "ImagePullBackOff", "message": message}});
            let not_ready = |type_: &str| json!({"type": type_, "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": now});
            let patch = json!({"status": {
                "phase": "Pending",
                "conditions": [not_ready("Ready"), not_ready("ContainersReady")],
                "containerStatuses": [compute(&state)],
            }});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(|_| ())
        }
        Next::DeletePod => pods.delete(&name, &DeleteParams::default()).await.map(|_| ()),
        Next::RemovePod => pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(|_| ()),
        Next::Launch | Next::Status(_) | Next::Release | Next::Wait(_) | Next::Nothing => Ok(()),
    };
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other?),
    }
}

/// The status of the container `compute`, by the kubelet.
fn compute(state: &Value) -> Value {
    let mut state = state.clone();
    state["running"] = Value::Null;
    json!({"name": COMPUTE, "image": IMAGE, "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

/// The VMI has no status subresource: its status is written on the object, and the generation grows.
async fn write(
    api: &Api<VirtualMachineInstance>,
    instance: &VirtualMachineInstance,
    status: VirtualMachineInstanceStatus,
) -> Result<(), Error> {
    let mut changed = instance.clone();
    if let Some(node) = &status.node_name {
        changed.labels_mut().insert("kubevirt.io/nodeName".into(), node.clone());
    }
    changed.status = Some(status);
    api.replace(&instance.name_any(), &PostParams::default(), &changed).await?;
    Ok(())
}

impl Instances {
    fn situation<'a>(&self, instance: &VirtualMachineInstance, pod: Option<&'a Pod>) -> Situation<'a> {
        let uid = instance.uid().unwrap_or_default();
        let phase = instance.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
        let node_name = pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_deref());
        let node = node_name.and_then(|name| self.nodes.store.get(&ObjectRef::new(name)));
        let node = node.as_deref();
        let pod_uid = pod.filter(|pod| pod.metadata.deletion_timestamp.is_some()).and_then(ResourceExt::uid);
        // What this process has not launched itself was launched before it started.
        let launched = lock(&self.launched).contains(&uid) || !matches!(phase, VirtualMachineInstancePhase::Pending);
        let mut had = lock(&self.since);
        if pod.is_some() {
            had.entry(format!("{uid}/pod")).or_insert_with(Instant::now);
        }
        let had_pod = had.contains_key(&format!("{uid}/pod"));
        drop(had);
        Situation {
            pod,
            had_pod,
            launched,
            node_reports: node_name.is_none() || node.is_some_and(reports),
            real_node: node.is_some_and(is_real),
            guest: self.knobs.guest(instance),
            paused: lock(&self.paused).contains(&(instance.namespace().unwrap_or_default(), instance.name_any())),
            scheduled: match phase {
                VirtualMachineInstancePhase::Scheduled | VirtualMachineInstancePhase::Running => {
                    self.since(format!("{uid}/{:?}", VirtualMachineInstancePhase::Scheduled))
                }
                _ => Duration::ZERO,
            },
            in_phase: self.since(format!("{uid}/{phase:?}")),
            terminating: pod_uid.map(|uid| self.since(uid)).unwrap_or_default(),
        }
    }

    /// How long ago this was asked first.
    fn since(&self, key: String) -> Duration {
        lock(&self.since).entry(key).or_insert_with(Instant::now).elapsed()
    }
}

fn reports(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether a kubelet runs there. KWOK puts its own version in the place of the kubelet's.
fn is_real(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.is_some_and(|info| !info.kubelet_version.starts_with("kwok-"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
