//! hello-world: as a pod, and as a workload of the product.

use anyhow::{Result, ensure};
use catamaran_e2e::{node::HELLO, wait::eventually, workloads};
use serde_json::json;

use crate::ground::{Ground, NAMESPACE, POD_WITHIN};

pub(crate) async fn a_pod_runs_hello_world(ground: &Ground) -> Result<()> {
    ground.create("hello", json!({"image": HELLO})).await?;
    let phase = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded")
    };
    ground.wait_for("hello", "succeeds", phase).await?;
    let log = ground.kubectl(&["logs", "hello"]).await?;
    ensure!(log == "Hello, world!\n", "{log}");
    ground.delete("hello").await
}

pub(crate) async fn a_workload_runs_hello_world(ground: &Ground) -> Result<()> {
    let workload = format!(
        "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {{name: greeter}}
spec:
  container:
    image: {HELLO}
    args: [--stay]
  quota: {{cpu: {{request: 20m, limit: 500m}}, memory: {{request: 16Mi, limit: 32Mi}}}}
  replicas: 1
"
    );
    workloads::apply(&ground.client, NAMESPACE, &workload).await?;
    workloads::wait_for(&ground.client, NAMESPACE, "greeter", "is ready", POD_WITHIN, |workload| {
        workloads::condition(workload, "Ready").is_some_and(|ready| ready.status == "True")
    })
    .await?;
    let pod = ground.kubectl(&["get", "pods", "-l", "catamaran.dev/workload=greeter", "-o", "name"]).await?;
    // Without a probe a container is ready as soon as it runs, which is before it prints.
    let log = eventually("the container prints", POD_WITHIN, || async {
        Ok(Some(ground.kubectl(&["logs", pod.trim()]).await?).filter(|log| !log.is_empty()))
    })
    .await?;
    ensure!(log == "Hello, world!\n", "{log}");
    ground.kubectl(&["delete", "elasticworkload", "greeter"]).await?;
    Ok(())
}
