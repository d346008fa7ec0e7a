//! The node itself: a failure here says that the others cannot be trusted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    node::{HELLO, Node, NodeOptions, image::Image},
    wait::eventually,
};
use kube::api::PostParams;
use serde_json::json;

use crate::ground::{Ground, POD_WITHIN};

pub(crate) async fn is_ready_and_set_up(ground: &Ground) -> Result<()> {
    let node = &ground.node;
    ensure!(node.shell("hostname").await?.trim() == node.name());
    let info =
        node.object().await?.status.and_then(|status| status.node_info).context("a Ready node tells about itself")?;
    println!("{} on {}, {}", info.kubelet_version, info.kernel_version, info.container_runtime_version);
    let server = ground.client.apiserver_version().await?.git_version;
    ensure!(info.kubelet_version == server, "the API server is {server}, the kubelet {}", info.kubelet_version);

    // cgroup v2 with every controller that quotas use, and pressure figures.
    let controllers = node.shell("cat /sys/fs/cgroup/kubepods/cgroup.controllers").await?;
    for controller in ["cpu", "cpuset", "memory", "io", "pids"] {
        ensure!(
            controllers.split_whitespace().any(|found| found == controller),
            "{controller} is not in {controllers}"
        );
    }
    ensure!(ground.read("/sys/fs/cgroup/kubepods", "cpu.pressure").await?.starts_with("some avg10="));
    // A block device of its own for limits of I/O, and swap.
    ensure!(node.shell("grep ' /data ' /proc/mounts").await?.starts_with("/dev/vdb /data ext4 rw"));
    ensure!(node.shell("cat /proc/swaps").await?.contains("/dev/vdc"));
    // The kubelet's own figures.
    let summary: serde_json::Value = serde_json::from_str(&node.kubelet("/stats/summary").await?)?;
    ensure!(summary["node"]["nodeName"] == node.name(), "{summary}");
    Ok(())
}

pub(crate) async fn the_shell_keeps_commands_apart(ground: &Ground) -> Result<()> {
    let node = &ground.node;
    let within = Duration::from_secs(60);
    let failing = node.run("echo out; echo err >&2; exit 3", &[], within).await?;
    ensure!((failing.code, &*failing.stdout, &*failing.stderr) == (3, "out\n", "err\n"), "{failing:?}");
    ensure!(node.run("kill -9 $$", &[], within).await?.code == 137);
    ensure!(node.shell("exit 1").await.is_err());

    // The slow one is asked first and answers last.
    let slow = async { anyhow::Ok((node.run("cat; sleep 1", b"slow", within).await?.stdout, Instant::now())) };
    let quick = async { anyhow::Ok((node.run("cat", b"quick", within).await?.stdout, Instant::now())) };
    let (slow, quick) = tokio::try_join!(slow, quick)?;
    ensure!((&*slow.0, &*quick.0) == ("slow", "quick"));
    ensure!(quick.1 < slow.1);

    // One that hangs ends with all that it started, and nothing that goes on in the background holds one up.
    let hanging = node.run("sleep 1234 & sleep 4321", &[], Duration::from_secs(1)).await;
    ensure!(hanging.is_err(), "{hanging:?}");
    ensure!(node.run("pgrep -f 'sleep (1234|4321)'", &[], within).await?.stdout.is_empty());
    ensure!(node.shell("sleep 20 >/dev/null & echo started").await? == "started\n");

    let large = vec![b'x'; 8 << 20];
    ensure!(node.run("cat", &large, within).await?.stdout.len() == large.len());
    Ok(())
}

pub(crate) async fn a_second_guest_joins(ground: &Ground) -> Result<()> {
    // Reserved for this test: no other may have its pods on a node that goes away.
    let options =
        NodeOptions { taint: Some("catamaran.test/second".to_owned()), swap: false, ..NodeOptions::default() };
    let mut second = Node::boot(&ground.control_plane, options).await?;
    ensure!(second.name() != ground.node.name());
    ensure!(second.shell("cat /proc/swaps").await?.lines().count() == 1);
    let pod = json!({
        "metadata": {"name": "on-second"},
        "spec": {
            "nodeName": second.name(),
            "containers": [{"name": "main", "image": HELLO, "imagePullPolicy": "Never", "args": ["--stay"]}],
        },
    });
    ground.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let log = eventually("the pod on the second node prints", POD_WITHIN, || async {
        Ok(Some(ground.kubectl(&["logs", "on-second"]).await?).filter(|log| !log.is_empty()))
    })
    .await?;
    ensure!(log == "Hello, world!\n", "{log}");
    let pod = ground.pods().get("on-second").await?;
    ensure!(ground.node.cgroup_of_pod(&pod).await.is_err() && second.cgroup_of_pod(&pod).await.is_ok());
    // Both are gone at once: nobody is left to end the pod in order.
    second.power_cut()?;
    ground.kubectl(&["delete", "node", second.name()]).await?;
    ground.kubectl(&["delete", "pod", "on-second", "--grace-period=0", "--force"]).await?;
    ensure!(second.run("true", &[], Duration::from_secs(5)).await.is_err());
    Ok(())
}

pub(crate) async fn takes_images_without_a_registry(ground: &Ground) -> Result<()> {
    let image = Image::new("catamaran.test/greeting:7").file("greeting", 0o644, "good morning\n");
    ground.node.import(&image.archive()?).await?;
    let images = ground.node.shell("ctr -n k8s.io images list -q").await?;
    ensure!(images.lines().any(|name| name == "catamaran.test/greeting:7"), "{images}");
    let missing = json!({"image": "catamaran.test/greeting:8", "command": ["/greeting"]});
    ground.create("missing-image", missing).await?;
    ground
        .wait_for("missing-image", "says that its image is missing", |pod| {
            serde_json::to_string(&pod.status).is_ok_and(|status| status.contains("ErrImageNeverPull"))
        })
        .await?;
    ground.delete("missing-image").await
}
