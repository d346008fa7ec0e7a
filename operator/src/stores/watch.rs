//! One task a kind: list, watch, enter what comes into its store, and wake the workloads that it concerns.
//!
//! Each watch has its own pauses, so that one kind that fails cannot hold up the others.

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use catamaran_controller::{
    supervise::Tasks,
    watch::{Event, Life, watch},
};
use catamaran_crds::{
    WorkloadClass, WorkloadClassSpec,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet},
    names::WORKLOAD_LABEL,
};
use catamaran_plan::facts::{Crash, KubeVirt};
use dashmap::DashMap;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::reflector::{self, store::Writer},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch::{Sender, channel};

use super::{
    Crashes, Index, Queue, SliceEntry, Source, StoredWorkload, Stores, WorkloadKey, controller, convert,
    crashes::Ended, pods, resize,
};

/// How long an absent kind is left alone before it is looked for again.
const ABSENT_PAUSE: Duration = Duration::from_secs(3);

/// The selector of what carries our label.
const OURS: Option<&str> = Some(WORKLOAD_LABEL);

/// Starts all watches.
pub(crate) fn start(source: &Source, tasks: &mut Tasks) -> Stores {
    let (workloads, workloads_writer) = reflector::store();
    let (classes, classes_writer) = reflector::store();
    let (kubevirt_writer, kubevirt) = channel(None);
    let (resize_writer, resize) = channel(None);
    let stores = Stores {
        workloads,
        written: Arc::default(),
        last_good: Arc::default(),
        classes,
        unreadable_classes: Arc::default(),
        replica_sets: Arc::default(),
        machine_sets: Arc::default(),
        instances: Arc::default(),
        pods: Arc::default(),
        services: Arc::default(),
        slices: Arc::default(),
        crashes: Arc::default(),
        kubevirt,
        lives: Arc::default(),
        resize,
        listed: Arc::default(),
    };
    let (lives, queue) = (&stores.lives, || source.queue.clone());
    tasks.spawn_once("look for pods/resize", resize::find_out(source.client.clone(), resize_writer));
    let workloads = events(source.api(), None, &lives.workloads);
    let workloads = watch_workloads(workloads, workloads_writer, stores.clone(), queue());
    tasks.spawn("watch of ElasticWorkloads", workloads);
    let classes = events(Api::all(source.client.clone()), None, &lives.classes);
    tasks.spawn("watch of WorkloadClasses", watch_classes(classes, classes_writer, stores.clone(), queue()));
    let sets = events(source.api::<ReplicaSet>(), OURS, &lives.replica_sets);
    tasks.spawn("watch of ReplicaSets", watch_children(sets, stores.replica_sets.clone(), queue()));
    let services = events(source.api::<Service>(), OURS, &lives.services);
    tasks.spawn("watch of Services", watch_children(services, stores.services.clone(), queue()));
    let slices = events(source.api(), OURS, &lives.slices);
    tasks.spawn("watch of EndpointSlices", watch_slices(slices, stores.slices.clone(), queue()));
    let pods = events(source.api(), OURS, &lives.pods);
    tasks.spawn("watch of Pods", watch_pods(pods, stores.clone(), queue()));
    let kubevirt = watch_kubevirt(source.api(), source.api(), stores.clone(), queue(), kubevirt_writer);
    tasks.spawn("watches of KubeVirt's kinds", kubevirt);
    stores
}

impl Source {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

/// A watch whose errors are in the log. It starts again by itself.
fn events<K>(api: Api<K>, selector: Option<&str>, life: &Life) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    watch(api, selector, life.clone())
        .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is started again"))
        .filter_map(|event| std::future::ready(event.ok()))
}

async fn watch_workloads(
    stream: impl Stream<Item = Event<StoredWorkload>>,
    mut writer: Writer<StoredWorkload>,
    stores: Stores,
    queue: Queue,
) {
    let written = &stores.written;
    let mut stream = std::pin::pin!(stream);
    while let Some(mut event) = stream.next().await {
        if let Event::Apply(workload) | Event::InitApply(workload) = &mut event {
            workload.meta_mut().managed_fields = None;
            if let Some(annotations) = &mut workload.meta_mut().annotations {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
            if let Some(before) = stores.workloads.get(&WorkloadKey::of_workload(workload).reference()) {
                stores.replaces(&before, workload);
            }
        }
        writer.apply_watcher_event(&event);
        match &event {
            Event::Apply(workload) | Event::InitApply(workload) => {
                if written.shown(workload) {
                    queue.wake_now(WorkloadKey::of_workload(workload));
                }
            }
            Event::Delete(workload) => {
                let key = WorkloadKey::of_workload(workload);
                written.forget(&key);
                queue.wake_now(key);
            }
            Event::InitDone => {
                queue.wake_all(writer.as_reader().state().iter().map(|w| WorkloadKey::of_workload(w.as_ref())))
            }
            Event::Init => {}
        }
    }
}

/// A class that cannot be read concerns the workloads that name it, and nobody else.
async fn watch_classes(
    stream: impl Stream<Item = Event<DeserializeGuard<WorkloadClass>>>,
    mut writer: Writer<WorkloadClass>,
    stores: Stores,
    queue: Queue,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let concerned = match &event {
            Event::Apply(class) | Event::Delete(class) => Some(class.name_any()),
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let listed = matches!(event, Event::InitDone);
        let before = if concerned.is_some() || listed { stores.classes.state() } else { Vec::new() };
        if let Some(event) = readable(event, &stores.unreadable_classes) {
            writer.apply_watcher_event(&event);
        }
        if concerned.is_some() || listed {
            let users = stores.workloads.state_filter(|workload| match &workload.0 {
                Ok(workload) => workload.spec.class_name.is_some() && (listed || workload.spec.class_name == concerned),
                Err(_) => false,
            });
            for workload in users.iter().filter_map(|workload| workload.0.as_ref().ok()) {
                let named = |class: &&Arc<WorkloadClass>| class.metadata.name == workload.spec.class_name;
                stores.class_replaces(before.iter().find(named).map(AsRef::as_ref), workload);
            }
            queue.wake_all(users.iter().map(|workload| WorkloadKey::of_workload(workload.as_ref())));
        }
    }
}

/// The event as the store of readable classes sees it: for it, a class that became unreadable is gone.
fn readable(
    event: Event<DeserializeGuard<WorkloadClass>>,
    unreadable: &DashMap<String, String>,
) -> Option<Event<WorkloadClass>> {
    let read = |guard: DeserializeGuard<WorkloadClass>| {
        let name = guard.name_any();
        match guard.0 {
            Ok(mut class) => {
                unreadable.remove(&name);
                class.metadata.managed_fields = None;
                Ok(class)
            }
            Err(error) => {
                tracing::warn!(name, %error, "a WorkloadClass cannot be read");
                unreadable.insert(name, error.error.to_string());
                Err(Box::new(WorkloadClass { metadata: error.metadata, spec: WorkloadClassSpec::default() }))
            }
        }
    };
    match event {
        Event::Apply(guard) => Some(match read(guard) {
            Ok(class) => Event::Apply(class),
            Err(gone) => Event::Delete(*gone),
        }),
        Event::InitApply(guard) => read(guard).ok().map(Event::InitApply),
        Event::Delete(guard) => {
            unreadable.remove(&guard.name_any());
            Some(Event::Delete(WorkloadClass { metadata: guard.meta().clone(), spec: WorkloadClassSpec::default() }))
        }
        Event::Init => {
            unreadable.clear();
            Some(Event::Init)
        }
        Event::InitDone => Some(Event::InitDone),
    }
}

async fn watch_children<K, T>(stream: impl Stream<Item = Event<K>>, index: Arc<Index<T>>, queue: Queue)
where
    K: Resource,
    T: Clone + for<'a> From<&'a K> + Send + Sync + 'static,
{
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        enter(&index, &event, &queue);
    }
}

/// Watches the EndpointSlices of our Services, whose labels they carry. Only launcher pods that go wake a workload.
async fn watch_slices(stream: impl Stream<Item = Event<EndpointSlice>>, index: Arc<Index<SliceEntry>>, queue: Queue) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match &event {
            Event::Apply(slice) | Event::InitApply(slice) => {
                let before = index.find(&slice.metadata).unwrap_or_default();
                let news = index.apply(&slice.metadata, SliceEntry::from(slice));
                if !before.is_empty() {
                    queue.wake_all(news);
                }
            }
            Event::Delete(slice) => queue.wake_all(index.remove(&slice.metadata)),
            Event::Init => index.begin_listing(),
            Event::InitDone => queue.wake_all(index.end_listing()),
        }
    }
}

/// Watches pods. Their replica sets tell when they change; only marks and quotas wake a workload.
async fn watch_pods(stream: impl Stream<Item = Event<Pod>>, stores: Stores, queue: Queue) {
    let pods = &stores.pods;
    let mut stream = std::pin::pin!(stream);
    let mut listing = HashSet::new();
    while let Some(event) = stream.next().await {
        queue.wake_all(note_launcher_end(&stores.crashes, &event));
        match &event {
            Event::Apply(pod) => queue.wake_all(pods.enter(pod)),
            Event::InitApply(pod) => {
                listing.insert(pods::key(&pod.metadata));
                queue.wake_all(pods.enter(pod));
            }
            Event::Delete(pod) => pods.remove(pod),
            Event::Init => {
                listing.clear();
                pods.index.begin_listing();
            }
            Event::InitDone => pods.listed(&std::mem::take(&mut listing)),
        }
    }
}

/// Enters one event into an index and wakes the workloads concerned.
fn enter<K, T>(index: &Index<T>, event: &Event<K>, queue: &Queue)
where
    K: Resource,
    T: Clone + for<'a> From<&'a K>,
{
    match event {
        Event::Apply(object) | Event::InitApply(object) => {
            queue.wake_all(index.apply(object.meta(), T::from(object)));
        }
        Event::Delete(object) => queue.wake_all(index.remove(object.meta())),
        Event::Init => index.begin_listing(),
        Event::InitDone => queue.wake_all(index.end_listing()),
    }
}

/// Watches KubeVirt's kinds, and waits for them while they are not served. What cannot be learned of them keeps nobody
/// else from starting.
async fn watch_kubevirt(
    sets: Api<VirtualMachineInstanceReplicaSet>,
    instances: Api<VirtualMachineInstance>,
    stores: Stores,
    queue: Queue,
    state: Sender<Option<KubeVirt>>,
) {
    let set = |to: KubeVirt| {
        if state.borrow().as_ref() != Some(&to) {
            tracing::info!(kubevirt = ?to, "whether KubeVirt's kinds are served");
            state.send_replace(Some(to));
            let workloads = stores.workloads.state();
            queue.wake_all(workloads.iter().map(|workload| WorkloadKey::of_workload(workload.as_ref())));
        }
    };
    let lives = stores.lives.kubevirt();
    loop {
        let asked = lives.map(Life::asked);
        let (mut sets_listed, mut instances_listed) = (false, false);
        let mut set_events = std::pin::pin!(watch(sets.clone(), OURS, stores.lives.machine_sets.clone()));
        let mut instance_events = std::pin::pin!(watch(instances.clone(), OURS, stores.lives.instances.clone()));
        loop {
            let outcome = tokio::select! {
                Some(event) = set_events.next() => event.map(|event| {
                    sets_listed |= matches!(event, Event::InitDone);
                    if let Event::Delete(set) = &event {
                        stores.crashes.forget(&set.uid().unwrap_or_default());
                    }
                    enter(&stores.machine_sets, &event, &queue);
                }),
                Some(event) = instance_events.next() => event.map(|event| {
                    instances_listed |= matches!(event, Event::InitDone);
                    note_end(&stores, &event);
                    enter(&stores.instances, &event, &queue);
                }),
            };
            match outcome {
                Ok(()) if sets_listed && instances_listed => set(KubeVirt::Installed),
                Ok(()) => {}
                Err(error) if error.is_absent() => break,
                Err(error) => {
                    tracing::warn!(%error, "the watch of KubeVirt's kinds failed and is started again");
                    if state.borrow().is_none() {
                        set(KubeVirt::Unknown);
                    }
                }
            }
        }
        stores.machine_sets.clear();
        stores.instances.clear();
        for (life, asked) in lives.into_iter().zip(asked) {
            life.sign();
            life.answer(asked);
        }
        set(KubeVirt::Absent);
        tokio::time::sleep(ABSENT_PAUSE).await;
    }
}

/// Notes what an instance shows of its end; before it is entered, so that its replacement is not yet there.
fn note_end(stores: &Stores, event: &Event<VirtualMachineInstance>) {
    let now = Timestamp::now();
    match event {
        Event::Apply(instance) | Event::InitApply(instance) => {
            let uid = instance.uid().unwrap_or_default();
            if let Some(end) = convert::instance_end(instance)
                && let Some(set) = controller(&instance.metadata)
                && let Some(workload) = WorkloadKey::from_labels(&instance.metadata)
            {
                let created = convert::created(instance);
                let peers = stores.instances.children(&workload);
                let peers = peers.iter().filter(|peer| peer.owner.as_ref() == Some(&set));
                let newest = peers.map(|peer| peer.instance.created).fold(created, Ord::max);
                let crash = Crash { created, ended: now, newest };
                stores.crashes.ended(&uid, Ended { end, set, workload, crash }, now);
            } else if instance.metadata.deletion_timestamp.is_some() {
                stores.crashes.asked(&uid, now);
            }
        }
        Event::Delete(instance) => stores.crashes.gone(&instance.uid().unwrap_or_default()),
        Event::Init | Event::InitDone => {}
    }
}

/// Notes how a launcher pod ended. Returns the workload for which that explains an end.
fn note_launcher_end(crashes: &Crashes, event: &Event<Pod>) -> Option<WorkloadKey> {
    match event {
        Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) => {
            let (instance, end) = convert::launcher_end(pod)?;
            crashes.launcher(&instance, end, Timestamp::now())
        }
        Event::Init | Event::InitDone => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(name: &str, quota: Value) -> DeserializeGuard<WorkloadClass> {
        serde_json::from_value(json!({
            "apiVersion": "catamaran.dev/v1alpha1", "kind": "WorkloadClass", "metadata": {"name": name},
            "spec": {"quota": quota},
        }))
        .expect("whatever it holds, it is read at least as an error")
    }

    #[test]
    fn a_class_of_a_newer_version_is_read_and_one_that_cannot_be_is_known_by_its_error() {
        let (reader, mut writer) = reflector::store();
        let unreadable = DashMap::new();
        let mut enter = |event| {
            if let Some(event) = readable(event, &unreadable) {
                writer.apply_watcher_event(&event);
            }
        };
        let names = || {
            let mut names: Vec<_> = reader.state().iter().map(|class: &Arc<WorkloadClass>| class.name_any()).collect();
            names.sort();
            names
        };
        let why = |name: &str| unreadable.get(name).map(|why| why.clone());
        enter(Event::Init);
        enter(Event::InitApply(class("newer", json!({"cpu": {"limit": "1", "cores": "0-3"}, "numa": "strict"}))));
        enter(Event::InitApply(class("odd", json!({"pids": "many"}))));
        enter(Event::InitDone);
        assert_eq!(names(), ["newer"]);
        assert!(why("odd").is_some_and(|why| why.contains("many")), "{:?}", why("odd"));
        enter(Event::Apply(class("odd", json!({"pids": 5}))));
        assert_eq!((names(), why("odd")), (vec!["newer".to_owned(), "odd".to_owned()], None), "corrected");
        enter(Event::Apply(class("newer", json!("large"))));
        assert_eq!(names(), ["odd"], "what it was is not what it is");
        assert!(why("newer").is_some());
        enter(Event::Delete(class("newer", json!("large"))));
        assert_eq!(why("newer"), None);
    }
}
