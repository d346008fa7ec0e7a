//! A workload that changes all the time costs the API server little, and others nothing.

use anyhow::{Context, Result, anyhow, ensure};
use catamaran_e2e::{
    cluster::metric,
    wait::eventually,
    workloads::{WITHIN, web, workload},
};
use serde_json::json;

use crate::support::Ground;

pub(crate) async fn a_workload_that_changes_all_the_time_is_held_and_others_are_not() -> Result<()> {
    let ground = Ground::start().await?;
    ground.apply(&web("registry.test/web:1", 1, "")).await?;
    ground.wait_ready("web").await?;
    let flapping = async {
        for count in (1..=2).cycle() {
            ground.patch("web", &json!({ "spec": { "replicas": count } })).await?;
        }
        Err(anyhow!("it goes on for ever"))
    };
    let beside = async {
        eventually("a reconcile is held", WITHIN, || async {
            let held = metric(&ground.operator.metrics().await?, "catamaran_reconciles_held_total");
            Ok((held.context("there is the metric")? > 0.0).then_some(()))
        })
        .await?;
        ground.apply(&workload("api", "registry.test/web:1", 2, "")).await?;
        ground.wait_ready("api").await
    };
    tokio::select! {
        ready = beside => drop(ready?),
        ended = flapping => return ended,
    }
    // What it comes to at last holds, too.
    ground.patch("web", &json!({ "spec": { "replicas": 3 } })).await?;
    ground.wait_ready("web").await?;
    ensure!(ground.staying_pods("web").await?.len() == 3, "not three pods");
    ground.quiet().await
}
