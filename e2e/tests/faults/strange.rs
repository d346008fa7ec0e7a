//! Objects that an operator does not know, or that others change: they cost nobody else anything.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    faults::{Answer, Match, Rule},
    workloads::{patch, wait_for},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
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
    ground.finish(&recorder).await?;
    ensure!(ground.uids(SHOP, "web").await? == before.0, "the workload of the class is as it was");
    ensure!(ground.uids(OTHER, "web").await? != before.1, "the other was rolled out");
    Ok(())
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
    ground.finish(&recorder).await?;
    Ok(())
}
