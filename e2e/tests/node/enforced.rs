//! What a workload says of its quota: that the node holds it, why it does not, and what was killed by the OOM killer.

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    node::LOAD,
    wait::eventually,
    workloads::{self, condition},
};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use serde_json::{Value, json};

use crate::{
    bill::lead_agents_to_the_leader,
    ground::{Ground, NAMESPACE, POD_WITHIN},
};

async fn apply(ground: &Ground, name: &str, container: &Value, quota: &Value) -> Result<()> {
    let workload = json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": {"name": name},
        "spec": {"container": container, "quota": quota, "replicas": 1},
    });
    workloads::apply(&ground.client, NAMESPACE, &workload.to_string()).await
}

/// Waits until a condition is of a reason, and returns its message.
async fn says(ground: &Ground, name: &str, type_: &str, reason: &str) -> Result<String> {
    let what = format!("has {type_} with reason {reason}");
    let is_so = |workload: &ElasticWorkload| condition(workload, type_).is_some_and(|found| found.reason == reason);
    let workload = workloads::wait_for(&ground.client, NAMESPACE, name, &what, POD_WITHIN, is_so).await?;
    Ok(condition(&workload, type_).context("the condition")?.message.clone())
}

pub(crate) async fn a_workload_says_whether_its_node_holds_the_quota(ground: &Ground) -> Result<()> {
    lead_agents_to_the_leader(ground).await?;
    let io = |device: &str| json!([{"device": device, "writeBytesPerSecond": "4Mi"}]);
    let container = json!({"image": LOAD, "args": ["serve"]});
    let quota =
        |io: Value| json!({"memory": {"request": "16Mi", "limit": "64Mi", "high": "48Mi"}, "pids": 64, "io": io});
    apply(ground, "told", &container, &quota(io("vdb"))).await?;
    says(ground, "told", "QuotaEnforced", "Enforced").await?;
    let cgroup = ground.node.cgroup_of(&ground.pod_of("told").await?, "main").await?;
    ensure!(ground.read(&cgroup, "pids.max").await? == "64", "it was said before it was so");
    // A disk that this node has not.
    workloads::patch(&ground.client, NAMESPACE, "told", &json!({"spec": {"quota": {"io": io("nvme7n1")}}})).await?;
    let message = says(ground, "told", "QuotaEnforced", "NotEnforced").await?;
    ensure!(
        message.contains(ground.node.name()) && message.contains("io.max") && message.contains("nvme7n1"),
        "{message}"
    );
    event(ground, "told", "NotEnforced").await?;
    workloads::patch(&ground.client, NAMESPACE, "told", &json!({"spec": {"quota": {"io": io("vdb")}}})).await?;
    says(ground, "told", "QuotaEnforced", "Enforced").await?;
    ground.kubectl(&["delete", "elasticworkload", "told"]).await?;
    Ok(())
}

pub(crate) async fn a_kill_for_want_of_memory_is_told_with_a_size(ground: &Ground) -> Result<()> {
    lead_agents_to_the_leader(ground).await?;
    let quota = |limit: &str| json!({"memory": {"request": "16Mi", "limit": limit}});
    apply(ground, "hungry", &json!({"image": LOAD, "args": ["memory", "--mib", "200", "--stay"]}), &quota("64Mi"))
        .await?;
    // A kill with memory.oom.group is the container's; the kubelet tells of it, the agent of the peak.
    let what = "tells of the kill and the peak";
    let workload = workloads::wait_for(&ground.client, NAMESPACE, "hungry", what, POD_WITHIN, |workload| {
        condition(workload, "OutOfMemory").is_some_and(|found| found.message.contains("memory.peak"))
    })
    .await?;
    let message = &condition(&workload, "OutOfMemory").context("the condition")?.message;
    let pod = ground.pod_of("hungry").await?;
    let name = pod.metadata.name.as_deref().context("a name")?;
    ensure!(
        message.contains(name)
            && message.contains("limit 64Mi")
            && message.contains("raise spec.quota.memory.limit to"),
        "{message}"
    );
    event(ground, "hungry", "OOMKilled").await?;
    // With a limit that is enough it is over, in the same pod.
    workloads::patch(&ground.client, NAMESPACE, "hungry", &json!({"spec": {"quota": quota("320Mi")}})).await?;
    workloads::wait_for(&ground.client, NAMESPACE, "hungry", "tells of no kill", POD_WITHIN, |workload| {
        workload
            .status
            .as_ref()
            .is_some_and(|status| status.conditions.iter().all(|found| found.type_ != "OutOfMemory"))
    })
    .await?;
    ensure!(ground.pod_of("hungry").await?.metadata.uid == pod.metadata.uid);
    ground.kubectl(&["delete", "elasticworkload", "hungry"]).await?;
    Ok(())
}

/// Waits for a Warning on a workload.
async fn event(ground: &Ground, workload: &str, reason: &str) -> Result<()> {
    let events: Api<Event> = Api::namespaced(ground.client.clone(), NAMESPACE);
    eventually(&format!("the Event {reason} on {workload}"), POD_WITHIN, || async {
        let all = events.list(&Default::default()).await?;
        let is_it = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.type_.as_deref() == Some("Warning")
                && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(workload)
        };
        Ok(all.items.iter().any(is_it).then_some(()))
    })
    .await
}
