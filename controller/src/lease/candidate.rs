//! One process that takes part in the election, by the rules of client-go's leader election.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use tokio::{sync::Notify, time::sleep};

use super::{
    Election, Lost,
    contact::Contact,
    lifeline::{Lifeline, Pulse},
    tenure::Tenure,
    times::Times,
};
use crate::{client, uptime::uptime};

/// The lease, as one process sees it.
pub(super) struct Candidate {
    connection: Connection,
    name: String,
    identity: String,
    times: Times,
    seen: Option<Seen>,
    tenure: Tenure,
    contact: Contact,
    annotation: String,
    /// Where the others see whether this process lives.
    advertised: Option<SocketAddr>,
    /// Somebody does not see this process any more.
    lost_sight: Arc<Notify>,
    /// The process that holds the lease, if it says where it lives.
    holder: Option<Lifeline>,
}

/// The lease as it was last seen to change.
struct Seen {
    lease: Lease,
    changed: Instant,
}

/// A way to the API server that is made anew after every attempt that failed: a connection that hangs is never used
/// twice.
struct Connection {
    config: kube::Config,
    namespace: String,
    api: Option<Api<Lease>>,
}

impl Connection {
    fn api(&mut self) -> Result<Api<Lease>, kube::Error> {
        if let Some(api) = &self.api {
            return Ok(api.clone());
        }
        let api = Api::namespaced(client::connect(self.config.clone())?, &self.namespace);
        self.api = Some(api.clone());
        Ok(api)
    }
}

enum Attempt {
    Held,
    HeldBy(String),
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("no answer from the API server within {0:?}")]
    Silence(Duration),
    #[error(transparent)]
    Request(#[from] kube::Error),
}

impl Candidate {
    pub(super) fn new(election: Election, tenure: Tenure, contact: Contact) -> Self {
        let Election { mut config, namespace, name, identity, duration, annotation, lifeline } = election;
        // Attempts have a limit of their own, and what is tried again is decided here.
        config.default_retry = false;
        Self {
            connection: Connection { config, namespace, api: None },
            name,
            identity,
            times: Times::from_duration(duration),
            seen: None,
            tenure,
            contact,
            annotation,
            advertised: lifeline.map(|endpoint| endpoint.advertised),
            lost_sight: Arc::default(),
            holder: None,
        }
    }

    /// To be notified when somebody does not see this process any more.
    pub(super) fn lost_sight(&self) -> Arc<Notify> {
        self.lost_sight.clone()
    }

    /// Waits until this process holds the lease.
    pub(super) async fn acquire(&mut self) {
        loop {
            let begun = uptime();
            match self.attempt_within(Times::attempt(self.times.duration)).await {
                Ok(Attempt::Held) => {
                    self.holder = None;
                    return self.tenure.prolong(begun + self.times.renew_deadline);
                }
                Ok(Attempt::HeldBy(holder)) => {
                    tracing::debug!(%holder, "another process leads");
                    self.follow(&holder);
                }
                Err(problem) => {
                    let silent = self.contact.silent_for();
                    tracing::warn!(%problem, ?silent, "the lease could not be read or taken");
                }
            }
            self.until_next_look().await;
        }
    }

    /// Waits for the time of the next look at the lease, or for news of its holder.
    async fn until_next_look(&mut self) {
        match &mut self.holder {
            None => sleep(self.times.retry).await,
            Some(holder) => {
                let doubtful = matches!(holder.pulse(), Pulse::Suspect(_) | Pulse::Dead);
                let pause = if doubtful { self.times.retry / 4 } else { self.times.retry };
                let _ = tokio::time::timeout(pause, holder.changed()).await;
            }
        }
    }

    /// Looks whether the holder's process lives, where the lease says.
    fn follow(&mut self, holder: &str) {
        match (self.address(), &self.holder) {
            (None, _) => self.holder = None,
            (Some(address), Some(followed)) if followed.is_to(holder, address) => {}
            (Some(address), _) => self.holder = Some(Lifeline::to(holder, address, self.times.retry)),
        }
    }

    /// Where the holder's process says that it lives. A process that does not look there says nothing either.
    fn address(&self) -> Option<SocketAddr> {
        let lease = &self.seen.as_ref()?.lease;
        self.advertised?;
        lease.metadata.annotations.as_ref()?.get(&self.annotation)?.parse().ok()
    }

    /// Keeps the lease; returns only when it is lost.
    pub(super) async fn keep(&mut self) -> Lost {
        let mut renewed = uptime();
        let mut pause = self.times.retry;
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.lost_sight.notified() => {
                    // Whoever it was may take this process for dead if it sees no renewal.
                    self.tenure.shorten(self.times.retry);
                    sleep(self.times.retry / 8).await;
                }
            }
            let left = |renewed| (self.times.renew_deadline + renewed).saturating_sub(uptime());
            let begun = uptime();
            let problem = match self.attempt_within(Times::attempt(left(renewed))).await {
                Ok(Attempt::Held) => {
                    renewed = begun;
                    pause = self.times.retry;
                    self.tenure.prolong(begun + self.times.renew_deadline);
                    continue;
                }
                Ok(Attempt::HeldBy(holder)) => {
                    self.tenure.end();
                    return Lost::Taken(holder);
                }
                Err(problem) => problem,
            };
            let left = (self.times.renew_deadline + renewed).saturating_sub(uptime());
            tracing::warn!(%problem, ?left, "the lease could not be renewed");
            if left < self.times.duration / 100 {
                self.tenure.end();
                return Lost::NotRenewed(problem.to_string());
            }
            pause = self.times.pause(left);
        }
    }

    /// Gives the lease up, so that a standby takes over at once. Nothing is written after it.
    pub(super) async fn release(&mut self) {
        self.tenure.end();
        let within = Times::attempt(self.times.duration);
        let problem = match tokio::time::timeout(within, self.released()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => Problem::Silence(within).to_string(),
        };
        tracing::warn!(problem, "the lease could not be released; it expires in {} s", self.times.duration.as_secs());
    }

    async fn released(&mut self) -> Result<(), kube::Error> {
        let api = self.connection.api()?;
        // What was last written may not be what was last seen, if a renewal was under way.
        let Some(mut lease) = api.get_opt(&self.name).await? else { return Ok(()) };
        if holder(&lease) != Some(self.identity.as_str()) {
            return Ok(());
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        lease.metadata.annotations.get_or_insert_default().remove(&self.annotation);
        api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
    }

    /// An attempt with a limit. After one that failed the next has a connection of its own.
    async fn attempt_within(&mut self, limit: Duration) -> Result<Attempt, Problem> {
        let outcome = match tokio::time::timeout(limit, self.attempt()).await {
            Ok(outcome) => outcome.map_err(Problem::from),
            Err(_) => Err(Problem::Silence(limit)),
        };
        match &outcome {
            // An answer is a sign of life, whatever it says.
            Ok(_) | Err(Problem::Request(kube::Error::Api(_))) => self.contact.note(),
            Err(Problem::Silence(_) | Problem::Request(_)) => self.connection.api = None,
        }
        outcome
    }

    /// Takes or renews the lease if it is ours, free or expired.
    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let api = self.connection.api()?;
        // The holder renews what it saw last, in one request. A conflict tells that there is something newer.
        if let Some(lease) = self.seen.as_ref().map(|seen| seen.lease.clone())
            && holder(&lease) == Some(self.identity.as_str())
        {
            match self.put(&api, lease).await {
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {}
                outcome => return outcome,
            }
        }
        let Some(lease) = api.get_opt(&self.name).await? else {
            let mut lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            self.advertise(&mut lease);
            let created = api.create(&PostParams::default(), &lease).await?;
            self.see(created);
            return Ok(Attempt::Held);
        };
        self.see(lease.clone());
        if let Some(holder) = holder(&lease)
            && holder != self.identity
            && !self.expired()
        {
            if !self.is_dead(holder) {
                return Ok(Attempt::HeldBy(holder.to_owned()));
            }
            tracing::info!(%holder, "the process that held the lease is dead");
        }
        self.put(&api, lease).await
    }

    /// Writes the lease as ours. Carries the resourceVersion of what was read: a conflict if anybody else was quicker.
    async fn put(&mut self, api: &Api<Lease>, mut lease: Lease) -> Result<Attempt, kube::Error> {
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        self.advertise(&mut lease);
        let taken = api.replace(&self.name, &PostParams::default(), &lease).await?;
        self.see(taken);
        Ok(Attempt::Held)
    }

    /// Says where this process lives, and not where the holder before it did.
    fn advertise(&self, lease: &mut Lease) {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match self.advertised {
            Some(address) => annotations.insert(self.annotation.clone(), address.to_string()),
            None => annotations.remove(&self.annotation),
        };
    }

    /// Whether the holder's process is known to be dead, and has not renewed the lease for longer than one that lives
    /// takes.
    fn is_dead(&self, holder: &str) -> bool {
        let (Some(seen), Some(address), Some(followed)) = (&self.seen, self.address(), &self.holder) else {
            return false;
        };
        followed.is_to(holder, address)
            && followed.pulse() == Pulse::Dead
            && seen.changed.elapsed() > Times::from_duration(duration(&seen.lease)).surely_renewed()
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
        self.seen.as_ref().is_none_or(|seen| seen.changed.elapsed() > duration(&seen.lease))
    }
}

/// For how long a lease holds after a renewal.
fn duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}
