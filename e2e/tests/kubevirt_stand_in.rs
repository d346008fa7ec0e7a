//! The stand-in behaves as KubeVirt was seen to behave: each test names what was observed.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_crds::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet};
use catamaran_e2e::{
    control_plane::ControlPlane,
    kubevirt::{self, Knobs, StandIn, client},
    wait::eventually,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(30);

struct Ground {
    client: Client,
    sets: Api<VirtualMachineInstanceReplicaSet>,
    instances: Api<VirtualMachineInstance>,
    pods: Api<Pod>,
    stand_in: StandIn,
    _control_plane: ControlPlane,
}

impl Ground {
    async fn start(knobs: Knobs) -> Result<Self> {
        let control_plane = ControlPlane::builder().kwok_nodes(2).start().await?;
        control_plane.create_namespace("test").await?;
        let stand_in = StandIn::start(client(&control_plane).await?, knobs).await?;
        let client = control_plane.client();
        Ok(Self {
            sets: Api::namespaced(client.clone(), "test"),
            instances: Api::namespaced(client.clone(), "test"),
            pods: Api::namespaced(client.clone(), "test"),
            client,
            stand_in,
            _control_plane: control_plane,
        })
    }

    async fn create(&self, image: &str, replicas: i32) -> Result<()> {
        let set = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "domain": {"memory": {"guest": "64Mi"}, "devices": {"autoattachGraphicsDevice": false, "disks": [{"name": "root", "disk": {"bus": "virtio"}}]}},
                        "volumes": [{"name": "root", "containerDisk": {"image": image}}],
                    },
                },
            },
        }))?;
        self.sets.create(&PostParams::default(), &set).await?;
        Ok(())
    }

    async fn patch(&self, spec: Value) -> Result<()> {
        self.sets.patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
        Ok(())
    }

    async fn status(&self, what: &str, replicas: i32, ready: i32) -> Result<VirtualMachineInstanceReplicaSet> {
        eventually(what, WITHIN, || async {
            let set = self.sets.get("web").await?;
            let status = set.status.clone().unwrap_or_default();
            let counts = (status.replicas.unwrap_or(0), status.ready_replicas.unwrap_or(0));
            Ok((counts == (replicas, ready)).then_some(set))
        })
        .await
    }

    async fn names(&self) -> Result<BTreeSet<String>> {
        Ok(self.instances.list(&Default::default()).await?.iter().map(ResourceExt::name_any).collect())
    }

    async fn live(&self, what: &str, count: usize) -> Result<BTreeSet<String>> {
        eventually(what, WITHIN, || async {
            let names = self.names().await?;
            Ok((names.len() == count).then_some(names))
        })
        .await
    }
}

fn condition(set: &VirtualMachineInstanceReplicaSet, type_: &str) -> Option<String> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)?.reason.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_pods_and_status_as_kubevirt_makes_them() -> Result<()> {
    let ground = Ground::start(Knobs::default()).await?;
    ground.create("disk:1", 2).await?;
    let set = ground.status("both are ready", 2, 2).await?;
    ensure!(set.annotations()["kubevirt.io/latest-observed-api-version"] == "v1", "{:?}", set.annotations());
    ensure!(set.metadata.generation == Some(2), "its first sight is an update: {:?}", set.metadata.generation);
    ensure!(set.status.clone().unwrap_or_default().label_selector.as_deref() == Some("app=web"), "{:?}", set.status);
    for instance in ground.instances.list(&Default::default()).await? {
        let name = instance.name_any();
        ensure!(name.len() == 8 && name.starts_with("web") && !name.contains('-'), "{name}");
        ensure!(instance.finalizers() == ["kubevirt.io/foregroundDeleteVirtualMachine"], "{:?}", instance.finalizers());
        let phases: Vec<_> = instance.status.context("a status")?.phase_transition_timestamps.unwrap_or_default();
        let phases: Vec<String> = phases.iter().map(|entered| format!("{:?}", entered.phase)).collect();
        ensure!(phases == ["Scheduling", "Scheduled", "Running"], "{phases:?}");
    }
    for pod in ground.pods.list(&Default::default()).await? {
        ensure!(pod.name_any().starts_with("virt-launcher-web"), "{}", pod.name_any());
        let requests =
            pod.spec.context("a spec")?.containers[0].resources.clone().and_then(|r| r.requests).context("requests")?;
        ensure!(requests["cpu"].0 == "100m", "{requests:?}");
        // 64 Mi of guest, 256 Mi of KubeVirt's own for one vCPU without graphics, and 1/512 for page tables.
        ensure!(requests["memory"].0 == ((64 + 256) * (1 << 20) + (64 << 20) / 512).to_string(), "{requests:?}");
    }
    // A guest that is paused is not ready, and still counts.
    let name = ground.names().await?.pop_first().context("a name")?;
    ground.stand_in.pause("test", &name, true).await?;
    ground.status("one is paused", 2, 1).await?;
    ground.stand_in.pause("test", &name, false).await?;
    ground.status("none is paused", 2, 2).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_in_pause_and_loss() -> Result<()> {
    let ground = Ground::start(Knobs::default()).await?;
    ground.create("disk:1", 3).await?;
    ground.status("all are ready", 3, 3).await?;
    // Paused: deletions are not made good, the status is.
    ground.patch(json!({"paused": true})).await?;
    eventually("the pause is seen", WITHIN, || async {
        Ok((condition(&ground.sets.get("web").await?, "ReplicaPaused").as_deref() == Some("Paused")).then_some(()))
    })
    .await?;
    let victim = ground.names().await?.pop_last().context("a name")?;
    ground.instances.delete(&victim, &DeleteParams::default()).await?;
    let kept = ground.live("two are left", 2).await?;
    ground.status("the deletion counts", 2, 2).await?;
    ground.patch(json!({"paused": false, "replicas": 2})).await?;
    eventually("the end of the pause is seen", WITHIN, || async {
        Ok(condition(&ground.sets.get("web").await?, "ReplicaPaused").is_none().then_some(()))
    })
    .await?;
    ensure!(ground.names().await? == kept, "pause, delete, lower, unpause keeps the others");
    // Not paused: a lost VMI is replaced, and so is one whose pod is deleted.
    let lost = kept.first().context("a name")?;
    ground.instances.delete(lost, &DeleteParams::default()).await?;
    eventually("a replacement", WITHIN, || async {
        let names = ground.names().await?;
        Ok((names.len() == 2 && !names.contains(lost)).then_some(()))
    })
    .await?;
    ground.status("the replacement is ready", 2, 2).await?;
    let pod = ground.pods.list(&Default::default()).await?.items.remove(0);
    let of = pod.labels()["vm.kubevirt.io/name"].clone();
    ground.pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
    eventually("a replacement for the pod", WITHIN, || async {
        let names = ground.names().await?;
        Ok((names.len() == 2 && !names.contains(&of)).then_some(()))
    })
    .await?;
    // Orphans are adopted by a set with the same selector.
    kubevirt::garbage_collected(&ground.sets).await?;
    let orphans = ground.names().await?;
    ground
        .sets
        .delete(
            "web",
            &DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..Default::default() },
        )
        .await?;
    eventually("the set is gone", WITHIN, || async { Ok(ground.sets.get_opt("web").await?.is_none().then_some(())) })
        .await?;
    eventually("they have no owner", WITHIN, || async {
        let orphans = ground.instances.list(&Default::default()).await?;
        let free = orphans.iter().all(|instance| instance.owner_references().is_empty());
        Ok((free && orphans.iter().count() == 2).then_some(()))
    })
    .await?;
    ground.create("disk:1", 2).await?;
    ground.status("the orphans are adopted", 2, 2).await?;
    let now = ground.names().await?;
    ensure!(now == orphans, "no new ones were made: {orphans:?}, then {now:?}");
    ground.sets.delete("web", &DeleteParams::background()).await?;
    eventually("all are gone", WITHIN, || async { Ok(ground.names().await?.is_empty().then_some(())) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_guests_are_replaced_without_backoff() -> Result<()> {
    let ground = Ground::start(Knobs::default()).await?;
    let events = watcher(ground.instances.clone(), watcher::Config::default()).touched_objects();
    ground.create("disk:crash", 2).await?;
    let seen = tokio::time::timeout(Duration::from_secs(60), async {
        let mut uids = BTreeSet::new();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            uids.extend(event?.uid());
            if uids.len() >= 20 {
                break;
            }
        }
        Ok::<_, watcher::Error>(uids.len())
    });
    ensure!(seen.await.context("20 guests within a minute")?? >= 20, "the watch ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_failures_to_create() -> Result<()> {
    let ground = Ground::start(Knobs::default()).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(ground.client.clone(), "test");
    let quota = serde_json::from_value(
        json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/virtualmachineinstances.kubevirt.io": "0"}}}),
    )?;
    quotas.create(&PostParams::default(), &quota).await?;
    eventually("the quota is in force", WITHIN, || async {
        Ok(quotas.get("none").await?.status.and_then(|status| status.hard).map(|_| ()))
    })
    .await?;
    ground.create("disk:1", 1).await?;
    let failed = eventually("the failure is told", WITHIN, || async {
        Ok(condition(&ground.sets.get("web").await?, "ReplicaFailure"))
    })
    .await?;
    ensure!(failed == "FailedCreate", "{failed}");
    quotas.delete("none", &DeleteParams::default()).await?;
    eventually("the quota is gone", WITHIN, || async { Ok(quotas.get_opt("none").await?.is_none().then_some(())) })
        .await?;
    // Any event queues the set again at once.
    ground
        .sets
        .patch("web", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}})))
        .await?;
    let set = ground.status("it is made after all", 1, 1).await?;
    ensure!(condition(&set, "ReplicaFailure").is_none(), "{:?}", set.status);

    let wrong = ground
        .sets
        .patch(
            "web",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}})),
        )
        .await;
    let Err(error) = wrong else { anyhow::bail!("a selector that matches nothing was accepted") };
    ensure!(error.to_string().contains("selector does not match labels."), "{error}");
    let name = ground.names().await?.pop_first().context("a name")?;
    let edit = json!({"spec": {"terminationGracePeriodSeconds": 1}});
    let Err(error) = ground.instances.patch(&name, &PatchParams::default(), &Patch::Merge(edit)).await else {
        anyhow::bail!("an edit of a VMI was accepted")
    };
    ensure!(error.to_string().contains("update of VMI object is restricted"), "{error}");
    Ok(())
}

/// What a watch showed of instances: name, phase, reason of Ready, and whether it was being deleted.
type Shown = (String, String, Option<String>, bool);

/// Watches instances until one has been shown to have ended, from its beginning.
async fn until_one_fails(instances: Api<VirtualMachineInstance>) -> Result<Vec<Shown>> {
    let mut events = std::pin::pin!(watcher(instances, watcher::Config::default()).touched_objects());
    let mut shown: Vec<Shown> = Vec::new();
    while let Some(instance) = events.next().await {
        let instance = instance?;
        let status = instance.status.clone().unwrap_or_default();
        let ready = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
        let phase = format!("{:?}", status.phase.unwrap_or_default());
        let deleted = instance.metadata.deletion_timestamp.is_some();
        shown.push((instance.name_any(), phase.clone(), ready.and_then(|ready| ready.reason), deleted));
        if phase == "Failed" {
            let name = instance.name_any();
            shown.retain(|(of, ..)| *of == name);
            return Ok(shown);
        }
    }
    anyhow::bail!("the watch ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_that_dies_fails_its_instance_only_once_that_is_deleted() -> Result<()> {
    let ground = Ground::start(Knobs { linger: Duration::from_secs(2), ..Knobs::default() }).await?;
    for (image, phase) in [("disk:launcher-dies-500", "Scheduled"), ("disk:launcher-dies-3000", "Running")] {
        let watching = tokio::spawn(until_one_fails(ground.instances.clone()));
        ground.create(image, 1).await?;
        let shown = tokio::time::timeout(WITHIN, watching).await???;
        let first = shown.iter().find(|(_, _, reason, _)| reason.as_deref() == Some("PodTerminating"));
        let (_, at, _, deleted) = first.context("the end of the pod is shown")?;
        ensure!(at == phase && !deleted, "{shown:?}");
        let (.., deleted) = shown.last().context("an end")?;
        ensure!(deleted, "{shown:?}");
        ground.sets.delete("web", &DeleteParams::background()).await?;
        eventually("all are gone", WITHIN, || async { Ok(ground.names().await?.is_empty().then_some(())) }).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_disk_and_one_that_cannot_be_pulled() -> Result<()> {
    let ground = Ground::start(Knobs::default()).await?;
    ground.create("disk:nodisk", 1).await?;
    eventually("the instance says why", WITHIN, || async {
        let instance = ground.instances.list(&Default::default()).await?.items.pop();
        let status = instance.and_then(|instance| instance.status).unwrap_or_default();
        let told = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Synchronized");
        Ok(told.filter(|told| told.status == "False" && told.message.as_deref().unwrap_or("").contains("disk file")))
    })
    .await?;
    ground.sets.delete("web", &DeleteParams::background()).await?;
    eventually("it is gone", WITHIN, || async { Ok(ground.names().await?.is_empty().then_some(())) }).await?;
    ground.create("disk:unpullable", 1).await?;
    eventually("the launcher waits for its image", WITHIN, || async {
        let pod = ground.pods.list(&Default::default()).await?.items.pop();
        let statuses = pod.and_then(|pod| pod.status?.container_statuses).unwrap_or_default();
        let waiting = statuses.into_iter().find_map(|status| status.state?.waiting?.reason);
        Ok(waiting.filter(|reason| reason == "ImagePullBackOff"))
    })
    .await?;
    Ok(())
}
