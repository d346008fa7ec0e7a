//! Objects that an operator does not know, or that others change: they cost nobody else anything.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    faults::{Answer, Match, Proxy, Rule},
    workloads::{self, as_machines, patch, wait_for},
};
use k8s_openapi::{
    api::core::v1::Pod, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::support::{Ground, OTHER, ROLLOUT, SHOP, web};

/// A condition has to come within so long.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_class_with_a_field_of_a_newer_version_disturbs_nobody() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let recorder = ground.record(SHOP, "web").await?;
    let class = "apiVersion: catamaran.dev/v1alpha1
kind: WorkloadClass
metadata: {name: small}
spec: {quota: {cpu: {request: 50m}, memory: {request: 32Mi}}}
";
    ground.apply("", class).await?;
    ground.rolled(SHOP, &web(1, 2).replace("spec:\n", "spec:\n  className: small\n"), ROLLOUT).await?;
    ground.rolled(OTHER, &web(1, 2), ROLLOUT).await?;
    let before = (ground.uids(SHOP, "web").await?, ground.uids(OTHER, "web").await?);

    let crds: Api<CustomResourceDefinition> = Api::all(ground.client.clone());
    let mut crd = crds.get("workloadclasses.catamaran.dev").await?;
    let schema = crd.spec.versions[0].schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
    let properties = schema.context("a schema")?.properties.as_mut().context("properties")?;
    let spec = properties.get_mut("spec").context("spec")?.properties.get_or_insert_default();
    let quota = spec.get_mut("quota").context("spec.quota")?.properties.get_or_insert_default();
    quota.insert("newer".to_owned(), serde_json::from_value(json!({"type": "string"}))?);
    crd.metadata.managed_fields = None;
    crds.patch(&crd.name_any(), &PatchParams::default(), &Patch::Merge(&crd)).await?;
    let with_field = class.replace("quota: {", "quota: {newer: field, ");
    catamaran_e2e::wait::eventually("the field is served", SOON, || async {
        ground.apply("", &with_field).await.map(Some)
    })
    .await?;

    // The one that runs, and one that starts now.
    ground.rolled(OTHER, &web(2, 2), ROLLOUT).await?;
    leader.runs()?;
    leader.operator.kill()?;
    let mut leader = ground.join("operator-b").await?;
    ground.leads("operator-b", Duration::from_secs(60)).await?;
    ground.rolled(OTHER, &web(3, 2), ROLLOUT).await?;
    ground.current(SHOP, "web", ROLLOUT).await?;
    leader.runs()?;
    recorder.finish(ground.quiet()).await?;
    ensure!(ground.uids(SHOP, "web").await? == before.0, "the workload of the class is as it was");
    ensure!(ground.uids(OTHER, "web").await? != before.1, "the other was rolled out");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_start_while_kubevirt_cannot_be_listed() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    ground.start_kubevirt().await?;
    let proxy = Proxy::start(&ground.control_plane).await?;
    let kubevirt = Match::all().resource("virtualmachineinstances").resource("virtualmachineinstancereplicasets");
    let rule = proxy.set(Rule::new(kubevirt, Answer::internal_error("conversion webhook for kubevirt.io failed")));
    let mut leader = ground.join_by("operator-a", proxy).await?;
    ground.leads("operator-a", Duration::from_secs(30)).await?;
    let recorder = ground.record(OTHER, "web").await?;
    ground.rolled(OTHER, &web(1, 2), ROLLOUT).await?;
    ensure!(rule.hits() > 0, "it asked for them");
    ground.apply(SHOP, &as_machines(&web(1, 1))).await?;
    ground.rolled(OTHER, &web(2, 2), ROLLOUT).await?;
    let health = leader.health();
    leader.proxy.clear(&rule);
    let cleared = Instant::now();
    ground.current(SHOP, "web", Duration::from_secs(90)).await?;
    println!("virtual machines run {:?} after KubeVirt could be listed", cleared.elapsed());
    health.was_well().await?;
    leader.runs()?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_relabelled_is_replaced_and_left_alone() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    ground.rolled(SHOP, &web(1, 3), ROLLOUT).await?;
    let pods: Api<Pod> = Api::namespaced(ground.client.clone(), SHOP);
    let first = workloads::staying_pods(&ground.client, SHOP, "web").await?.pop().context("a pod")?;
    // As one does to look at a pod in peace.
    let label = ["label", "pod", &first.name_any(), "catamaran.dev/workload=debug", "--overwrite"];
    ground.control_plane.run_kubectl(SHOP, &label).await?;
    let three = |workload: &catamaran_crds::ElasticWorkload| {
        workload.status.as_ref().is_some_and(|status| status.replicas == 3 && status.available_replicas == 3)
    };
    catamaran_e2e::wait::eventually("there are three others", ROLLOUT, || async {
        let pods = workloads::staying_pods(&ground.client, SHOP, "web").await?;
        Ok((pods.len() == 3 && pods.iter().all(workloads::pod_is_ready)).then_some(()))
    })
    .await?;
    wait_for(&ground.client, SHOP, "web", "has three replicas", SOON, three).await?;
    ground.quiet().await?;
    let before = pods.get(&first.name_any()).await?;
    // What is done to each pod, and what is done to sets.
    patch(&ground.client, SHOP, "web", &json!({"spec": {"quota": {"cpu": {"limit": "600m"}}}})).await?;
    ground.current(SHOP, "web", ROLLOUT).await?;
    ground.rolled(SHOP, &web(2, 3), ROLLOUT).await?;
    let rolled = ground.current(SHOP, "web", ROLLOUT).await?;
    let status = rolled.status.unwrap_or_default();
    ensure!(status.replicas == 3 && status.updated_replicas == 3, "{status:?}");
    let debugged = pods.get(&first.name_any()).await?;
    ensure!(debugged.uid() == first.uid() && debugged.metadata.deletion_timestamp.is_none(), "it runs on");
    ensure!(debugged.spec == before.spec && debugged.annotations() == before.annotations(), "it is left alone");
    // No ghost keeps the workload from going to none.
    patch(&ground.client, SHOP, "web", &json!({"spec": {"state": "Stopped"}})).await?;
    let stopped = ground.current(SHOP, "web", ROLLOUT).await?;
    ensure!(stopped.status.unwrap_or_default().replicas == 0);
    leader.runs()?;
    ground.quiet().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_write_that_fails_is_a_condition_and_holds_nothing_else_up() -> Result<()> {
    const FAILED: &str = "failed calling webhook pods.example.com";
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let recorder = ground.record(SHOP, "web").await?;
    ground.rolled(SHOP, &web(1, 2), ROLLOUT).await?;
    let before = ground.uids(SHOP, "web").await?;
    // The webhook of the cluster's own: it stands in the way of every write of a pod.
    let pods = Match::writes().namespace(SHOP).resource("pods").resource("pods/resize");
    let rule = leader.proxy.set(Rule::new(pods, Answer::internal_error(FAILED)));
    let asked = Instant::now();
    let larger = json!({"spec": {
        "quota": {"cpu": {"limit": "600m"}},
        "service": {"ports": [{"name": "http", "port": 81}]},
    }});
    patch(&ground.client, SHOP, "web", &larger).await?;
    wait_for(&ground.client, SHOP, "web", "says what the webhook said", SOON, |workload| {
        let conditions = workload.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.message.contains(FAILED))
    })
    .await?;
    println!("a condition after {:?}", asked.elapsed());
    ensure!(rule.hits() > 0);
    let services: Api<k8s_openapi::api::core::v1::Service> = Api::namespaced(ground.client.clone(), SHOP);
    catamaran_e2e::wait::eventually("the Service has its new port", SOON, || async {
        let ports = services.get("web").await?.spec.and_then(|spec| spec.ports).unwrap_or_default();
        Ok(ports.iter().any(|port| port.port == 81).then_some(()))
    })
    .await?;
    ground.rolled(OTHER, &web(1, 2), ROLLOUT).await?;
    leader.proxy.clear(&rule);
    ground.current(SHOP, "web", ROLLOUT).await?;
    ensure!(ground.uids(SHOP, "web").await? == before, "in place");
    leader.runs()?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}
