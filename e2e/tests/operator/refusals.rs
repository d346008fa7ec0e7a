//! What the API server refuses, or cannot answer, is reported at once, and nothing that runs gets worse.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_crds::{ElasticWorkload, WorkloadClass};
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, condition, pod_is_ready},
};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    apps::v1::ReplicaSet,
    core::v1::{LimitRange, Pod, ResourceQuota},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
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

pub(crate) async fn a_full_resource_quota_is_told(ground: Ground) -> Result<()> {
    ground.apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {pods: '2'}}\n").await?;
    ground.apply(&workload(3, "{cpu: {request: 100m}}")).await?;
    ground
        .wait_for("web", "says what is full", SECONDS, |workload| {
            says(workload, "ReplicaFailure", "exceeded quota") && says(workload, "Ready", "exceeded quota")
        })
        .await?;
    let quotas: Api<ResourceQuota> = ground.api();
    quotas.delete("few", &DeleteParams::default()).await?;
    ground.patch("web", &json!({"spec": {"replicas": 2}})).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

/// The template was changed before any pod took the quota: a pod that was lost was never made again.
pub(crate) async fn the_maximum_of_a_limit_range_is_told(ground: Ground) -> Result<()> {
    ground.apply(&workload(2, "{cpu: {request: 100m, limit: 500m}, memory: {request: 64Mi, limit: 128Mi}}")).await?;
    ground.wait_ready("web").await?;
    let range = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: max}\nspec: {limits: [{type: Container, max: {memory: 512Mi}}]}\n";
    ground.apply(range).await?;
    ground.patch("web", &json!({"spec": {"quota": {"memory": {"limit": "1Gi"}}}})).await?;
    ground
        .wait_for("web", "says what refuses it", SECONDS, |workload| {
            says(workload, "Ready", "maximum memory usage per Container is 512Mi")
        })
        .await?;
    // One that is lost is made again, as it was.
    let pods: Api<Pod> = ground.api();
    let lost = ground.staying_pods("web").await?.pop().context("a pod")?.name_any();
    pods.delete(&lost, &DeleteParams::default()).await?;
    eventually("both run again", WITHIN, || async {
        let there = ground.staying_pods("web").await?;
        let ready = there.iter().filter(|pod| pod_is_ready(pod)).count();
        Ok((ready >= 2 && there.iter().all(|pod| pod.name_any() != lost)).then_some(()))
    })
    .await?;
    let ranges: Api<LimitRange> = ground.api();
    ranges.delete("max", &DeleteParams::default()).await?;
    ground.patch("web", &json!({"spec": {"quota": {"memory": {"limit": "256Mi"}}}})).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

/// With it the pods are Guaranteed and the template is not: Kubernetes refuses the resize, so the edit rolls.
pub(crate) async fn the_default_of_a_limit_range_makes_an_edit_roll(ground: Ground) -> Result<()> {
    let range = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: defaults}\nspec: {limits: [{type: Container, default: {cpu: 500m, memory: 256Mi}, defaultRequest: {cpu: 100m, memory: 256Mi}}]}\n";
    ground.apply(range).await?;
    ground.apply(&workload(2, "{cpu: {request: 500m, limit: 500m}}")).await?;
    let before = ground.wait_ready("web").await?;
    ground.patch("web", &json!({"spec": {"quota": {"cpu": {"request": "250m"}}}})).await?;
    let after = ground.wait_ready("web").await?;
    let revision =
        |workload: &ElasticWorkload| workload.status.as_ref().and_then(|status| status.update_revision.clone());
    ensure!(revision(&before) != revision(&after), "it rolls");
    ground.quiet().await
}

pub(crate) async fn a_webhook_that_is_down_is_told(ground: Ground) -> Result<()> {
    ground.apply(&workload(2, "{cpu: {request: 100m}}")).await?;
    ground.wait_ready("web").await?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(ground.client.clone());
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "policy"},
        "webhooks": [{
            "name": "validate.policy.example.com", "failurePolicy": "Fail", "sideEffects": "None",
            "timeoutSeconds": 2, "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "policy", "namespace": "policy-system", "path": "/validate"}},
            "rules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["replicasets"],
            }],
            // Nobody else is disturbed.
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ground.namespace}},
        }],
    });
    webhooks.create(&PostParams::default(), &serde_json::from_value(webhook)?).await?;
    eventually("the webhook is asked", WITHIN, || async {
        let labels = json!({"a": "b"});
        let probe = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "probe"}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
        }});
        let sets: Api<ReplicaSet> = ground.api();
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        Ok(sets.create(&dry, &serde_json::from_value(probe)?).await.is_err().then_some(()))
    })
    .await?;
    ground.patch("web", &json!({"spec": {"container": {"image": "registry.test/web:2"}}})).await?;
    let told = ground
        .wait_for("web", "has the API server's words", SECONDS, |workload| {
            says(workload, "Ready", "failed calling webhook")
        })
        .await?;
    let status = told.status.context("a status")?;
    ensure!(status.observed_generation == told.metadata.generation && status.replicas == 2, "{status:?}");
    webhooks.delete("policy", &DeleteParams::default()).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

pub(crate) async fn a_typing_error_in_a_time_zone_is_told(ground: Ground) -> Result<()> {
    let scaled = |zone: &str, image: &str| {
        format!(
            "apiVersion: catamaran.dev/v1alpha1\nkind: ElasticWorkload\nmetadata: {{name: web}}\nspec:\n  container: {{image: '{image}'}}\n  scaling:\n    minReplicas: 2\n    maxReplicas: 5\n    schedules: [{{name: always, timeZone: {zone}, start: '0 0 * * *', end: '59 23 * * *', minReplicas: 2}}]\n"
        )
    };
    ground.apply(&scaled("Europe/Paris", "registry.test/web:1")).await?;
    ground.wait_ready("web").await?;
    if ground.apply(&scaled("Europe/Pariss", "registry.test/web:2")).await.is_err() {
        // Refused at admission: so much the better.
        return Ok(());
    }
    let stalled = ground
        .wait_for("web", "names the field", SECONDS, |workload| {
            says(workload, "Stalled", "Pariss") && says(workload, "Ready", "spec.scaling")
        })
        .await?;
    ensure!(!stalled.status.context("a status")?.last_good_spec.is_empty(), "kept over a restart");
    goes_on(&ground, "registry.test/web:1").await?;
    ground.apply(&scaled("Europe/Paris", "registry.test/web:2")).await?;
    let well = ground.wait_ready("web").await?;
    ensure!(well.status.context("a status")?.last_good_spec.is_empty(), "not kept for longer than it is needed");
    ground.quiet().await
}

/// What runs is looked after, stays what it is, and the counts are those that there are.
async fn goes_on(ground: &Ground, image: &str) -> Result<()> {
    let pods: Api<Pod> = ground.api();
    let lost = ground.staying_pods("web").await?.pop().context("a pod")?.name_any();
    pods.delete(&lost, &DeleteParams::default()).await?;
    eventually("two pods of the image, and two counted", WITHIN, || async {
        let there = ground.staying_pods("web").await?;
        let status = ground.api::<ElasticWorkload>().get("web").await?.status.context("a status")?;
        let image_of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
        let right = there
            .iter()
            .all(|pod| pod.name_any() != lost && image_of(pod).as_deref() == Some(image) && pod_is_ready(pod));
        Ok((right && there.len() == 2 && status.available_replicas == 2).then_some(()))
    })
    .await
}

pub(crate) async fn a_class_that_is_missing_stops_no_workload(ground: Ground) -> Result<()> {
    let gold = format!("gold-{}", ground.namespace);
    let class = format!(
        "apiVersion: catamaran.dev/v1alpha1\nkind: WorkloadClass\nmetadata: {{name: {gold}}}\nspec: {{quota: {{cpu: {{request: 10m}}}}}}\n"
    );
    let classes: Api<WorkloadClass> = Api::all(ground.control_plane.client());
    let is_kept = |workload: &ElasticWorkload| {
        says(workload, "Stalled", "does not exist")
            && workload.status.as_ref().is_some_and(|status| !status.last_good_spec.is_empty())
    };
    let (first, second) = ("registry.test/web:1", "registry.test/web:2");
    ground.apply(&class).await?;
    ground
        .apply(&format!(
            "apiVersion: catamaran.dev/v1alpha1\nkind: ElasticWorkload\nmetadata: {{name: web}}\nspec: {{className: {gold}, replicas: 2, container: {{image: '{first}'}}}}\n"
        ))
        .await?;
    ground.wait_ready("web").await?;
    classes.delete(&gold, &DeleteParams::default()).await?;
    ground.wait_for("web", "says that its class is gone, and keeps what it was", SECONDS, is_kept).await?;
    goes_on(&ground, first).await?;
    ground.apply(&class).await?;
    let well = ground.wait_ready("web").await?;
    ensure!(well.status.context("a status")?.last_good_spec.is_empty(), "not kept for longer than it is needed");

    let wrong = json!({"spec": {"className": "nothing", "container": {"image": second}}});
    ground.patch("web", &wrong).await?;
    ground.wait_for("web", "says that its class is missing, and keeps what it was", SECONDS, is_kept).await?;
    goes_on(&ground, first).await?;
    ground.patch("web", &json!({"spec": {"className": gold}})).await?;
    ground.wait_ready("web").await?;
    goes_on(&ground, second).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await?;
    classes.delete(&gold, &DeleteParams::default()).await?;
    Ok(())
}
