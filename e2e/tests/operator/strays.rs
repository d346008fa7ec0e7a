//! Only pods that a workload owns are its replicas. One that is quarantined by its labels, or made with them, gets no
//! traffic and is not counted.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use catamaran_crds::names::{REVISION_LABEL, WORKLOAD_LABEL};
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, staying_pods, wait_ready, web},
};
use catamaran_protocol::usage::UsageList;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{Ground, web_machines};

/// One by hand, with the label and nobody who controls it.
const DEBUG: &str = "apiVersion: v1
kind: Pod
metadata: {name: debug, labels: {catamaran.dev/workload: web}}
spec: {containers: [{name: main, image: 'registry.test/web:1'}]}
";

/// The names of the pods that the Service leads to.
async fn served(ground: &Ground) -> Result<BTreeSet<String>> {
    let slices: Api<EndpointSlice> = Api::namespaced(ground.client.clone(), &ground.namespace);
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let slices = slices.list(&of_web).await?.items;
    let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
    Ok(endpoints.filter_map(|endpoint| endpoint.target_ref?.name).collect())
}

/// The replicas that `kubectl catamaran top` counts.
async fn counted(ground: &Ground) -> Result<usize> {
    let (code, text) = ground.operator.probe(&format!("/usage/{}/web", ground.namespace)).await?;
    ensure!(code == 200, "{code} {text}");
    let list: UsageList = serde_json::from_str(&text)?;
    let web = list.items.into_iter().find(|item| item.name == "web").context("the workload")?;
    Ok(usize::try_from(web.replicas)?)
}

async fn serves(ground: &Ground, count: usize, without: &[&str]) -> Result<()> {
    eventually("the Service leads to the replicas alone", WITHIN, || async {
        let served = served(ground).await?;
        let counted = counted(ground).await?;
        let out = without.iter().all(|pod| !served.contains(*pod));
        ensure!(served.len() == count && out && counted == count, "{served:?}, {counted} counted");
        Ok(Some(()))
    })
    .await
}

async fn relabel(ground: &Ground, pod: &str, labels: Value) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(ground.client.clone(), &ground.namespace);
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    pods.patch(pod, &PatchParams::default(), &patch).await.map(|_| ()).map_err(Into::into)
}

pub(crate) async fn a_pod_that_is_no_replica_gets_no_traffic(ground: Ground) -> Result<()> {
    ground.apply(&web("registry.test/web:1", 3, "")).await?;
    wait_ready(&ground.client, &ground.namespace, "web").await?;
    serves(&ground, 3, &[]).await?;
    for labels in [
        json!({REVISION_LABEL: null}),
        json!({REVISION_LABEL: "quarantine"}),
        json!({WORKLOAD_LABEL: null}),
        json!({WORKLOAD_LABEL: "quarantine"}),
    ] {
        let pod = staying_pods(&ground.client, &ground.namespace, "web").await?.pop().context("a pod")?.name_any();
        relabel(&ground, &pod, labels.clone()).await?;
        serves(&ground, 3, &[&pod]).await.with_context(|| labels.to_string())?;
        wait_ready(&ground.client, &ground.namespace, "web").await?;
        let pods: Api<Pod> = Api::namespaced(ground.client.clone(), &ground.namespace);
        ensure!(pods.get(&pod).await?.metadata.deletion_timestamp.is_none(), "it stays to be looked at");
    }
    ground.apply(DEBUG).await?;
    serves(&ground, 3, &["debug"]).await?;
    ground.quiet().await
}

pub(crate) async fn a_guest_that_is_quarantined_gets_no_traffic(ground: Ground) -> Result<()> {
    ground.apply(&web_machines("registry.test/disk:1", 2, "")).await?;
    wait_ready(&ground.client, &ground.namespace, "web").await?;
    serves(&ground, 2, &[]).await?;
    let pod = staying_pods(&ground.client, &ground.namespace, "web").await?.pop().context("a pod")?;
    let guest = pod.labels()["vm.kubevirt.io/name"].clone();
    let machines: Api<catamaran_crds::kubevirt::VirtualMachineInstance> =
        Api::namespaced(ground.client.clone(), &ground.namespace);
    let patch = Patch::Merge(json!({"metadata": {"labels": {REVISION_LABEL: null}}}));
    machines.patch(&guest, &PatchParams::default(), &patch).await?;
    serves(&ground, 2, &[&pod.name_any()]).await?;
    wait_ready(&ground.client, &ground.namespace, "web").await?;
    ground.quiet().await
}
