//! The peer of `reconcile`: a client that decides nothing, and writes what an operator wrote.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result, bail};
use catamaran_crds::{ElasticWorkload, names::FIELD_MANAGER};
use catamaran_e2e::audit::Counts;
use futures::{StreamExt, stream, stream::BoxStream};
use k8s_openapi::api::{apps::v1::ReplicaSet, events::v1::Event as KubernetesEvent};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Error, Event, watcher},
    },
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::reconcile::{CONCURRENCY, WORKLOADS, create};

/// When to give up.
const WITHIN: Duration = Duration::from_secs(300);
/// So long without an event means that no further one will come.
const QUIET: Duration = Duration::from_secs(2);

/// Sees from outside how far a namespace is; the same for both sides.
pub(super) struct Progress {
    news: BoxStream<'static, Result<News, Error>>,
    started: Instant,
}

enum News {
    Listed,
    Set(String),
    Workload { name: String, with_status: bool },
    Other,
}

impl Progress {
    /// Starts to watch; from here on the time counts.
    pub(super) async fn start(client: &Client, namespace: &str) -> Result<Self> {
        let sets: Api<PartialObjectMeta<ReplicaSet>> = Api::namespaced(client.clone(), namespace);
        let sets = watcher(sets, Config::default()).default_backoff().map(|event| {
            Ok(match event? {
                Event::Apply(set) | Event::InitApply(set) => News::Set(set.name_any()),
                Event::InitDone => News::Listed,
                Event::Init | Event::Delete(_) => News::Other,
            })
        });
        let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), namespace);
        let workloads = watcher(workloads, Config::default()).default_backoff().map(|event| {
            Ok(match event? {
                Event::Apply(workload) | Event::InitApply(workload) => {
                    let observed = workload.status.as_ref().and_then(|status| status.observed_generation);
                    News::Workload {
                        name: workload.name_any(),
                        with_status: observed.is_some() && observed == workload.metadata.generation,
                    }
                }
                Event::InitDone => News::Listed,
                Event::Init | Event::Delete(_) => News::Other,
            })
        });
        let mut news = stream::select(sets.boxed(), workloads.boxed()).boxed();
        let mut lists = 0;
        while lists < 2 {
            let next = timeout(WITHIN, news.next()).await?.context("the watch has ended")??;
            lists += u32::from(matches!(next, News::Listed));
        }
        Ok(Self { news, started: Instant::now() })
    }

    /// Waits until every workload has its set and its status, and nothing of them changes any more. Gives the seconds
    /// until the last change.
    pub(super) async fn finished(mut self) -> Result<f64> {
        let (mut sets, mut workloads) = (HashSet::new(), HashSet::new());
        let wanted = usize::try_from(WORKLOADS)?;
        let mut last = self.started;
        let deadline = self.started + WITHIN;
        loop {
            let complete = sets.len() == wanted && workloads.len() == wanted;
            let until = if complete { last + QUIET } else { deadline };
            match timeout_at(until, self.news.next()).await {
                Ok(news) => {
                    match news.context("the watch has ended")?? {
                        News::Set(name) => _ = sets.insert(name),
                        News::Workload { name, with_status: true } => _ = workloads.insert(name),
                        News::Workload { .. } | News::Other | News::Listed => continue,
                    }
                    last = Instant::now();
                }
                Err(_) if complete => return Ok((last - self.started).as_secs_f64()),
                Err(_) => bail!("after {WITHIN:?} there are {} sets and {} statuses", sets.len(), workloads.len()),
            }
        }
    }
}

/// What the operator wrote for one workload.
pub(super) struct Sample {
    workload: String,
    set: Value,
    status: Value,
    event: Option<Value>,
    /// How often it wrote each, for one workload.
    statuses: u64,
    events: u64,
}

impl Sample {
    /// Takes the objects of one workload, and from the counts of all writes how many each workload needed.
    ///
    /// Errors: the operator wrote something that the peer does not know.
    pub(super) async fn take(client: &Client, namespace: &str, counts: &Counts) -> Result<Self> {
        let (mut sets, mut statuses, mut events) = (0, 0, 0);
        for ((_, verb, resource), count) in counts {
            let each = (u64::try_from(*count)? + u64::from(WORKLOADS) / 2) / u64::from(WORKLOADS);
            match (verb.as_str(), resource.as_str()) {
                ("create", "replicasets") => sets = each,
                ("patch", "elasticworkloads/status") => statuses = each,
                ("create", "events") => events = each,
                // An Event that came twice, for a few workloads.
                _ if each == 0 => {}
                _ => bail!("the peer cannot {verb} {resource}"),
            }
        }
        if sets != 1 {
            bail!("the peer writes each set once, the operator wrote it {sets} times");
        }
        let first = ListParams::default().limit(1);
        let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), namespace);
        let workload = workloads.list(&first).await?.items.into_iter().next().context("there are workloads")?;
        let name = workload.name_any();
        let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
        let sets = sets.list(&ListParams::default().labels(&format!("catamaran.dev/workload={name}"))).await?;
        let mut set = sets.items.into_iter().next().context("the workload has a set")?;
        set.metadata = kube::api::ObjectMeta {
            name: set.metadata.name,
            labels: set.metadata.labels,
            annotations: set.metadata.annotations,
            owner_references: set.metadata.owner_references,
            ..Default::default()
        };
        set.status = None;
        let all: Api<KubernetesEvent> = Api::namespaced(client.clone(), namespace);
        let event = all
            .list(&ListParams::default().limit(500))
            .await?
            .items
            .into_iter()
            .find(|event| event.regarding.as_ref().and_then(|regarding| regarding.name.as_ref()) == Some(&name));
        Ok(Self {
            set: serde_json::to_value(set)?,
            status: serde_json::to_value(&workload.status)?,
            event: event
                .map(|mut event| {
                    event.metadata = kube::api::ObjectMeta::default();
                    serde_json::to_value(event)
                })
                .transpose()?,
            workload: name,
            statuses,
            events,
        })
    }

    /// The same for another workload.
    fn copy<T: serde::de::DeserializeOwned>(&self, value: &Value, name: &str) -> Result<T> {
        Ok(serde_json::from_str(&value.to_string().replace(&self.workload, name))?)
    }
}

/// Creates the workloads as `creator`, and as `writer` with the same concurrency writes for each what the sample says.
pub(super) async fn write_the_same(creator: &Client, writer: &Client, namespace: &str, sample: &Sample) -> Result<()> {
    // No bound: as for the operator, workloads may come quicker than they are worked off.
    let (created, waiting) = mpsc::unbounded_channel();
    let creating = async {
        // Moved in, so that the channel closes at the end.
        let created = created;
        create(creator, namespace, |workload| std::future::ready(created.send(workload).map_err(Into::into))).await
    };
    let waiting =
        stream::unfold(waiting, |mut waiting| async { waiting.recv().await.map(|workload| (workload, waiting)) });
    let writing = waiting
        .map(|workload| write_one(writer, namespace, sample, workload))
        .buffer_unordered(CONCURRENCY)
        .fold(Ok(()), |so_far, one| std::future::ready(so_far.and(one)));
    let ((), ()) = tokio::try_join!(creating, writing)?;
    Ok(())
}

async fn write_one(client: &Client, namespace: &str, sample: &Sample, workload: ElasticWorkload) -> Result<()> {
    let (name, uid) = (workload.name_any(), workload.uid());
    let apply = PatchParams::apply(FIELD_MANAGER).force();

    let mut set: ReplicaSet = sample.copy(&sample.set, &name)?;
    for owner in set.metadata.owner_references.iter_mut().flatten() {
        owner.uid = uid.clone().unwrap_or_default();
    }
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let create = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    sets.create(&create, &set).await?;

    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), namespace);
    for repeat in 0..sample.statuses {
        let mut status: Value = sample.copy(&sample.status, &name)?;
        // Different each time, or the server would have nothing to store.
        status["desiredReplicas"] = json!(repeat);
        let body = json!({
            "apiVersion": "catamaran.dev/v1alpha1",
            "kind": "ElasticWorkload",
            "metadata": {"name": name, "uid": uid},
            "status": status,
        });
        workloads.patch_status(&name, &apply, &Patch::Apply(&body)).await?;
    }

    let events: Api<KubernetesEvent> = Api::namespaced(client.clone(), namespace);
    for repeat in 0..sample.events {
        let mut event: KubernetesEvent = sample.copy(sample.event.as_ref().context("there are Events")?, &name)?;
        event.metadata.name = Some(format!("{name}.{repeat}"));
        event.metadata.namespace = Some(namespace.to_owned());
        if let Some(regarding) = &mut event.regarding {
            regarding.namespace = Some(namespace.to_owned());
            regarding.uid = uid.clone();
        }
        events.create(&PostParams::default(), &event).await?;
    }
    Ok(())
}
