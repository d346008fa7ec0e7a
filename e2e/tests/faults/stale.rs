//! A new leader with an old view, and one that finds half of what was written.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    faults::{Fault, Match, Rule, Verb},
    history::History,
    metrics_adapter::{CustomVersions, MetricsAdapter},
    workloads::{wait_for, workloads},
};
use futures::StreamExt;
use kube::{
    Client,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Ground, ROLLOUT, SHOP, web};

/// The generations that a workload's status spoke of, at every watch event.
struct Generations {
    seen: Arc<Mutex<Vec<i64>>>,
    _watch: AbortOnDropHandle<()>,
}

impl Generations {
    fn watch(client: &Client) -> Self {
        let (api, seen) = (workloads(client, SHOP), Arc::new(Mutex::new(Vec::new())));
        let noted = seen.clone();
        let watch = tokio::spawn(async move {
            let mut objects = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(object) = objects.next().await {
                let observed = object.ok().and_then(|object: ElasticWorkload| object.status?.observed_generation);
                noted.lock().unwrap_or_else(PoisonError::into_inner).extend(observed);
            }
        });
        Self { seen, _watch: AbortOnDropHandle::new(watch) }
    }

    fn never_fell(&self) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!seen.is_empty() && seen.is_sorted(), "observedGeneration: {seen:?}");
        Ok(())
    }
}

/// The uids of all replicas that were ever there, of a revision.
fn ever_of(history: &History, revision: &str) -> BTreeSet<String> {
    let replicas = history.0.iter().flat_map(|moment| &moment.replicas);
    replicas.filter(|(_, replica)| replica.revision == revision).map(|(uid, _)| uid.clone()).collect()
}

/// The standby's view of workloads stands still by this fault while a second image is rolled out; then the leader is
/// killed.
async fn taken_over_with_an_old_view(fault: Fault) -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let mut standby = ground.join("operator-b").await?;
    let recorder = ground.record(SHOP, "web").await?;
    let generations = Generations::watch(&ground.client);
    ground.rolled(SHOP, &web(1, 3), ROLLOUT).await?;
    let first = ground.current(SHOP, "web", ROLLOUT).await?;
    let old = first.status.and_then(|status| status.update_revision).context("a revision")?;
    let stands_still = standby.proxy.set(Rule::new(Match::watch("elasticworkloads"), fault));
    ground.rolled(SHOP, &web(2, 3), ROLLOUT).await?;
    let before = ever_of(&recorder.history(), &old);
    ensure!(!before.is_empty());
    leader.operator.kill()?;
    let takeover = ground.leads("operator-b", Duration::from_secs(60)).await?;
    // Long enough for many passes on what it believes.
    tokio::time::sleep(Duration::from_secs(20)).await;
    generations.never_fell()?;
    let after = ever_of(&recorder.history(), &old);
    ensure!(after == before, "pods of the first image were made again");
    standby.proxy.clear(&stands_still);
    ground.rolled(SHOP, &web(3, 3), Duration::from_secs(90)).await?;
    println!("took over after {takeover:?}; the fault was met {} times", stands_still.hits());
    standby.runs()?;
    let history = recorder.finish(ground.quiet()).await?;
    ensure!(ever_of(&history, &old) == before, "pods of the first image were made again");
    generations.never_fell()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_watch_was_silent_does_not_undo_a_rollout() -> Result<()> {
    taken_over_with_an_old_view(Fault::Silence).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_watch_was_frozen_does_not_undo_a_rollout() -> Result<()> {
    taken_over_with_an_old_view(Fault::Freeze).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_whose_status_was_lost_is_found_again() -> Result<()> {
    let mut ground = Ground::start(json!({"extraArgs": ["--lease-duration-seconds=3"]})).await?;
    let adapter = MetricsAdapter::start(&ground.control_plane, CustomVersions::Both).await?;
    adapter.set_external(SHOP, "queue", &[], "10");
    let mut leader = ground.lead("operator-a").await?;
    let recorder = ground.record(SHOP, "web").await?;
    // One more an hour: used twice, it would be two.
    let scaling = "scaling: {minReplicas: 1, maxReplicas: 9, metrics: [{type: External, external: {metric: {name: queue}, \
                   target: {type: AverageValue, averageValue: 10}}}], behavior: {scaleUp: {policies: [{type: Pods, value: 1, \
                   periodSeconds: 1800}]}}}";
    ground.apply(SHOP, &web(1, 0).replace("replicas: 0", scaling)).await?;
    let settled = |count: i32| {
        move |workload: &ElasticWorkload| {
            workload.status.as_ref().is_some_and(|status| {
                status.desired_replicas == count && status.replicas == count && status.available_replicas == count
            })
        }
    };
    wait_for(&ground.client, SHOP, "web", "has 1 replica", ROLLOUT, settled(1)).await?;
    ground.quiet().await?;
    let scale = Match::verb(Verb::Patch).resource("replicasets").namespace(SHOP);
    let scaled = leader.proxy.set(Rule::new(scale, Fault::LastWrite).nth(1));
    adapter.set_external(SHOP, "queue", &[], "90");
    tokio::time::timeout(ROLLOUT, scaled.hit()).await.context("a scale")?;
    leader.operator.kill()?;
    leader.proxy.clear(&scaled);
    let mut successor = ground.join("operator-b").await?;
    ground.leads("operator-b", Duration::from_secs(30)).await?;
    let workload = wait_for(&ground.client, SHOP, "web", "knows its scale", ROLLOUT, |workload| {
        let scaling = workload.status.as_ref().and_then(|status| status.scaling.as_ref());
        settled(2)(workload) && scaling.is_some_and(|scaling| scaling.last_scale_time.is_some())
    })
    .await?;
    println!("found: {:?}", workload.status.and_then(|status| status.scaling));
    // The rate is used up: it stays at two, whatever the queue says.
    ground.quiet().await?;
    let now = workloads(&ground.client, SHOP).get("web").await?;
    ensure!(settled(2)(&now), "the rate was used twice: {:?}", now.status);
    successor.runs()?;
    recorder.history().check_upper_bound()?;
    Ok(())
}
