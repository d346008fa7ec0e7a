//! Load in a container that runs, by its own program: a process more, as by `kubectl exec`, would take seconds to start
//! without KVM, and the runtime's work for it would count in the pod's cgroup.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::{Node, requests::address};
use crate::wait::eventually;

/// Where `load serve` listens.
const PORT: u16 = 8080;
/// How long an answer without load may take on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How long CPU-seconds may take, as a multiple: others want the processors, too.
const SLOWER: u32 = 20;

/// CPU time of a container, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// What its cgroup had used when its program began, by the kernel's count, but for that program's process: the
    /// runtime starts containers within their cgroup.
    pub before_seconds: f64,
    /// What the program's process has used, by its own clock.
    pub program_seconds: f64,
}

/// The image of the only container has to be [`LOAD`](super::LOAD), with the argument `serve`.
impl Node {
    /// Makes the program compute on one thread, once it listens. It does when this returns.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn burn(&self, pod: &Pod) -> Result<()> {
        self.listens(pod).await?;
        self.get(address(pod)?, PORT, "/start", ANSWERS_WITHIN).await.map(|_| ())
    }

    /// Ends that.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn end_burning(&self, pod: &Pod) -> Result<()> {
        self.get(address(pod)?, PORT, "/stop", ANSWERS_WITHIN).await.map(|_| ())
    }

    /// Makes the program use CPU-seconds, once it listens; returns when it has.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn burn_seconds(&self, pod: &Pod, seconds: f64) -> Result<()> {
        self.listens(pod).await?;
        let within = ANSWERS_WITHIN + Duration::from_secs_f64(seconds) * SLOWER;
        self.get(address(pod)?, PORT, &format!("/cpu?cpu-seconds={seconds}"), within).await.map(|_| ())
    }

    /// A container without a probe is ready as soon as it runs, which is before its program listens.
    async fn listens(&self, pod: &Pod) -> Result<()> {
        let address = address(pod)?;
        eventually("the load listens", ANSWERS_WITHIN, || async {
            self.get(address, PORT, "/", ANSWERS_WITHIN).await.map(Some)
        })
        .await
        .map(|_| ())
    }

    /// What the container has used since it was started last.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn used(&self, pod: &Pod) -> Result<Used> {
        Ok(serde_json::from_str(&self.get(address(pod)?, PORT, "/used", ANSWERS_WITHIN).await?)?)
    }
}
