//! What the API server refuses, or cannot answer, is reported at once, and nothing that runs gets worse.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, apply, condition, patch, staying_pods, wait_for, wait_ready, workloads},
};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{LimitRange, Namespace, Pod, ResourceQuota},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::Ground;

const SECONDS: Duration = Duration::from_secs(15);

fn workload(replicas: u32, quota: &str) -> String {
    format!(
        "apiVersion: catamaran.dev/v1alpha1\nkind: ElasticWorkload\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  container: {{image: 'registry.test/web:1'}}\n  quota: {quota}\n"
    )
}

fn says(workload: &ElasticWorkload, type_: &str, words: &str) -> bool {
    condition(workload, type_).is_some_and(|found| found.message.contains(words))
}

async fn namespace(ground: &Ground, name: &str, label: &str) -> Result<()> {
    ground.control_plane.create_namespace(name).await?;
    let api: Api<Namespace> = Api::all(ground.client.clone());
    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {label: "on"}}}))).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_reported_and_nothing_gets_worse() -> Result<()> {
    let ground = Ground::start().await?;
    a_full_quota(&ground).await.context("a full ResourceQuota")?;
    a_limit_of_the_namespace(&ground).await.context("the maximum of a LimitRange")?;
    a_default_of_the_namespace(&ground).await.context("the default of a LimitRange")?;
    a_webhook_that_is_down(&ground).await.context("a webhook that is down")?;
    a_spec_that_makes_no_sense(&ground).await.context("a typing error in a time zone")?;
    ground.quiet().await
}

async fn a_full_quota(ground: &Ground) -> Result<()> {
    let (client, namespace_) = (&ground.client, "full");
    namespace(ground, namespace_, "full").await?;
    apply(
        client,
        namespace_,
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {pods: '2'}}\n",
    )
    .await?;
    apply(client, namespace_, &workload(3, "{cpu: {request: 100m}}")).await?;
    wait_for(client, namespace_, "web", "says what is full", SECONDS, |workload| {
        says(workload, "ReplicaFailure", "exceeded quota") && says(workload, "Ready", "exceeded quota")
    })
    .await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace_);
    quotas.delete("few", &DeleteParams::default()).await?;
    patch(client, namespace_, "web", &json!({"spec": {"replicas": 2}})).await?;
    wait_ready(client, namespace_, "web").await.map(|_| ())
}

/// The template was changed before any pod took the quota: a pod that was lost was never made again.
async fn a_limit_of_the_namespace(ground: &Ground) -> Result<()> {
    let (client, namespace_) = (&ground.client, "limited");
    namespace(ground, namespace_, "limited").await?;
    apply(
        client,
        namespace_,
        &workload(2, "{cpu: {request: 100m, limit: 500m}, memory: {request: 64Mi, limit: 128Mi}}"),
    )
    .await?;
    wait_ready(client, namespace_, "web").await?;
    let range = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: max}\nspec: {limits: [{type: Container, max: {memory: 512Mi}}]}\n";
    apply(client, namespace_, range).await?;
    patch(client, namespace_, "web", &json!({"spec": {"quota": {"memory": {"limit": "1Gi"}}}})).await?;
    wait_for(client, namespace_, "web", "says what refuses it", SECONDS, |workload| {
        says(workload, "Ready", "maximum memory usage per Container is 512Mi")
    })
    .await?;
    // One that is lost is made again, as it was.
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace_);
    let lost = staying_pods(client, namespace_, "web").await?.pop().context("a pod")?.name_any();
    pods.delete(&lost, &DeleteParams::default()).await?;
    eventually("both run again", WITHIN, || async {
        let there = staying_pods(client, namespace_, "web").await?;
        let ready = there.iter().filter(|pod| catamaran_e2e::workloads::pod_is_ready(pod)).count();
        Ok((ready >= 2 && there.iter().all(|pod| pod.name_any() != lost)).then_some(()))
    })
    .await?;
    let ranges: Api<LimitRange> = Api::namespaced(client.clone(), namespace_);
    ranges.delete("max", &DeleteParams::default()).await?;
    patch(client, namespace_, "web", &json!({"spec": {"quota": {"memory": {"limit": "256Mi"}}}})).await?;
    wait_ready(client, namespace_, "web").await.map(|_| ())
}

/// With it the pods are Guaranteed and the template is not: Kubernetes refuses the resize, so the edit rolls.
async fn a_default_of_the_namespace(ground: &Ground) -> Result<()> {
    let (client, namespace_) = (&ground.client, "defaults");
    namespace(ground, namespace_, "defaults").await?;
    let range = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: defaults}\nspec: {limits: [{type: Container, default: {cpu: 500m, memory: 256Mi}, defaultRequest: {cpu: 100m, memory: 256Mi}}]}\n";
    apply(client, namespace_, range).await?;
    apply(client, namespace_, &workload(2, "{cpu: {request: 500m, limit: 500m}}")).await?;
    let before = wait_ready(client, namespace_, "web").await?;
    patch(client, namespace_, "web", &json!({"spec": {"quota": {"cpu": {"request": "250m"}}}})).await?;
    let after = wait_ready(client, namespace_, "web").await?;
    let revision =
        |workload: &ElasticWorkload| workload.status.as_ref().and_then(|status| status.update_revision.clone());
    ensure!(revision(&before) != revision(&after), "it rolls");
    Ok(())
}

async fn a_webhook_that_is_down(ground: &Ground) -> Result<()> {
    let (client, namespace_) = (&ground.client, "policed");
    namespace(ground, namespace_, "policed").await?;
    apply(client, namespace_, &workload(2, "{cpu: {request: 100m}}")).await?;
    wait_ready(client, namespace_, "web").await?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "policy"},
        "webhooks": [{"name": "validate.policy.example.com", "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 2,
            "clientConfig": {"service": {"name": "policy", "namespace": "policy-system", "path": "/validate"}},
            "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["replicasets"]}],
            "namespaceSelector": {"matchLabels": {"policed": "on"}}, "admissionReviewVersions": ["v1"]}],
    });
    webhooks.create(&kube::api::PostParams::default(), &serde_json::from_value(webhook)?).await?;
    eventually("the webhook is asked", WITHIN, || async {
        let probe = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "probe"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}}});
        let sets: Api<k8s_openapi::api::apps::v1::ReplicaSet> = Api::namespaced(client.clone(), namespace_);
        let dry = kube::api::PostParams { dry_run: true, ..kube::api::PostParams::default() };
        Ok(sets.create(&dry, &serde_json::from_value(probe)?).await.is_err().then_some(()))
    })
    .await?;
    patch(client, namespace_, "web", &json!({"spec": {"container": {"image": "registry.test/web:2"}}})).await?;
    let told = wait_for(client, namespace_, "web", "has the API server's words", SECONDS, |workload| {
        says(workload, "Ready", "failed calling webhook")
    })
    .await?;
    let status = told.status.context("a status")?;
    ensure!(status.observed_generation == told.metadata.generation && status.replicas == 2, "{status:?}");
    webhooks.delete("policy", &DeleteParams::default()).await?;
    wait_ready(client, namespace_, "web").await.map(|_| ())
}

async fn a_spec_that_makes_no_sense(ground: &Ground) -> Result<()> {
    let (client, namespace_) = (&ground.client, "typo");
    namespace(ground, namespace_, "typo").await?;
    let scaled = |zone: &str, image: &str| {
        format!(
            "apiVersion: catamaran.dev/v1alpha1\nkind: ElasticWorkload\nmetadata: {{name: web}}\nspec:\n  container: {{image: '{image}'}}\n  scaling:\n    minReplicas: 2\n    maxReplicas: 5\n    schedules: [{{name: always, timeZone: {zone}, start: '0 0 * * *', end: '59 23 * * *', minReplicas: 2}}]\n"
        )
    };
    apply(client, namespace_, &scaled("Europe/Paris", "registry.test/web:1")).await?;
    wait_ready(client, namespace_, "web").await?;
    if apply(client, namespace_, &scaled("Europe/Pariss", "registry.test/web:2")).await.is_err() {
        // Refused at admission: so much the better.
        return Ok(());
    }
    let stalled = wait_for(client, namespace_, "web", "names the field", SECONDS, |workload| {
        says(workload, "Stalled", "Pariss") && says(workload, "Ready", "spec.scaling")
    })
    .await?;
    ensure!(!stalled.status.context("a status")?.last_good_spec.is_empty(), "kept over a restart");
    // What runs is looked after, and the counts are those that there are.
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace_);
    let lost = staying_pods(client, namespace_, "web").await?.pop().context("a pod")?.name_any();
    pods.delete(&lost, &DeleteParams::default()).await?;
    eventually("two pods and two counted", WITHIN, || async {
        let there = staying_pods(client, namespace_, "web").await?;
        let status = workloads(client, namespace_).get("web").await?.status.context("a status")?;
        let whole =
            there.len() == 2 && there.iter().all(|pod| pod.name_any() != lost) && status.available_replicas == 2;
        Ok(whole.then_some(()))
    })
    .await?;
    apply(client, namespace_, &scaled("Europe/Paris", "registry.test/web:2")).await?;
    let well = wait_ready(client, namespace_, "web").await?;
    ensure!(well.status.context("a status")?.last_good_spec.is_empty(), "not kept for longer than it is needed");
    Ok(())
}
