//! How pods reach each other, Services and the API server.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use catamaran_e2e::{
    node::{BUSYBOX, LOAD},
    wait::eventually,
};
use serde_json::json;

use crate::ground::Ground;

pub(crate) async fn pods_reach_services(ground: &Ground) -> Result<()> {
    let server = ground.run("server", json!({"image": LOAD, "ports": [{"containerPort": 8080}]})).await?;
    ground.kubectl(&["label", "pod", "server", "app=server"]).await?;
    ground.kubectl(&["create", "service", "clusterip", "server", "--tcp=80:8080"]).await?;
    let service = ground.kubectl(&["get", "service", "server", "--output", "jsonpath={.spec.clusterIP}"]).await?;
    let address = server.status.and_then(|status| status.pod_ip).context("a running pod has an address")?;
    let hold = json!({"image": BUSYBOX, "command": ["sh", "-c", "trap exit TERM; sleep 100000 & wait"]});
    ground.run("client", hold).await?;
    for (host, port) in [(address.as_str(), "8080"), (service.as_str(), "80")] {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {host} {port}");
        // A Service leads to a pod a moment after both are there.
        let what = format!("{host}:{port} answers");
        let answers = eventually(&what, Duration::from_secs(30), || async {
            let answer = ground.kubectl(&["exec", "client", "--", "sh", "-c", &ask]).await?;
            Ok(answer.ends_with("\r\n\r\nok\n").then_some(()))
        });
        if let Err(error) = answers.await {
            bail!("{error:#}\n{}", ground.node.shell("tail -n 20 /var/log/kube-proxy.log; nft list ruleset").await?);
        }
    }
    // The API server, by the address that every pod is told.
    let api = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo open";
    eventually("the API server answers a pod", Duration::from_secs(30), || async {
        Ok((ground.kubectl(&["exec", "client", "--", "sh", "-c", api]).await? == "open\n").then_some(()))
    })
    .await?;
    // Nothing else: no name server of the host's network, nor anything that it would lead to.
    let outside = "nc -w 5 198.51.100.1 80 </dev/null";
    let error = ground.kubectl(&["exec", "client", "--", "sh", "-c", outside]).await.err().context("a way out")?;
    ensure!(error.to_string().contains("unreachable") || error.to_string().contains("No route"), "{error}");
    ground.kubectl(&["delete", "service", "server"]).await?;
    ground.delete("client").await?;
    ground.delete("server").await
}
