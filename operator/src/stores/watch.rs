//! One task a kind: list, watch, enter what comes into its store, and wake the workloads that it concerns.
//!
//! Each watch has its own backoff, so that one kind that fails cannot hold up the others.

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use catamaran_controller::supervise::Tasks;
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
    runtime::{
        WatchStreamExt,
        reflector::{self, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    Crashes, Index, Queue, SliceEntry, Source, StoredWorkload, Stores, WorkloadKey, Written, convert, crashes::Ended,
    pods, resize,
};

/// How long an absent kind is left alone before it is looked for again.
const ABSENT_PAUSE: Duration = Duration::from_secs(3);

/// The longest pause of a watch that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Starts all watches.
pub(crate) fn start(source: &Source, tasks: &mut Tasks) -> Stores {
    let (workloads, workloads_writer) = reflector::store();
    let (classes, classes_writer) = reflector::store();
    let (kubevirt_writer, kubevirt) = watch::channel(None);
    let (resize_writer, resize) = watch::channel(None);
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
        resize,
        listed: Arc::default(),
    };
    let queue = || source.queue.clone();
    tasks.spawn_once("look for pods/resize", resize::find_out(source.client.clone(), resize_writer));
    tasks.spawn(
        "watch of ElasticWorkloads",
        watch_workloads(source.api(), workloads_writer, stores.written.clone(), queue()),
    );
    let classes = Api::all(source.client.clone());
    tasks.spawn("watch of WorkloadClasses", watch_classes(classes, classes_writer, stores.clone(), queue()));
    let sets = watch_children(source.api::<ReplicaSet>(), stores.replica_sets.clone(), queue());
    tasks.spawn("watch of ReplicaSets", sets);
    let services = watch_children(source.api::<Service>(), stores.services.clone(), queue());
    tasks.spawn("watch of Services", services);
    let slices = watch_slices(source.api(), stores.slices.clone(), queue());
    tasks.spawn("watch of EndpointSlices", slices);
    tasks.spawn("watch of Pods", watch_pods(source.api(), stores.clone(), queue()));
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

/// A watch that starts again after errors, with a pause that grows and is reset by success.
fn events<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    watcher(api, config)
        .default_backoff()
        .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is started again"))
        .filter_map(|event| std::future::ready(event.ok()))
}

/// Only what carries our label.
fn ours() -> watcher::Config {
    watcher::Config::default().labels(WORKLOAD_LABEL)
}

async fn watch_workloads(
    api: Api<StoredWorkload>,
    mut writer: Writer<StoredWorkload>,
    written: Arc<Written>,
    queue: Queue,
) {
    let stream = events(api, watcher::Config::default());
    let mut stream = std::pin::pin!(stream);
    while let Some(mut event) = stream.next().await {
        if let Event::Apply(workload) | Event::InitApply(workload) = &mut event {
            workload.meta_mut().managed_fields = None;
            if let Some(annotations) = &mut workload.meta_mut().annotations {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
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
    api: Api<DeserializeGuard<WorkloadClass>>,
    mut writer: Writer<WorkloadClass>,
    stores: Stores,
    queue: Queue,
) {
    let stream = events(api, watcher::Config::default());
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let concerned = match &event {
            Event::Apply(class) | Event::Delete(class) => Some(class.name_any()),
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let listed = matches!(event, Event::InitDone);
        if let Some(event) = readable(event, &stores.unreadable_classes) {
            writer.apply_watcher_event(&event);
        }
        if concerned.is_some() || listed {
            let users = stores.workloads.state_filter(|workload| match &workload.0 {
                Ok(workload) => workload.spec.class_name.is_some() && (listed || workload.spec.class_name == concerned),
                Err(_) => false,
            });
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

async fn watch_children<K, T>(api: Api<K>, index: Arc<Index<T>>, queue: Queue)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    T: Clone + for<'a> From<&'a K> + Send + Sync + 'static,
{
    let stream = events(api, ours());
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        enter(&index, &event, &queue);
    }
}

/// Watches the EndpointSlices of our Services, whose labels they carry. Only launcher pods that go wake a workload.
async fn watch_slices(api: Api<EndpointSlice>, index: Arc<Index<SliceEntry>>, queue: Queue) {
    let stream = events(api, ours());
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match &event {
            Event::Apply(slice) | Event::InitApply(slice) => {
                let before = index.find(&slice.metadata).unwrap_or_default();
                let news = index.apply(&slice.metadata, SliceEntry::from(slice));
                queue.wake_all(news.filter(|_| !before.is_empty()));
            }
            Event::Delete(slice) => queue.wake_all(index.remove(&slice.metadata)),
            Event::Init => index.begin_listing(),
            Event::InitDone => queue.wake_all(index.end_listing()),
        }
    }
}

/// Watches pods. Their replica sets tell when they change; only marks and quotas wake a workload.
async fn watch_pods(api: Api<Pod>, stores: Stores, queue: Queue) {
    let pods = &stores.pods;
    let stream = events(api, ours());
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

/// Watches KubeVirt's kinds, and waits for them while they are not served.
async fn watch_kubevirt(
    sets: Api<VirtualMachineInstanceReplicaSet>,
    instances: Api<VirtualMachineInstance>,
    stores: Stores,
    queue: Queue,
    state: watch::Sender<Option<KubeVirt>>,
) {
    loop {
        let mut pause = ABSENT_PAUSE;
        let mut sets_listed = false;
        let mut instances_listed = false;
        let mut set_events = std::pin::pin!(watcher(sets.clone(), ours()));
        let mut instance_events = std::pin::pin!(watcher(instances.clone(), ours()));
        let error = loop {
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
                Ok(()) if sets_listed && instances_listed && *state.borrow() != Some(KubeVirt::Installed) => {
                    tracing::info!("KubeVirt is installed");
                    state.send_replace(Some(KubeVirt::Installed));
                    queue.wake_all(
                        stores.workloads.state().iter().map(|workload| WorkloadKey::of_workload(workload.as_ref())),
                    );
                }
                Ok(()) => {}
                Err(error) if is_absent(&error) => break None,
                Err(error) if pause >= LONGEST_PAUSE => break Some(error),
                Err(error) => {
                    // The watcher goes on from where it was; only a failure that stays starts it anew.
                    tracing::warn!(%error, "the watch of KubeVirt's kinds failed");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    pause += Duration::from_secs(1);
                }
            }
        };
        if let Some(error) = error {
            tracing::warn!(%error, "the watch of KubeVirt's kinds is started anew");
        } else if *state.borrow() != Some(KubeVirt::Absent) {
            tracing::info!("KubeVirt is not installed; virtual machines wait for it");
            stores.machine_sets.clear();
            stores.instances.clear();
            state.send_replace(Some(KubeVirt::Absent));
            queue.wake_all(stores.workloads.state().iter().map(|workload| WorkloadKey::of_workload(workload.as_ref())));
        }
        tokio::time::sleep(pause).await;
    }
}

/// Notes what an instance shows of its end; before it is entered, so that its replacement is not yet there.
fn note_end(stores: &Stores, event: &Event<VirtualMachineInstance>) {
    let now = Timestamp::now();
    match event {
        Event::Apply(instance) | Event::InitApply(instance) => {
            let uid = instance.uid().unwrap_or_default();
            if let Some(end) = convert::instance_end(instance)
                && let Some(set) = convert::controller(&instance.metadata)
                && let Some(workload) = WorkloadKey::of(&instance.metadata)
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

/// The API server does not know the kind: 404 for the path itself.
fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        watcher::Error::WatchError(status) => status.code == 404,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => false,
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
        enter(Event::Apply(class("newer", json!([]))));
        assert_eq!(names(), ["odd"], "what it was is not what it is");
        assert!(why("newer").is_some());
        enter(Event::Delete(class("newer", json!([]))));
        assert_eq!(why("newer"), None);
    }
}
