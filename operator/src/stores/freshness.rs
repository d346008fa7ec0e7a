//! How old what is known may be. What is older than [`MAX_AGE`], or of before a takeover, is not acted on.
//!
//! A watch that is silent is given up after 70 s and everything of its kind listed anew, so the limit is reached only
//! where that fails too. KubeVirt's kinds hold up what runs on KubeVirt, and nothing else.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use catamaran_controller::watch::Life;
use catamaran_plan::facts::KubeVirt;
use futures::future::join_all;
use tokio::time::timeout;

use super::Stores;

/// The greatest age of what is acted on.
pub const MAX_AGE: Duration = Duration::from_secs(90);
/// How long a takeover waits for KubeVirt's kinds. Virtual machines wait for longer.
const KUBEVIRT_WITHIN: Duration = Duration::from_secs(5);

/// The signs of life of each watch.
pub struct Lives {
    pub(super) workloads: Life,
    pub(super) classes: Life,
    pub(super) replica_sets: Life,
    pub(super) services: Life,
    pub(super) slices: Life,
    pub(super) pods: Life,
    pub(super) machine_sets: Life,
    pub(super) instances: Life,
    /// Whether the log says that nothing is done at present.
    stopped: AtomicBool,
}

/// When a watch last heard of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignOfLife {
    /// The kind.
    pub kind: String,
    /// How long ago.
    pub age: Duration,
    /// Whether what is known of the kind is acted on.
    pub fresh: bool,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            workloads: Life::new("ElasticWorkload"),
            classes: Life::new("WorkloadClass"),
            replica_sets: Life::new("ReplicaSet"),
            services: Life::new("Service"),
            slices: Life::new("EndpointSlice"),
            pods: Life::new("Pod"),
            machine_sets: Life::new("VirtualMachineInstanceReplicaSet"),
            instances: Life::new("VirtualMachineInstance"),
            stopped: AtomicBool::new(false),
        }
    }
}

impl Lives {
    /// What every workload needs.
    fn needed(&self) -> [&Life; 6] {
        [&self.workloads, &self.classes, &self.replica_sets, &self.services, &self.slices, &self.pods]
    }

    /// KubeVirt's.
    pub(super) fn kubevirt(&self) -> [&Life; 2] {
        [&self.machine_sets, &self.instances]
    }

    /// The kind that keeps everything from being acted on, if one does.
    fn stale(&self) -> Option<SignOfLife> {
        self.needed().into_iter().map(sign).find(|sign| !sign.fresh)
    }

    /// Whether KubeVirt is there as far as is known, where that is fresh.
    pub(super) fn judged(&self, known: KubeVirt) -> KubeVirt {
        if self.kubevirt().into_iter().all(|life| life.is_fresh(MAX_AGE)) { known } else { KubeVirt::Unknown }
    }
}

fn sign(life: &Life) -> SignOfLife {
    SignOfLife { kind: life.kind().to_owned(), age: life.age(), fresh: life.is_fresh(MAX_AGE) }
}

impl Stores {
    /// When each watch last heard of the API server, for /readyz and metrics.
    #[must_use]
    pub fn signs_of_life(&self) -> Vec<SignOfLife> {
        self.lives.needed().into_iter().chain(self.lives.kubevirt()).map(sign).collect()
    }

    /// The kind of which too little is known to act on anything, if there is one.
    #[must_use]
    pub fn stale(&self) -> Option<SignOfLife> {
        let stale = self.lives.stale();
        if self.lives.stopped.swap(stale.is_some(), Ordering::Relaxed) != stale.is_some() {
            match &stale {
                Some(SignOfLife { kind, age, .. }) => {
                    tracing::error!(
                        kind,
                        ?age,
                        "what is known of a kind is too old; nothing is written until it is listed anew"
                    );
                }
                None => tracing::info!("all kinds are known again as they are"),
            }
        }
        stale
    }

    /// Makes everything as new as this call: what a standby knows may be older than what the leader before it wrote. To
    /// be awaited between taking the lease and the first pass.
    pub async fn catch_up(&self) {
        let kubevirt = self.lives.kubevirt().map(Life::ask);
        let needed = self.lives.needed().map(|life| (life, life.ask()));
        join_all(needed.map(|(life, number)| life.answered(number))).await;
        // Where nothing runs on KubeVirt, nothing is waited for.
        if *self.kubevirt.borrow() == Some(KubeVirt::Installed) {
            let listed =
                join_all(self.lives.kubevirt().into_iter().zip(kubevirt).map(|(life, number)| life.answered(number)));
            if timeout(KUBEVIRT_WITHIN, listed).await.is_err() {
                tracing::warn!("KubeVirt's kinds are not listed anew yet; virtual machines wait for them");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_not_acted_on() {
        let lives = Lives::default();
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(lives.stale(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lives.stale().map(|stale| stale.kind).as_deref(), Some("ElasticWorkload"));
        lives.needed().into_iter().for_each(Life::sign);
        assert_eq!(lives.stale(), None);
        // Nothing but virtual machines waits for KubeVirt's kinds.
        assert_eq!(lives.judged(KubeVirt::Installed), KubeVirt::Unknown);
        lives.kubevirt().into_iter().for_each(Life::sign);
        assert_eq!(lives.judged(KubeVirt::Installed), KubeVirt::Installed);
        assert_eq!(lives.judged(KubeVirt::Absent), KubeVirt::Absent);
    }
}
