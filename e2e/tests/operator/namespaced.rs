//! An installation for one namespace has no rights in any other, and needs none.

use anyhow::{Result, ensure};
use catamaran_e2e::{
    audit::Mark,
    installation::operator_user,
    workloads::{self, web, workloads},
};
use serde_json::json;

use crate::support::{Ground, SHOP};

pub(crate) async fn only_the_watched_namespace_is_served() -> Result<()> {
    let ground = Ground::start_with(json!({"watchNamespace": SHOP})).await?;
    ground.control_plane.create_namespace("elsewhere").await?;
    workloads::apply(&ground.client, "elsewhere", &web("registry.test/web:1", 2, "")).await?;
    let recorder = ground.record("web").await?;
    let class = "apiVersion: catamaran.dev/v1alpha1
kind: WorkloadClass
metadata: {name: small}
spec: {quota: {cpu: {request: 50m}, memory: {request: 32Mi}}}
";
    ground.apply(class).await?;
    let with_class = web("registry.test/web:1", 2, "").replace("spec:\n", "spec:\n  className: small\n");
    ground.apply(&with_class).await?;
    ground.wait_ready("web").await?;
    recorder.finish(ground.quiet()).await?;
    let other = workloads(&ground.client, "elsewhere").get("web").await?;
    ensure!(other.status.is_none(), "{:?}", other.status);
    let refused: Vec<_> = ground
        .control_plane
        .audit()
        .writes_since(Mark::START)?
        .into_iter()
        .filter(|write| write.user == operator_user() && write.code == 403)
        .collect();
    ensure!(refused.is_empty(), "it asked for what it may not: {refused:?}");
    Ok(())
}
