//! Virtual machines: rollouts, changes of the hull, chosen victims, and guests that die.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use catamaran_crds::{
    ElasticWorkload, Hull,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet},
    names::CRASH_LOOP_ANNOTATION,
};
use catamaran_e2e::{
    kubevirt::{Knobs, own_definitions},
    wait::eventually,
    workloads::{WITHIN, condition, web, workload},
};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;

use crate::support::{Ground, random, web_machines};

async fn instances(ground: &Ground) -> Result<Vec<VirtualMachineInstance>> {
    Ok(ground.api().list(&Default::default()).await?.items)
}

async fn sets(ground: &Ground) -> Result<Vec<VirtualMachineInstanceReplicaSet>> {
    Ok(ground.api().list(&Default::default()).await?.items)
}

async fn names(ground: &Ground) -> Result<BTreeSet<String>> {
    Ok(instances(ground).await?.iter().map(ResourceExt::name_any).collect())
}

pub(crate) async fn an_image_update_of_virtual_machines_keeps_the_bounds(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web_machines("registry.test/disk:1", 4, "")).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web_machines("registry.test/disk:2", 4, "")).await?;
    let ready = ground.wait_ready("web").await?;
    let history = recorder.finish(ground.quiet()).await?;
    let revision = ready.status.unwrap_or_default().update_revision.unwrap_or_default();
    let end = history.end()?;
    ensure!(end.of_revision(&revision) == 4 && end.total() == 4, "{end}");
    Ok(())
}

pub(crate) async fn the_hull_changes_in_both_directions_within_the_bounds() -> Result<()> {
    let ground = Ground::with_kubevirt(Knobs { cache_lag: Duration::from_millis(200), ..Knobs::default() }).await?;
    let recorder = ground.record("web").await?;
    let rollout = "maxSurge: 1, maxUnavailable: 0";
    ground.apply(&web("registry.test/web:1", 4, rollout)).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web_machines("registry.test/disk:1", 4, rollout)).await?;
    ground.wait_ready("web").await?;
    let names = names(&ground).await?;
    ensure!(names.len() == 4, "{names:?}");
    ground.apply(&web("registry.test/web:1", 4, rollout)).await?;
    ground.wait_ready("web").await?;
    let history = recorder.finish(ground.quiet()).await?;
    let end = history.end()?;
    ensure!(
        end.total() == 4
            && end.replicas.values().filter(|replica| replica.live).all(|replica| replica.hull == Hull::Container),
        "{end}"
    );
    Ok(())
}

pub(crate) async fn scale_in_takes_guests_that_are_not_ready(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    ground.apply(&web_machines("registry.test/disk:1", 5, "")).await?;
    ground.wait_ready("web").await?;
    let stay = hang_all_but(&ground, 2).await?;
    ground.patch("web", &json!({"spec": {"replicas": 2}})).await?;
    ground.wait_ready("web").await?;
    left(&ground, &stay).await?;
    ground.quiet().await?;
    let ever = recorder.history().ever();
    ensure!(ever[&Hull::VirtualMachine] == 5, "no guest was replaced: {ever:?}");
    let set = sets(&ground).await?.remove(0);
    ensure!(set.spec.paused != Some(true) && set.spec.replicas == Some(2), "{:?}", set.spec);
    Ok(())
}

/// Waits until no guests but these are there.
async fn left(ground: &Ground, stay: &BTreeSet<String>) -> Result<()> {
    eventually("only the ready guests are left", WITHIN, || async { Ok((names(ground).await? == *stay).then_some(())) })
        .await
}

/// Pauses guests, so that they are not ready; returns the names of the others.
async fn hang_all_but(ground: &Ground, count: usize) -> Result<BTreeSet<String>> {
    let all = names(ground).await?;
    let kubevirt = ground.kubevirt.as_ref().expect("this ground has KubeVirt");
    for name in all.iter().skip(count) {
        kubevirt.pause(&ground.namespace, name, true).await?;
    }
    let hanging = i32::try_from(count)?;
    ground
        .wait_for("web", "has hanging guests", WITHIN, |workload| {
            workload.status.clone().unwrap_or_default().ready_replicas == hanging
        })
        .await?;
    Ok(all.into_iter().take(count).collect())
}

pub(crate) async fn scale_in_survives_the_end_of_the_operator_at_any_moment() -> Result<()> {
    let mut random = random()?;
    let mut ground = Ground::with_kubevirt(Knobs { cache_lag: Duration::from_millis(150), ..Knobs::default() }).await?;
    let recorder = ground.record("web").await?;
    ground.apply(&web_machines("registry.test/disk:1", 6, "")).await?;
    ground.wait_ready("web").await?;
    let stay = hang_all_but(&ground, 3).await?;
    ground.patch("web", &json!({"spec": {"replicas": 3}})).await?;
    for number in 0..4 {
        ground.kill_operator(Duration::from_millis(500), &mut random, &format!("operator-{number}")).await?;
    }
    ground.wait_ready("web").await?;
    left(&ground, &stay).await?;
    ground.quiet().await?;
    let ever = recorder.history().ever();
    ensure!(ever[&Hull::VirtualMachine] == 6, "no guest was replaced: {ever:?}");
    Ok(())
}

pub(crate) async fn guests_that_die_at_once_are_held_back(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    let from = Timestamp::now();
    ground.apply(&web_machines("registry.test/disk:crash", 2, "")).await?;
    ground.wait_stalled("web", "CrashLoopBackOff").await?;
    eventually("a minute is over", Duration::from_secs(70), || async {
        Ok((Timestamp::now().duration_since(from).as_secs() >= 60).then_some(()))
    })
    .await?;
    let made = recorder.history().ever()[&Hull::VirtualMachine];
    println!("{made} guests in the first minute");
    ensure!((4..10).contains(&made), "{made} guests in the first minute");
    let stalled = ground.wait_stalled("web", "CrashLoopBackOff").await?;
    let message = &condition(&stalled, "Stalled").expect("it is stalled").message;
    ensure!(message.contains("spec.virtualMachine"), "the condition tells what to look at: {message}");
    ground.apply(&web_machines("registry.test/disk:2", 2, "")).await?;
    ground.wait_ready("web").await?;
    recorder.history().check_upper_bound()?;
    ground.quiet().await
}

pub(crate) async fn virtual_machines_wait_for_kubevirt_and_go_on_by_themselves() -> Result<()> {
    let mut ground = Ground::start().await?;
    ground.apply(&web_machines("registry.test/disk:1", 2, "")).await?;
    let stalled = ground.wait_stalled("web", "KubeVirtNotInstalled").await?;
    let message = &condition(&stalled, "Stalled").expect("it is stalled").message;
    ensure!(message.contains("spec.virtualMachine") && message.contains("install KubeVirt"), "{message}");
    ground.apply(&workload("other", "registry.test/web:1", 2, "")).await?;
    ground.wait_ready("other").await?;
    ground.start_kubevirt(Knobs::default()).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

pub(crate) async fn kubevirts_own_schemas_accept_what_is_written() -> Result<()> {
    let Some(folder) = own_definitions() else {
        println!("KubeVirt's own definitions are not at hand: nothing was checked");
        return Ok(());
    };
    let ground = Ground::with_kubevirt(Knobs { definitions: Some(folder), ..Knobs::default() }).await?;
    ground.apply(&web_machines("registry.test/disk:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    ground
        .apply(
            "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: long}
spec:
  virtualMachine:
    template:
      metadata: {labels: {team: a}, annotations: {note: b}}
      spec:
        domain: {cpu: {model: host-passthrough}, devices: {disks: [{name: root, disk: {bus: virtio}}], rng: {}}}
        volumes: [{name: root, containerDisk: {image: registry.test/disk:1}}]
  quota: {cpu: {request: 100m, limit: 1500m}, memory: {request: 128Mi, limit: 256Mi}}
  placement:
    nodeSelector: {kubernetes.io/os: linux}
    tolerations: [{key: a, operator: Exists}]
    topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway}]
---
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: cloud}
spec:
  virtualMachine:
    image: registry.test/disk:1
    cloudInit: {userDataSecretRef: {name: x}}
    readinessProbe: {httpGet: {path: /, port: 80}}
    livenessProbe: {guestAgentPing: {}, periodSeconds: 5}
    terminationGracePeriodSeconds: 5
  quota: {memory: {request: 64Mi}}
  service: {ports: [{port: 80}]}
",
        )
        .await?;
    ground.wait_ready("long").await?;
    ground.wait_ready("cloud").await?;
    // Nothing that was written is unknown to the schemas: the API server would have pruned it.
    for set in sets(&ground).await? {
        let domain = &set.spec.template.expect("a template").spec["domain"];
        ensure!(
            domain["resources"]["requests"]["memory"] != json!(null) || domain["memory"]["guest"] != json!(null),
            "{domain}"
        );
    }
    ground.quiet().await
}

pub(crate) async fn what_kubevirt_refuses_is_told(ground: Ground) -> Result<()> {
    ground
        .apply(
            "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: web}
spec:
  virtualMachine:
    template: {spec: {domain: {devices: {disks: [{name: root, disk: {bus: virtio}}]}}}}
  quota: {memory: {request: 64Mi}}
",
        )
        .await?;
    let stalled = ground.wait_stalled("web", "Refused").await?;
    let message = &condition(&stalled, "Stalled").expect("it is stalled").message;
    ensure!(message.contains("disks") && message.contains("volume"), "{message}");
    ground.apply(&web_machines("registry.test/disk:1", 1, "")).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

pub(crate) async fn a_guest_that_never_gets_ready_is_rolled_back(ground: Ground) -> Result<()> {
    let recorder = ground.record("web").await?;
    let rollout = "progressDeadlineSeconds: 5, onFailure: Rollback";
    ground.apply(&web_machines("registry.test/disk:1", 3, rollout)).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web_machines("registry.test/disk:unready", 3, rollout)).await?;
    ground.wait_stalled("web", "RolledBack").await?;
    ground
        .wait_for("web", "is back", WITHIN, |workload| {
            workload.status.clone().unwrap_or_default().available_replicas == 3
        })
        .await?;
    let history = recorder.finish(ground.quiet()).await?;
    ensure!(history.end()?.available() == 3, "{}", history.end()?);
    Ok(())
}

pub(crate) async fn a_change_of_the_hull_survives_the_end_of_the_operator() -> Result<()> {
    let mut random = random()?;
    let mut ground = Ground::with_kubevirt(Knobs { cache_lag: Duration::from_millis(100), ..Knobs::default() }).await?;
    let recorder = ground.record("web").await?;
    ground.apply(&web("registry.test/web:1", 4, "")).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web_machines("registry.test/disk:1", 4, "")).await?;
    for number in 0..5 {
        ground.kill_operator(Duration::from_millis(700), &mut random, &format!("operator-{number}")).await?;
    }
    ground.wait_ready("web").await?;
    let history = recorder.finish(ground.quiet()).await?;
    ensure!(history.end()?.total() == 4, "{}", history.end()?);
    Ok(())
}

pub(crate) async fn guests_of_a_lost_node_are_made_up_for() -> Result<()> {
    let ground = Ground::with_kubevirt(Knobs::default()).await?;
    let recorder = ground.record("web").await?;
    ground.apply(&web_machines("registry.test/disk:1", 4, "maxSurge: 0, maxUnavailable: 1")).await?;
    ground.wait_ready("web").await?;
    ground.control_plane.fail_node("node-0").await?;
    eventually("four guests on the nodes that are left", WITHIN, || async {
        let list = instances(&ground).await?;
        let elsewhere = list.iter().filter(|instance| {
            let status = instance.status.clone().unwrap_or_default();
            let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
            ready && instance.metadata.deletion_timestamp.is_none() && status.node_name.as_deref() != Some("node-0")
        });
        Ok((elsewhere.count() == 4).then_some(()))
    })
    .await?;
    ground.wait_ready("web").await?;
    recorder.history().check_upper_bound()?;
    ground.quiet().await
}

pub(crate) async fn guests_whose_launcher_dies_are_held_back_and_the_status_is_steady() -> Result<()> {
    let ground = Ground::with_kubevirt(Knobs { linger: Duration::from_secs(7), ..Knobs::default() }).await?;
    let recorder = ground.record("web").await?;
    // In phase Running, and again and again.
    ground.apply(&web_machines("registry.test/disk:launcher-dies-3000", 2, "")).await?;
    let from = Timestamp::now();
    ground.wait_stalled("web", "CrashLoopBackOff").await?;
    let reasons = reasons(&ground, "web").await?;
    let until = from + Duration::from_secs(60);
    eventually("a minute is over", Duration::from_secs(70), || async { Ok((Timestamp::now() > until).then_some(())) })
        .await?;
    let made = recorder.history().ever()[&Hull::VirtualMachine];
    println!("{made} guests in the first minute");
    // Two, two at once, and two after 20 s.
    ensure!((4..=6).contains(&made), "{made} guests in the first minute");
    let told = reasons.told();
    ensure!(told.iter().filter(|reason| *reason != "CrashLoopBackOff").count() == 0, "{told:?}");
    // In phase Scheduled: virt-launcher ends before the guest runs.
    ground.apply(&web_machines("registry.test/disk:launcher-dies-500", 2, "")).await?;
    let from = recorder.history().ever()[&Hull::VirtualMachine];
    ground
        .wait_for("web", "is of the new revision", WITHIN, |workload| {
            let stalled = condition(workload, "Stalled");
            stalled.is_some_and(|stalled| stalled.reason == "CrashLoopBackOff" && stalled.message.contains("round 2"))
        })
        .await?;
    let made = recorder.history().ever()[&Hull::VirtualMachine] - from;
    ensure!(made <= 6, "{made} guests until the second round");
    ground.apply(&web_machines("registry.test/disk:2", 2, "")).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

/// The reasons of Ready as a watch shows them.
struct Reasons {
    told: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Reasons {
    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Reasons {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn reasons(ground: &Ground, name: &str) -> Result<Reasons> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (noted, config) = (told.clone(), watcher::Config::default().fields(&format!("metadata.name={name}")));
    let stream = watcher(ground.api::<ElasticWorkload>(), config).default_backoff().touched_objects();
    let task = tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            let Ok(workload) = event else { continue };
            let reason = condition(&workload, "Ready").map(|ready| ready.reason.clone());
            noted.lock().unwrap_or_else(PoisonError::into_inner).extend(reason);
        }
    });
    Ok(Reasons { told, task })
}

pub(crate) async fn an_eviction_is_no_crash(ground: Ground) -> Result<()> {
    ground.apply(&web_machines("registry.test/disk:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    let pods: Api<Pod> = ground.api();
    for deleted in [false, true] {
        let victim = ground.staying_pods("web").await?.remove(0);
        let of = victim.labels()["vm.kubevirt.io/name"].clone();
        if deleted {
            pods.delete(&victim.name_any(), &Default::default()).await?;
        } else {
            pods.evict(&victim.name_any(), &Default::default()).await?;
        }
        eventually("its guest is replaced", WITHIN, || async {
            let names = names(&ground).await?;
            Ok((names.len() == 2 && !names.contains(&of)).then_some(()))
        })
        .await?;
        ground.wait_ready("web").await?;
        let set = sets(&ground).await?.remove(0);
        ensure!(!set.annotations().contains_key(CRASH_LOOP_ANNOTATION), "{:?}", set.annotations());
    }
    ground.quiet().await
}

pub(crate) async fn a_probe_begins_when_it_says(ground: Ground) -> Result<()> {
    let probe = "    readinessProbe: {tcpSocket: {port: 80}, initialDelaySeconds: 3}\n  quota:";
    ground.apply(&web_machines("registry.test/disk:1", 1, "").replace("  quota:", probe)).await?;
    ground.wait_ready("web").await?;
    let pod = ground.staying_pods("web").await?.remove(0);
    let probe = pod.spec.and_then(|spec| spec.containers.into_iter().next()?.readiness_probe);
    let delay = probe.and_then(|probe| probe.initial_delay_seconds);
    ensure!(delay == Some(3), "{delay:?}");
    ground.quiet().await
}

pub(crate) async fn guests_leave_their_service_before_they_go(ground: Ground) -> Result<()> {
    ground.apply(&web_machines("registry.test/disk:1", 3, "")).await?;
    ground.wait_ready("web").await?;
    eventually("all are in the Service", WITHIN, || async { Ok((served(&ground).await?.len() == 3).then_some(())) })
        .await?;
    // Whoever goes, by whatever: scale-in, another revision, another hull.
    let watching = tokio::spawn(still_served(ground.api(), ground.api(), 5));
    ground.patch("web", &json!({"spec": {"replicas": 2}})).await?;
    ground.wait_ready("web").await?;
    ground.apply(&web_machines("registry.test/disk:2", 2, "")).await?;
    ground.wait_ready("web").await?;
    eventually("both are in the Service", WITHIN, || async { Ok((served(&ground).await?.len() == 2).then_some(())) })
        .await?;
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    let still_served = tokio::time::timeout(WITHIN, watching).await???;
    ensure!(still_served.is_empty(), "deleted while in an EndpointSlice: {still_served:?}");
    ground.quiet().await
}

/// The launcher pods in the EndpointSlices of the Service.
async fn served(ground: &Ground) -> Result<BTreeSet<String>> {
    let slices: Api<EndpointSlice> = ground.api();
    let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await?;
    Ok(slices.iter().flat_map(launchers).collect())
}

fn launchers(slice: &EndpointSlice) -> Vec<String> {
    let targets = slice.endpoints.iter().filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone());
    targets.filter(|name| name.starts_with("virt-launcher-")).collect()
}

/// Watches until so many guests have been deleted; those whose launcher pod was in an EndpointSlice then.
async fn still_served(
    slices: Api<EndpointSlice>,
    instances: Api<VirtualMachineInstance>,
    guests: usize,
) -> Result<Vec<String>> {
    let config = watcher::Config::default().labels("kubernetes.io/service-name=web");
    let mut slices = std::pin::pin!(watcher(slices, config));
    let mut instances = std::pin::pin!(watcher(instances, watcher::Config::default()));
    let (mut served, mut deleted, mut wrong) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    while deleted.len() < guests {
        // What came first is looked at first, if both are there.
        tokio::select! {
            biased;
            Some(event) = slices.next() => match event? {
                Event::Apply(slice) | Event::InitApply(slice) => {
                    served.insert(slice.name_any(), launchers(&slice));
                }
                Event::Delete(slice) => drop(served.remove(&slice.name_any())),
                Event::Init | Event::InitDone => {}
            },
            Some(event) = instances.next() => {
                let (Event::Apply(instance) | Event::InitApply(instance)) = event? else { continue };
                if instance.metadata.deletion_timestamp.is_some() && deleted.insert(instance.name_any()) {
                    let prefix = format!("virt-launcher-{}-", instance.name_any());
                    wrong.extend(served.values().flatten().filter(|name| name.starts_with(&prefix)).cloned());
                }
            },
        }
    }
    Ok(wrong)
}
