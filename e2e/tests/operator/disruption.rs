//! Which PodDisruptionBudget works over a rollout and for guests, by the API server's own eviction.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use catamaran_e2e::{
    wait::eventually,
    workloads::{WITHIN, pod_is_ready, web},
};
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, EvictParams},
};

use crate::support::{Ground, web_machines};

/// As in docs/examples/disruption-budget.yaml, for four replicas.
const ABSOLUTE: &str = "minAvailable: 3";

async fn budget(ground: &Ground, rule: &str) -> Result<PodDisruptionBudget> {
    let budgets: Api<PodDisruptionBudget> = ground.api();
    if budgets.get_opt("web").await?.is_some() {
        budgets.delete("web", &DeleteParams::default()).await?;
    }
    let selector = "selector: {matchLabels: {catamaran.dev/workload: web}}";
    ground
        .apply(&format!(
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: web}}\nspec: {{{rule}, {selector}}}\n"
        ))
        .await?;
    eventually("the budget is counted", WITHIN, || async {
        let budget = budgets.get("web").await?;
        let status = budget.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        // One that cannot be counted has the condition alone.
        Ok((!conditions.is_empty()).then_some(budget))
    })
    .await
}

/// One ready replica is evicted, the next one is not until the first is replaced.
async fn one_at_a_time(ground: &Ground) -> Result<()> {
    // A client that tries a 429 again would wait until the first one is replaced.
    let mut config = ground.control_plane.config().clone();
    config.default_retry = false;
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, &ground.namespace);
    let mut ready = ground.staying_pods("web").await?;
    ready.retain(pod_is_ready);
    let names: Vec<String> = ready.iter().map(ResourceExt::name_any).collect();
    let [first, second, ..] = names.as_slice() else { bail!("{names:?}") };
    eventually("the eviction is allowed", WITHIN, || async {
        Ok(pods.evict(first, &EvictParams::default()).await.is_ok().then_some(()))
    })
    .await?;
    match pods.evict(second, &EvictParams::default()).await {
        Err(kube::Error::Api(answer)) if answer.code == 429 => {}
        other => bail!("a second eviction at once: {other:?}"),
    }
    eventually("it is replaced", WITHIN, || async {
        let there = ground.staying_pods("web").await?;
        let ready: BTreeSet<String> = there.iter().filter(|pod| pod_is_ready(pod)).map(ResourceExt::name_any).collect();
        Ok((ready.len() >= 4 && !ready.contains(first)).then_some(()))
    })
    .await
}

pub(crate) async fn a_budget_in_numbers_works_over_a_rollout(ground: Ground) -> Result<()> {
    const ROLLOUT: &str = "maxSurge: 4, maxUnavailable: 0, progressDeadlineSeconds: 600";
    ground.apply(&web("registry.test/web:1", 4, ROLLOUT)).await?;
    ground.wait_ready("web").await?;
    budget(&ground, ABSOLUTE).await?;
    one_at_a_time(&ground).await.context("at rest")?;
    // A rollout that stands still: four of the old revision, four of the new one that are never ready.
    ground.apply(&web("registry.test/web:broken", 4, ROLLOUT)).await?;
    ground
        .wait_for("web", "is in mid-rollout", WITHIN, |workload| {
            workload.status.as_ref().is_some_and(|status| status.replicas == 8 && status.available_replicas == 4)
        })
        .await?;
    one_at_a_time(&ground).await.context("in mid-rollout")?;
    // Why not per cent: both sets count as the whole.
    let status = budget(&ground, "maxUnavailable: 25%").await?.status.context("a status")?;
    ensure!(status.expected_pods == 8 && status.disruptions_allowed == 0, "{status:?}");
    Ok(())
}

pub(crate) async fn a_budget_in_numbers_works_for_guests(ground: Ground) -> Result<()> {
    ground.apply(&web_machines("registry.test/disk:1", 4, "")).await?;
    ground.wait_ready("web").await?;
    budget(&ground, ABSOLUTE).await?;
    one_at_a_time(&ground).await?;
    // Why not the other forms: a VirtualMachineInstance has no scale.
    for rule in ["maxUnavailable: 1", "minAvailable: 75%"] {
        let status = budget(&ground, rule).await?.status.context("a status")?;
        let failed = status.conditions.iter().flatten().any(|condition| condition.reason == "SyncFailed");
        ensure!(failed && status.disruptions_allowed == 0, "{rule}: {status:?}");
    }
    Ok(())
}
