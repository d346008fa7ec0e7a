//! How old what is known may be. What is older than [`MAX_AGE`], or of before a takeover, is not acted on.
//!
//! A watch that is silent is given up after 70 s and everything of its kind listed anew, so the limit is reached only
//! where that fails too. KubeVirt's kinds hold up what runs on KubeVirt, and nothing else.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use catamaran_controller::watch::Life;
use catamaran_plan::facts::KubeVirt;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

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
    /// Since when all that every workload needs is known without a break; `None` while it is not.
    known_since: Mutex<Option<Instant>>,
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
            known_since: Mutex::new(Some(Instant::now())),
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

    /// The same, noted and logged when it changes.
    fn judge(&self) -> Option<SignOfLife> {
        let stale = self.stale();
        let mut known_since = self.known_since.lock().unwrap_or_else(PoisonError::into_inner);
        match (&stale, *known_since) {
            (Some(SignOfLife { kind, age, .. }), Some(_)) => {
                *known_since = None;
                tracing::error!(
                    kind,
                    ?age,
                    "what is known of a kind is too old; nothing is written until it is listed anew"
                );
            }
            (None, None) => {
                *known_since = Some(Instant::now());
                tracing::info!("all kinds are known again as they are");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        stale
    }

    fn watched_since(&self, now: Timestamp) -> Timestamp {
        let known_since = *self.known_since.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = known_since.map_or(Duration::ZERO, |since| since.elapsed());
        now.checked_sub(watched).unwrap_or(now)
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
        self.lives.judge()
    }

    /// Since when everything has been watched without a break, on the clock that shows `now`: time in which this
    /// process was down or asleep, or in which the API server was away, does not count, nor does a clock that was set.
    #[must_use]
    pub fn watched_since(&self, now: Timestamp) -> Timestamp {
        self.lives.watched_since(now)
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

    #[tokio::test(start_paused = true)]
    async fn what_was_not_seen_does_not_count_as_watched() {
        let (lives, now) = (Lives::default(), Timestamp::now());
        let watched = |lives: &Lives| now.duration_since(lives.watched_since(now)).as_secs();
        tokio::time::advance(MAX_AGE).await;
        assert_eq!((lives.judge(), watched(&lives)), (None, 90));
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(lives.judge().is_some());
        assert_eq!(watched(&lives), 0, "the API server is away");
        lives.needed().into_iter().for_each(Life::sign);
        assert_eq!(lives.judge(), None);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!((lives.judge(), watched(&lives)), (None, 7));
    }
}
