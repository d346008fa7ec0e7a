//! Who may write: a coordination.k8s.io Lease, by the rules of client-go's leader election.
//!
//! Every change of the lease carries the resourceVersion that it was decided on, so of two that reach for it one gets a
//! conflict. Expiry is judged by this process's own monotonic clock since the lease was last seen to change, so clocks of nodes
//! need not agree. A leader that cannot renew stops well before another may take over (docs/adr/0003 tells why no crate is used).

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};

/// The times of the lease, in client-go's proportions (15 s, 10 s, 2 s).
#[derive(Clone, Copy, Debug)]
struct Times {
    /// For how long a lease that is not renewed still holds.
    duration: Duration,
    /// A leader that could not renew for so long gives up, well before anybody else may take over.
    renew_deadline: Duration,
    /// How often the lease is renewed, or looked at.
    retry: Duration,
}

impl Times {
    fn of(duration: Duration) -> Self {
        Self { duration, renew_deadline: duration * 2 / 3, retry: duration * 2 / 15 }
    }
}

/// The lease, as one process sees it.
pub struct LeaderLease {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: Times,
    seen: Option<Seen>,
}

struct Seen {
    lease: Lease,
    changed: Instant,
}

/// The lease was lost, or could not be renewed in time.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else holds it.
    #[error("the lease is held by {0}")]
    Taken(String),
    /// The API server did not take the renewal in time.
    #[error("the lease could not be renewed in time: {0}")]
    NotRenewed(String),
}

enum Attempt {
    Held,
    HeldBy(String),
}

impl LeaderLease {
    /// A lease that this process takes part in as `identity`; it holds for `duration` after each renewal.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, duration: Duration) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            times: Times::of(duration),
            seen: None,
        }
    }

    /// Waits until this process holds the lease.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(Attempt::Held) => return,
                Ok(Attempt::HeldBy(holder)) => tracing::debug!(%holder, "another process leads"),
                Err(error) => tracing::warn!(%error, "the lease could not be taken"),
            }
            tokio::time::sleep(self.times.retry).await;
        }
    }

    /// Keeps the lease; returns only when it is lost.
    pub async fn keep(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.times.retry).await;
            let left = self.times.renew_deadline.saturating_sub(renewed.elapsed());
            let begun = Instant::now();
            let problem = match tokio::time::timeout(left.min(self.times.duration / 3), self.attempt()).await {
                Ok(Ok(Attempt::Held)) => {
                    renewed = begun;
                    continue;
                }
                Ok(Ok(Attempt::HeldBy(holder))) => return Lost::Taken(holder),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::warn!(%problem, "the lease could not be renewed");
            if renewed.elapsed() >= self.times.renew_deadline {
                return Lost::NotRenewed(problem);
            }
        }
    }

    /// Gives the lease up, so that a standby takes over at once.
    pub async fn release(&mut self) {
        let Some(Seen { lease, .. }) = &self.seen else { return };
        if holder(lease) != Some(self.identity.as_str()) {
            return;
        }
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
            tracing::warn!(%error, "the lease could not be released; it expires in {} s", self.times.duration.as_secs());
        }
    }

    /// Takes or renews the lease if it is ours, free or expired.
    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            let created = self.api.create(&PostParams::default(), &lease).await?;
            self.see(created);
            return Ok(Attempt::Held);
        };
        self.see(lease.clone());
        if let Some(holder) = holder(&lease)
            && holder != self.identity
            && !self.expired()
        {
            return Ok(Attempt::HeldBy(holder.to_owned()));
        }
        let mut taken = lease.clone();
        taken.spec = Some(self.spec(lease.spec.as_ref()));
        // Carries the resourceVersion of what was read: a conflict if anybody else was quicker.
        let taken = self.api.replace(&self.name, &PostParams::default(), &taken).await?;
        self.see(taken);
        Ok(Attempt::Held)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.identity);
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.duration.as_secs()).ok(),
            acquire_time: before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    fn see(&mut self, lease: Lease) {
        let unchanged = self
            .seen
            .as_ref()
            .is_some_and(|seen| seen.lease.metadata.resource_version == lease.metadata.resource_version);
        if !unchanged {
            self.seen = Some(Seen { lease, changed: Instant::now() });
        }
    }

    fn expired(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| {
            let seconds = seen.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
            seen.changed.elapsed() > Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        })
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}
