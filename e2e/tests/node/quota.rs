//! What the kubelet makes of limits.

use std::time::Duration;

use anyhow::{Result, ensure};
use catamaran_e2e::{node::LOAD, wait::eventually};
use serde_json::json;

use crate::ground::{Ground, restarts};

pub(crate) async fn limits_are_in_the_cgroup(ground: &Ground) -> Result<()> {
    let resources = json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let container = json!({"image": LOAD, "args": ["cpu", "--stay"], "resources": resources});
    let pod = ground.run("limited", container).await?;
    for cgroup in [ground.node.cgroup_of_pod(&pod).await?, ground.node.cgroup_of(&pod, "main").await?] {
        ensure!(ground.read(&cgroup, "cpu.max").await? == "20000 100000", "{cgroup}");
        ensure!(ground.read(&cgroup, "memory.max").await? == (64 << 20).to_string(), "{cgroup}");
    }
    // The kernel holds it to that: periods go by in which it had to wait.
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    eventually("the container is throttled", Duration::from_secs(30), || async {
        let stat = ground.read(&cgroup, "cpu.stat").await?;
        let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        Ok(throttled.filter(|count| *count != "0").map(|_| ()))
    })
    .await?;
    ground.delete("limited").await
}

pub(crate) async fn a_resize_changes_the_cgroup_in_place(ground: &Ground) -> Result<()> {
    let resources = json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
    let pod = ground.run("resized", json!({"image": LOAD, "resources": resources})).await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    let to =
        json!({"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "300m", "memory": "96Mi"}}}]}});
    ground.kubectl(&["patch", "pod", "resized", "--subresource", "resize", "--patch", &to.to_string()]).await?;
    eventually("the cgroup has the new limits", Duration::from_secs(60), || async {
        let found = (ground.read(&cgroup, "cpu.max").await?, ground.read(&cgroup, "memory.max").await?);
        Ok((found == ("30000 100000".to_owned(), (96 << 20).to_string())).then_some(()))
    })
    .await?;
    let pod = ground.pods().get("resized").await?;
    ensure!(restarts(&pod) == 0 && ground.node.cgroup_of(&pod, "main").await? == cgroup);
    ground.delete("resized").await
}
