//! Operators that are killed at any moment, and two of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use catamaran_e2e::{
    installation::operator_user,
    wait::eventually,
    workloads::{WITHIN, web},
};
use k8s_openapi::api::{apps::v1::ReplicaSet, coordination::v1::Lease, core::v1::Pod};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::{Ground, random};

/// The replica sets of a namespace: name and replicas.
async fn sets(ground: &Ground) -> Result<BTreeMap<String, i32>> {
    let api: Api<ReplicaSet> = ground.api();
    let sets = api.list(&Default::default()).await?;
    Ok(sets.iter().map(|set| (set.name_any(), set.spec.clone().and_then(|spec| spec.replicas).unwrap_or(1))).collect())
}

pub(crate) async fn killed_at_thirty_moments_of_a_rollout() -> Result<()> {
    const KILLS: u32 = 30;
    let mut random = random()?;
    let mut ground = Ground::start_with(json!({"extraArgs": ["--lease-duration-seconds=3"]})).await?;
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:0", 4, "revisionHistoryLimit: 100")).await?;
    ground.wait_ready("web").await?;
    for kill in 1..=KILLS {
        ground.apply(&web(&format!("registry.test/web:{kill}"), 4, "revisionHistoryLimit: 100")).await?;
        // A moment of the rollout, which takes about three seconds undisturbed.
        ground.kill_operator(Duration::from_millis(2500), &mut random, &format!("operator-{kill}")).await?;
        if kill % 3 == 0 {
            ground.wait_ready("web").await?;
        }
    }
    let end = ground.wait_ready("web").await?;
    let history = recorder.finish(ground.quiet()).await?;
    let revision = end.status.unwrap_or_default().update_revision.unwrap_or_default();
    ensure!(history.end()?.of_revision(&revision) == 4 && history.end()?.total() == 4, "{}", history.end()?);

    // The same end as an undisturbed run: the wanted set has all replicas, no other has any, none is there twice.
    let sets = sets(&ground).await?;
    ensure!(sets.get(&format!("web-{revision}")) == Some(&4), "{sets:?}");
    ensure!(sets.values().sum::<i32>() == 4, "{sets:?}");
    ensure!(sets.len() <= usize::try_from(KILLS)? + 1, "no set without a template: {sets:?}");
    let pods: Api<Pod> = ground.api();
    for pod in pods.list(&Default::default()).await? {
        let owner = pod.owner_references().first().map(|owner| owner.name.clone()).unwrap_or_default();
        ensure!(sets.contains_key(&owner), "pod {} is an orphan of {owner}", pod.name_any());
    }
    Ok(())
}

pub(crate) async fn a_standby_takes_over_in_time_and_never_beside_the_leader() -> Result<()> {
    let mut ground = Ground::start().await?;
    let leases: Api<Lease> = Api::namespaced(ground.client.clone(), catamaran_e2e::installation::SYSTEM);
    let holder = || async {
        let lease = leases.list(&Default::default()).await?.items.into_iter().next();
        anyhow::Ok(lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity))
    };
    let leads = |name: &'static str| async move {
        eventually(&format!("{name} leads"), Duration::from_secs(30), || async {
            Ok(holder().await?.filter(|holder| holder.starts_with(name)).map(|_| ()))
        })
        .await
    };
    leads("operator-a").await?;
    let recorder = ground.record("web").await?;
    let _standby = ground.installation.start(&ground.control_plane, "operator-b").await?;
    ground.apply(&web("registry.test/web:1", 6, "")).await?;
    ground.wait_ready("web").await?;
    let mark = ground.control_plane.audit().mark()?;
    ground.apply(&web("registry.test/web:2", 6, "")).await?;
    ground
        .wait_for("web", "is in mid-rollout", WITHIN, |workload| {
            workload.status.as_ref().is_some_and(|status| status.updated_replicas > 0 && status.updated_replicas < 6)
        })
        .await?;
    let killed = Instant::now();
    ground.kill()?;
    leads("operator-b").await?;
    let handover = killed.elapsed();
    println!("handover after SIGKILL: {handover:?}");
    ensure!(handover < Duration::from_secs(3), "the process is known to be dead: {handover:?}");
    ground.wait_ready("web").await?;
    recorder.finish(ground.quiet()).await?;

    // Of all writes but the lease's, those of the first process end before those of the second begin.
    let writes = ground.control_plane.audit().writes_since(mark)?;
    let by = |name: &str| {
        let writes = writes.iter().filter(|write| write.user == operator_user() && write.resource != "leases");
        writes.filter(|write| write.user_agent.contains(name)).map(|write| write.time).collect::<Vec<_>>()
    };
    let (first, second) = (by("operator-a"), by("operator-b"));
    ensure!(!first.is_empty() && !second.is_empty(), "both wrote: {} and {}", first.len(), second.len());
    ensure!(first.iter().max() < second.iter().min(), "two writers at once");
    Ok(())
}

pub(crate) async fn a_leader_that_is_asked_to_stop_hands_over_at_once() -> Result<()> {
    let mut ground = Ground::start().await?;
    let mut standby = ground.installation.start(&ground.control_plane, "operator-b").await?;
    let asked = Instant::now();
    let status = ground.alone()?.operator.process().terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "a graceful stop is no error: {status}");
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    println!("a workload ready {:?} after SIGTERM of the leader", asked.elapsed());
    ensure!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    ensure!(standby.process().exited()?.is_none(), "the standby runs");
    Ok(())
}
