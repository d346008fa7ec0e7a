//! One very large set: what it costs to plan for it is not paid by the lease.

use std::time::Duration;

use anyhow::{Result, ensure};
use catamaran_e2e::{
    control_plane::ControlPlane,
    installation::{SYSTEM, operator_user},
    nodes::NodeTemplate,
    workloads::wait_for,
};
use serde_json::json;

use crate::support::{Ground, OTHER, ROLLOUT, SHOP, is_long, web};

#[tokio::test(flavor = "multi_thread")]
async fn a_very_large_set_leaves_the_lease_in_time() -> Result<()> {
    let replicas = if is_long() { 20_000 } else { 500 };
    let node = NodeTemplate::default().with("cpu", "100000").with("memory", "100Ti").with("pods", "5000");
    let control_plane = ControlPlane::builder().in_haste().node_template(node).kwok_nodes(8).start().await?;
    let mut ground = Ground::on(control_plane, json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let health = leader.health();
    let mark = ground.control_plane.audit().mark()?;
    ground.apply(SHOP, &web(1, replicas)).await?;
    let within = Duration::from_secs(60 + u64::from(replicas) / 5);
    wait_for(&ground.client, SHOP, "web", "has all replicas", within, |workload| {
        let available = workload.status.as_ref().map_or(0, |status| status.available_replicas);
        u32::try_from(available).is_ok_and(|available| available == replicas)
    })
    .await?;
    ground.rolled(OTHER, &web(1, 2), ROLLOUT).await?;
    ground.rolled(OTHER, &web(2, 2), ROLLOUT).await?;
    health.was_well().await?;
    leader.runs()?;
    let writes = ground.control_plane.audit().writes_since(mark)?;
    let mut renewed: Vec<_> = writes
        .iter()
        .filter(|write| write.user == operator_user() && write.resource == "leases" && write.namespace == SYSTEM)
        .map(|write| write.time)
        .collect();
    renewed.sort();
    let gaps = renewed.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
    let longest = gaps.fold(0.0, f64::max);
    println!("{replicas} replicas: {} renewals, at most {longest:.1} s apart", renewed.len());
    // Every 2 s; it is lost after 10 s.
    ensure!(renewed.len() > 3 && longest < 6.0, "{longest} s between two renewals");
    Ok(())
}
