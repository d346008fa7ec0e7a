//! Children are what we wrote, and what a Deployment runs is run.

use anyhow::{Context, Result, ensure};
use catamaran_crds::names::WORKLOAD_LABEL;
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, condition},
};
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Service};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::Ground;

/// Lists that the typed schema takes for maps, with an entry twice.
const TWICE: &str = "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: twice}
spec:
  replicas: 2
  container:
    template:
      spec:
        hostAliases: [{ip: 10.0.0.1, hostnames: [a]}, {ip: 10.0.0.1, hostnames: [b]}]
        containers:
        - name: main
          image: registry.test/web:1
          env: [{name: LEVEL, value: info}, {name: LEVEL, value: debug}]
          ports: [{name: http, containerPort: 8080}, {name: metrics, containerPort: 8080}]
";

const WEB: &str = "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: web}
spec:
  replicas: 2
  container: {image: 'registry.test/web:1'}
  service: {ports: [{name: http, port: 80, targetPort: 8080}]}
";

async fn images(ground: &Ground, workload: &str) -> Result<Vec<String>> {
    let pods = ground.staying_pods(workload).await?;
    let specs = pods.into_iter().filter_map(|pod| pod.spec);
    Ok(specs.flat_map(|spec| spec.containers).filter_map(|container| container.image).collect())
}

pub(crate) async fn children_are_what_we_wrote(ground: Ground) -> Result<()> {
    ground.apply(TWICE).await?;
    ground.apply(WEB).await?;
    ground.wait_ready("twice").await?;
    ground.wait_ready("web").await?;

    // What others add to the Service is taken out, once.
    let services: Api<Service> = ground.api();
    let others = PatchParams { field_manager: Some("kubectl-patch".to_owned()), ..PatchParams::default() };
    let added = json!({"spec": {"ports": [
        {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"},
        {"name": "debug", "port": 6060, "targetPort": 6060}], "selector": {"tier": "front"}}});
    services.patch("web", &others, &Patch::Merge(&added)).await?;
    eventually("the Service is what the spec says", WITHIN, || async {
        let spec = services.get("web").await?.spec.context("a spec")?;
        let ports = spec.ports.unwrap_or_default();
        let right =
            ports.len() == 1 && ports[0].app_protocol.is_none() && spec.selector.is_some_and(|all| all.len() == 1);
        Ok(right.then_some(()))
    })
    .await?;
    ground.quiet().await?;

    // `kubectl set image` on the replica set: reported with who did it, replaced by a rollout, and never come back to.
    let sets: Api<ReplicaSet> = ground.api();
    let of_web = ListParams::default().labels(&format!("{WORKLOAD_LABEL}=web"));
    let set = sets.list(&of_web).await?.items.pop().context("a set")?.name_any();
    let evil =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.test/evil:9"}]}}}});
    let others = PatchParams { field_manager: Some("kubectl-set".to_owned()), ..PatchParams::default() };
    sets.patch(&set, &others, &Patch::Strategic(&evil)).await?;
    let told = ground
        .wait_for("web", "tells of the change", WITHIN, |workload| condition(workload, "ForeignChange").is_some())
        .await?;
    let message = condition(&told, "ForeignChange").map(|found| found.message.clone()).unwrap_or_default();
    ensure!(message.contains("kubectl-set") && message.contains(&set), "{message}");
    ground
        .wait_for("web", "is of the spec again", WITHIN, |workload| {
            condition(workload, "ForeignChange").is_none()
                && condition(workload, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await?;
    for image in ["registry.test/web:2", "registry.test/web:1"] {
        ground.patch("web", &json!({"spec": {"container": {"image": image}}})).await?;
        ground.wait_ready("web").await?;
        ensure!(images(&ground, "web").await?.iter().all(|found| found == image), "{image}");
    }
    ground.quiet().await
}
