//! Requests to what runs in a guest, made within it: its network is its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;

use super::Node;

/// How long metrics may take on a busy machine.
const METRICS_WITHIN: Duration = Duration::from_secs(30);

impl Node {
    /// Asks by HTTP from within the guest, and gives the body of the answer. The guest's wget is no way: without KVM it
    /// crashes at times.
    ///
    /// # Errors
    /// When the answer is another than 200 OK, or none comes in time.
    pub async fn get(&self, address: &str, port: u16, path: &str, within: Duration) -> Result<String> {
        let seconds = within.as_secs();
        let command = format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w {seconds} {address} {port}");
        let output = self.run(&command, &[], within).await?;
        let answer = output.stdout.split_once("\r\n\r\n");
        let (head, body) = answer.with_context(|| format!("{address}:{port}{path}: {output:?}"))?;
        ensure!(head.split(' ').nth(1) == Some("200"), "{address}:{port}{path}: {head}");
        Ok(body.to_owned())
    }

    /// What a pod tells at /metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, pod: &Pod, port: u16) -> Result<String> {
        self.get(address(pod)?, port, "/metrics", METRICS_WITHIN).await
    }
}

/// The address of a pod that runs.
pub(super) fn address(pod: &Pod) -> Result<&str> {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("a pod that runs has an address")
}
