//! Beside other managers: GitOps tools, kubectl, autoscalers, and the garbage collector.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use catamaran_crds::{
    ElasticWorkload,
    kubevirt::VirtualMachineInstanceReplicaSet,
    names::{NODE_QUOTA_ANNOTATION, WORKLOAD_LABEL},
};
use catamaran_e2e::{
    kubevirt::{self, Knobs},
    wait::eventually,
    workloads::{WITHIN, condition, web},
};
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PropagationPolicy},
};
use serde_json::json;

use crate::support::{Ground, web_machines};

/// Runs kubectl with a manifest on standard input; gives its exit code and output.
fn kubectl(ground: &Ground, arguments: &[&str], input: &str) -> Result<(Option<i32>, String)> {
    let mut command = ground.control_plane.kubectl()?;
    command.args(["--namespace", &ground.namespace]).args(arguments);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("standard input is a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), text))
}

pub(crate) async fn kubectl_apply_diff_and_scale(ground: Ground) -> Result<()> {
    let manifest = web("registry.test/web:1", 2, "").replace("  replicas: 2\n", "");
    let (code, text) = kubectl(&ground, &["apply", "-f", "-"], &manifest)?;
    ensure!(code == Some(0), "{text}");
    ground.wait_ready("web").await?;
    let (code, text) = kubectl(&ground, &["diff", "-f", "-"], &manifest)?;
    ensure!(code == Some(0) && text.is_empty(), "a difference after the operator ran: {text}");

    let (code, text) = kubectl(&ground, &["scale", "elasticworkload/web", "--replicas=4"], "")?;
    ensure!(code == Some(0), "{text}");
    ground
        .wait_for("web", "has 4 replicas", WITHIN, |workload| {
            workload.status.as_ref().is_some_and(|status| status.available_replicas == 4)
        })
        .await?;
    // The manifest does not speak of replicas, so applying it again leaves them.
    let (code, text) = kubectl(&ground, &["diff", "-f", "-"], &manifest)?;
    ensure!(code == Some(0) && text.is_empty(), "{text}");
    let (code, text) = kubectl(
        &ground,
        &["apply", "--server-side", "--field-manager=flux", "--force-conflicts", "-f", "-"],
        &manifest,
    )?;
    ensure!(code == Some(0), "{text}");
    let workload = ground.wait_ready("web").await?;
    ensure!(workload.spec.replicas == Some(4), "{:?}", workload.spec.replicas);

    let (code, text) = kubectl(&ground, &["get", "ew,wlc"], "")?;
    ensure!(
        code == Some(0) && text.contains("HULL") && text.contains("UP-TO-DATE") && text.contains("container"),
        "{text}"
    );
    let (code, text) = kubectl(&ground, &["wait", "--for=condition=Ready", "ew/web", "--timeout=10s"], "")?;
    ensure!(code == Some(0), "{text}");
    ground.quiet().await
}

pub(crate) async fn a_horizontal_pod_autoscaler_scales_it(ground: Ground) -> Result<()> {
    ground.apply(&web("registry.test/web:1", 1, "")).await?;
    ground.wait_ready("web").await?;
    // Without metrics an autoscaler still keeps its lower bound.
    ground
        .apply(
            "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: catamaran.dev/v1alpha1, kind: ElasticWorkload, name: web}
  minReplicas: 3
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
",
        )
        .await?;
    let workload = ground
        .wait_for("web", "is scaled by the autoscaler", WITHIN, |workload| {
            workload.status.as_ref().is_some_and(|status| status.available_replicas == 3)
        })
        .await?;
    ensure!(workload.spec.replicas == Some(3), "by spec.replicas, through the scale subresource");
    let selector = workload.status.unwrap_or_default().selector.unwrap_or_default();
    let pods: Api<Pod> = ground.api();
    let pods = pods.list(&ListParams::default().labels(&selector)).await?;
    ensure!(pods.items.len() == 3, "the selector finds the replicas: {}", pods.items.len());
    Ok(())
}

pub(crate) async fn deletion_takes_everything_along_and_orphaning_leaves_it(ground: Ground) -> Result<()> {
    let api = ground.api::<ElasticWorkload>();
    let sets: Api<ReplicaSet> = ground.api();
    let pods: Api<Pod> = ground.api();
    let services: Api<Service> = ground.api();
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    api.delete("web", &DeleteParams::default()).await?;
    // The garbage collector learns of a new kind of owner every 30 s only.
    eventually("everything is gone", Duration::from_secs(90), || async {
        let left = sets.list(&Default::default()).await?.items.len()
            + pods.list(&Default::default()).await?.items.len()
            + services.list(&Default::default()).await?.items.len();
        Ok((left == 0).then_some(()))
    })
    .await?;

    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    ground.wait_ready("web").await?;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    api.delete("web", &orphan).await?;
    eventually("the workload is gone", Duration::from_secs(30), || async {
        Ok(api.get_opt("web").await?.is_none().then_some(()))
    })
    .await?;
    let left = sets.list(&Default::default()).await?.items;
    ensure!(left.len() == 1 && pods.list(&Default::default()).await?.items.len() == 2, "orphans stay");

    // A new workload of the name does not take the orphans over, and says so.
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    let stalled = ground.wait_stalled("web", "NameTaken").await?;
    ensure!(
        condition(&stalled, "Stalled").is_some_and(|c| c.message.contains(&left[0].name_any())),
        "{:?}",
        stalled.status
    );
    ground.quiet().await?;
    let orphan = sets.get(&left[0].name_any()).await?;
    ensure!(orphan.owner_references().is_empty() && orphan.meta().uid == left[0].meta().uid, "untouched");
    // The way out that the condition names.
    sets.delete(&left[0].name_any(), &DeleteParams::background()).await?;
    services.delete("web", &DeleteParams::default()).await?;
    ground.wait_ready("web").await?;
    let owned = sets.list(&Default::default()).await?.items;
    let workload: ElasticWorkload = api.get("web").await?;
    ensure!(owned.len() == 1 && owned[0].owner_references()[0].uid == workload.uid().unwrap_or_default());
    ground.quiet().await
}

/// What of an orphan has a quota for node agents: its pods and the template of its replica set.
async fn held(ground: &Ground, workload: &str) -> Result<Vec<String>> {
    let label = ListParams::default().labels(&format!("{WORKLOAD_LABEL}={workload}"));
    let is_held = |metadata: Option<&ObjectMeta>| {
        metadata
            .and_then(|metadata| metadata.annotations.as_ref())
            .is_some_and(|all| all.contains_key(NODE_QUOTA_ANNOTATION))
    };
    let mut held = Vec::new();
    for pod in ground.staying_pods(workload).await? {
        held.extend(is_held(Some(&pod.metadata)).then(|| pod.name_any()));
    }
    let sets: Api<ReplicaSet> = ground.api();
    for set in sets.list(&label).await? {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref()?.metadata.as_ref());
        held.extend(is_held(template).then(|| set.name_any()));
    }
    let sets: Api<VirtualMachineInstanceReplicaSet> = ground.api();
    for set in sets.list(&label).await? {
        let template = set.spec.template.as_ref().and_then(|template| template.metadata.as_ref());
        held.extend(is_held(template).then(|| set.name_any()));
    }
    Ok(held)
}

pub(crate) async fn node_agents_hold_nothing_for_orphans() -> Result<()> {
    let mut ground = Ground::with_kubevirt(Knobs::default()).await?;
    // Until then nothing of KubeVirt's is orphaned.
    kubevirt::garbage_collected(&ground.api()).await?;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    let quota = |manifest: String, name: &str| {
        manifest.replace("{name: web}", &format!("{{name: {name}}}")).replace("64Mi}}", "64Mi}, pids: 64}")
    };
    let names = ["containers", "machines", "late"];
    ground.apply(&quota(web("registry.test/web:1", 2, ""), "containers")).await?;
    ground.apply(&quota(web_machines("registry.test/disk:1", 2, ""), "machines")).await?;
    ground.apply(&quota(web("registry.test/web:1", 2, ""), "late")).await?;
    let mut before = BTreeMap::new();
    for name in names {
        ground.wait_ready(name).await?;
        ensure!(held(&ground, name).await?.len() == 3, "{name}: {:?}", held(&ground, name).await?);
        let pods = ground.staying_pods(name).await?;
        before.insert(name, pods.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>());
    }
    let api = ground.api::<ElasticWorkload>();
    for name in ["containers", "machines"] {
        api.delete(name, &orphan).await?;
    }
    // One more while no operator runs.
    ground.kill()?;
    api.delete("late", &orphan).await?;
    eventually("the workloads are gone", WITHIN, || async {
        Ok(api.list(&ListParams::default()).await?.items.is_empty().then_some(()))
    })
    .await?;
    ground.replace_operator().await?;
    let ground = &ground;
    for name in names {
        eventually(&format!("{name} are let go"), WITHIN, || async move {
            let held = held(ground, name).await?;
            ensure!(held.is_empty(), "{held:?}");
            Ok(Some(()))
        })
        .await?;
        let pods = ground.staying_pods(name).await?;
        let after: BTreeSet<_> = pods.iter().filter_map(ResourceExt::uid).collect();
        ensure!(after == before[name], "{name} were disturbed");
    }
    ground.quiet().await
}

/// As in the manifests of Deployments and HorizontalPodAutoscalers: numbers with a point where quantities belong.
pub(crate) async fn numbers_with_a_point_are_quantities(ground: Ground) -> Result<()> {
    let manifest = "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: web}
spec:
  container: {image: 'registry.test/web:1'}
  quota: {cpu: {request: 0.5, limit: 1.5, burst: 0.25}, memory: {request: 67108864.0, limit: 1Gi}}
  scaling:
    minReplicas: 2
    maxReplicas: 5
    behavior: {scaleUp: {tolerance: 0.05}, scaleDown: {tolerance: 0}}
    metrics:
    - {type: Resource, resource: {name: cpu, target: {type: AverageValue, averageValue: 0.4}}}
    - {type: External, external: {metric: {name: queue}, target: {type: Value, value: 2.5}}, activation: 0.5}
";
    // Policies are in effect a moment after they are written.
    eventually("it is taken", WITHIN, || async { Ok(ground.apply(manifest).await.ok()) }).await?;
    ground.wait_ready("web").await?;
    let workload: ElasticWorkload = ground.api().get("web").await?;
    let spec = serde_json::to_value(&workload.spec)?;
    for (path, text) in [
        ("/quota/cpu/request", json!("0.5")),
        ("/quota/cpu/burst", json!("0.25")),
        ("/quota/memory/limit", json!("1Gi")),
        ("/scaling/behavior/scaleUp/tolerance", json!("0.05")),
        ("/scaling/metrics/0/resource/target/averageValue", json!("0.4")),
        ("/scaling/metrics/1/external/target/value", json!("2.5")),
        ("/scaling/metrics/1/activation", json!("0.5")),
    ] {
        ensure!(spec.pointer(path) == Some(&text), "{path}: {spec}");
    }
    let pods = ground.staying_pods("web").await?;
    let request = pods.first().and_then(|pod| pod.spec.as_ref()?.containers[0].resources.as_ref()?.requests.clone());
    ensure!(request.is_some_and(|requests| requests["cpu"].0 == "500m"), "{pods:?}");
    // Applied again it is the same.
    ground.apply(manifest).await?;
    let again: ElasticWorkload = ground.api().get("web").await?;
    ensure!(again.metadata.generation == workload.metadata.generation, "nothing has changed");
    ground.quiet().await
}
