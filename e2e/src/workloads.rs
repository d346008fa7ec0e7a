//! Workloads for tests: their manifests, applying them, and waiting for what becomes of them.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use catamaran_crds::{ElasticWorkload, names::WORKLOAD_LABEL};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind, TypeMeta},
    discovery,
};
use serde_json::Value;

use crate::wait::eventually;

/// How long tests wait for a rollout.
pub const WITHIN: Duration = Duration::from_secs(60);

/// The manifest of a workload in containers, small and with a Service. `rollout` is what stands in the braces of that
/// field.
#[must_use]
pub fn workload(name: &str, image: &str, replicas: u32, rollout: &str) -> String {
    format!(
        "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {{name: {name}}}
spec:
  container:
    image: {image}
{CONTAINER_PORT}  quota: {{cpu: {{request: 50m, limit: 500m}}, memory: {{request: 32Mi, limit: 64Mi}}}}
  replicas: {replicas}
  rollout: {{{rollout}}}
  service: {{ports: [{{name: http, port: 80}}]}}
"
    )
}

/// What of it a virtual machine does not have.
const CONTAINER_PORT: &str = "    ports: [{name: http, containerPort: 80}]\n";

/// A [`workload`] by the name `web`.
#[must_use]
pub fn web(image: &str, replicas: u32, rollout: &str) -> String {
    workload("web", image, replicas, rollout)
}

/// The manifest of a [`workload`] as that of one in virtual machines.
#[must_use]
pub fn as_machines(manifest: &str) -> String {
    manifest.replace("  container:", "  virtualMachine:").replace(CONTAINER_PORT, "")
}

/// Applies the documents of a YAML text by server-side apply with strict validation, as `kubectl apply --server-side`
/// does.
///
/// # Errors
/// What the API server answers.
pub async fn apply(client: &Client, namespace: &str, yaml: &str) -> Result<()> {
    for document in yaml.split("\n---").filter(|document| !document.trim().is_empty()) {
        apply_one(client, namespace, document).await?;
    }
    Ok(())
}

async fn apply_one(client: &Client, namespace: &str, yaml: &str) -> Result<()> {
    let value: Value = serde_saphyr::from_str(yaml).with_context(|| format!("no YAML: {yaml}"))?;
    let (api, name) = any_object(client, namespace, &value).await?;
    let parameters = PatchParams::apply("test").force().validation_strict();
    api.patch(&name, &parameters, &Patch::Apply(&value)).await.map(|_| ()).map_err(|error| anyhow!("{error}"))
}

/// Where an object of any kind is, or is to be, and its name.
///
/// # Errors
/// When it has no name, or nobody serves its kind.
pub async fn any_object(client: &Client, namespace: &str, object: &Value) -> Result<(Api<DynamicObject>, String)> {
    let types: TypeMeta = serde_json::from_value(object.clone())?;
    let kind = GroupVersionKind::try_from(&types)?;
    // A kind that was defined just now is served a moment later.
    let (resource, capabilities) = eventually("the kind is served", Duration::from_secs(10), || async {
        Ok(Some(discovery::pinned_kind(client, &kind).await?))
    })
    .await?;
    let name = object["metadata"]["name"].as_str().context("a manifest has a name")?.to_owned();
    let api = match capabilities.scope {
        discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
        discovery::Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    Ok((api, name))
}

/// The workloads of a namespace.
#[must_use]
pub fn workloads(client: &Client, namespace: &str) -> Api<ElasticWorkload> {
    Api::namespaced(client.clone(), namespace)
}

/// The pods of a workload, also those on their way out.
///
/// # Errors
/// What the API server answers.
pub async fn pods(client: &Client, namespace: &str, workload: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.list(&ListParams::default().labels(&format!("{WORKLOAD_LABEL}={workload}"))).await?.items)
}

/// Whether a pod is ready.
#[must_use]
pub fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The pods of a workload that stay: none that is on its way out.
///
/// # Errors
/// What the API server answers.
pub async fn staying_pods(client: &Client, namespace: &str, workload: &str) -> Result<Vec<Pod>> {
    let mut pods = pods(client, namespace, workload).await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// The one pod of a workload that stays.
///
/// # Errors
/// When there is none, or more than one.
pub async fn only_pod(client: &Client, namespace: &str, workload: &str) -> Result<Pod> {
    let mut pods = staying_pods(client, namespace, workload).await?;
    ensure!(pods.len() == 1, "{workload} has {} pods", pods.len());
    pods.pop().context("a pod")
}

/// How often the containers of a pod were started again.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// A condition of a workload, if it speaks of the present spec.
#[must_use]
pub fn condition<'a>(workload: &'a ElasticWorkload, type_: &str) -> Option<&'a Condition> {
    let conditions = &workload.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.type_ == type_ && c.observed_generation == workload.metadata.generation)
}

/// Waits until a workload satisfies `done`, and returns it.
///
/// # Errors
/// When that takes too long; the message shows its last status.
pub async fn wait_for(
    client: &Client,
    namespace: &str,
    name: &str,
    what: &str,
    within: Duration,
    done: impl Fn(&ElasticWorkload) -> bool,
) -> Result<ElasticWorkload> {
    let api = workloads(client, namespace);
    let outcome = eventually(&format!("{name} {what}"), within, || async {
        let workload = api.get(name).await?;
        Ok(done(&workload).then_some(workload))
    })
    .await;
    match outcome {
        Ok(workload) => Ok(workload),
        Err(error) => {
            let status =
                api.get(name).await.ok().and_then(|workload| serde_json::to_string_pretty(&workload.status).ok());
            Err(error.context(status.unwrap_or_default()))
        }
    }
}

/// Waits until Ready is True for the present spec.
///
/// # Errors
/// When that takes too long.
pub async fn wait_ready(client: &Client, namespace: &str, name: &str) -> Result<ElasticWorkload> {
    wait_for(client, namespace, name, "is ready", WITHIN, |workload| {
        condition(workload, "Ready").is_some_and(|ready| ready.status == "True")
    })
    .await
}

/// Waits until the workload is stalled for a reason.
///
/// # Errors
/// When that takes too long.
pub async fn wait_stalled(client: &Client, namespace: &str, name: &str, reason: &str) -> Result<ElasticWorkload> {
    wait_for(client, namespace, name, &format!("is stalled by {reason}"), WITHIN, |workload| {
        condition(workload, "Stalled").is_some_and(|stalled| stalled.reason == reason)
    })
    .await
}

/// Changes a spec by a merge patch, as a person with `kubectl patch`.
///
/// # Errors
/// What the API server answers.
pub async fn patch(client: &Client, namespace: &str, name: &str, patch: &Value) -> Result<ElasticWorkload> {
    let api = workloads(client, namespace);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.with_context(|| format!("patching {name}"))
}

/// All objects of a kind in a namespace, as names.
///
/// # Errors
/// What the API server answers.
pub async fn names(client: &Client, namespace: &str, resource: &ApiResource) -> Result<Vec<String>> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let mut names: Vec<String> = api.list(&Default::default()).await?.iter().map(ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}
