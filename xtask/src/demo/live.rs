//! Watches the workloads and their replicas, for the table.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use catamaran_crds::{ElasticWorkload, kubevirt::VirtualMachineInstance, names::WORKLOAD_LABEL};
use futures::{Stream, StreamExt, stream::select_all};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;

use super::screen::{Row, Screen};

/// Shows a namespace on the screen until it is dropped.
pub(super) struct Live(AbortHandle);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a watch says.
enum News {
    Workload(Box<ElasticWorkload>),
    NoWorkload(String),
    Replica { uid: String, state: Option<Replica> },
}

struct Replica {
    workload: String,
    machine: bool,
    ready: bool,
}

impl Live {
    /// Starts to watch; virtual machines only where the cluster has their kinds.
    pub(super) fn start(client: &Client, namespace: &str, kubevirt: bool, screen: Arc<Screen>) -> Self {
        let workloads = watch(Api::namespaced(client.clone(), namespace), Config::default(), |workload, gone| {
            let workload: ElasticWorkload = workload;
            Some(if gone { News::NoWorkload(workload.name_any()) } else { News::Workload(Box::new(workload)) })
        });
        let ours = Config::default().labels(WORKLOAD_LABEL);
        let pods = watch(Api::<Pod>::namespaced(client.clone(), namespace), ours.clone(), |pod, gone| {
            let launcher = pod.labels().contains_key("kubevirt.io");
            let conditions = pod.status.clone().and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            if launcher { None } else { replica(&pod, gone, false, ready) }
        });
        let mut news = select_all([workloads.boxed(), pods.boxed()]);
        if kubevirt {
            let machines = Api::<VirtualMachineInstance>::namespaced(client.clone(), namespace);
            news.push(watch(machines, ours, machine).boxed());
        }
        let task = tokio::spawn(async move {
            let mut workloads = BTreeMap::new();
            let mut replicas = HashMap::new();
            while let Some(news) = news.next().await {
                match news {
                    News::Workload(workload) => {
                        workloads.insert(workload.name_any(), workload);
                    }
                    News::NoWorkload(name) => {
                        workloads.remove(&name);
                    }
                    News::Replica { uid, state: Some(replica) } => {
                        replicas.insert(uid, replica);
                    }
                    News::Replica { uid, state: None } => {
                        replicas.remove(&uid);
                    }
                }
                screen
                    .show(workloads.iter().map(|(name, workload)| (name.clone(), row(workload, &replicas))).collect());
            }
        });
        Self(task.abort_handle())
    }
}

fn watch<K>(
    api: Api<K>,
    config: Config,
    news: impl Fn(K, bool) -> Option<News> + Send + 'static,
) -> impl Stream<Item = News> + Send
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher(api, config).default_backoff().filter_map(move |event| {
        let news = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => news(object, false),
            Ok(Event::Delete(object)) => news(object, true),
            // A watch that breaks begins anew by itself.
            Ok(Event::Init | Event::InitDone) | Err(_) => None,
        };
        std::future::ready(news)
    })
}

fn machine(machine: VirtualMachineInstance, gone: bool) -> Option<News> {
    let conditions = machine.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    replica(&machine, gone, true, ready)
}

fn replica(object: &impl ResourceExt, gone: bool, machine: bool, ready: bool) -> Option<News> {
    let workload = object.labels().get(WORKLOAD_LABEL)?.clone();
    let live = !gone && object.meta().deletion_timestamp.is_none();
    Some(News::Replica { uid: object.uid()?, state: live.then_some(Replica { workload, machine, ready }) })
}

fn row(workload: &ElasticWorkload, replicas: &HashMap<String, Replica>) -> Row {
    let name = workload.name_any();
    let count = |machine| {
        let mine = replicas.values().filter(|replica| replica.workload == name && replica.machine == machine);
        mine.fold((0, 0), |(ready, all), replica| (ready + usize::from(replica.ready), all + 1))
    };
    let status = workload.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    Row {
        hull: status.hull.map(|hull| hull.to_string()).unwrap_or_default(),
        counts: [status.desired_replicas, status.updated_replicas, status.available_replicas],
        containers: count(false),
        machines: count(true),
        reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
    }
}
