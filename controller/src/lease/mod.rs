//! Who may write: a coordination.k8s.io Lease, by the rules of client-go's leader election.
//!
//! Every change of the lease carries the resourceVersion that it was decided on, so of two that reach for it one gets a
//! conflict. Expiry is judged by this process's own monotonic clock since the lease was last seen to change, so clocks
//! of nodes need not agree. A leader that cannot renew stops well before another may take over (docs/adr/0003 says why
//! no crate is used).
//!
//! The lease is kept by a thread of its own, with its own runtime and connection: nothing that the rest of the process
//! computes or waits for can cost it.
//!
//! - [`Election`]: what is elected, and who takes part
//! - `candidate`: the rules
//! - `lifeline`: whether the process that holds it is dead, so that nobody has to wait
//! - `times`: how long each step may take
//! - [`Tenure`]: until when this process may write, asked before each write
//! - [`Contact`]: whether the API server answers at all

mod candidate;
mod contact;
mod election;
mod lifeline;
mod tenure;
mod times;

use std::thread;

use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use candidate::Candidate;
pub use contact::Contact;
pub use election::{Election, Endpoint, Lost, NotStarted};
pub use tenure::{NotLeading, Tenure};

use crate::supervise::panic_if_planted;

#[derive(Clone, Debug)]
enum Phase {
    Standby,
    Leading,
    Lost(Lost),
}

/// This process's part in an election.
pub struct LeaderLease {
    phase: watch::Receiver<Phase>,
    tenure: Tenure,
    contact: Contact,
    stop: CancellationToken,
}

impl Drop for LeaderLease {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl LeaderLease {
    /// Starts to take part, on a thread of its own.
    ///
    /// # Errors
    /// See [`NotStarted`].
    pub fn start(mut election: Election) -> Result<Self, NotStarted> {
        let (phase, seen) = watch::channel(Phase::Standby);
        let (tenure, contact, stop) = (Tenure::default(), Contact::new(), CancellationToken::new());
        let listener = election.lifeline.as_mut().map(bind).transpose()?;
        let identity = election.identity.clone();
        let candidate = Candidate::new(election, tenure.clone(), contact.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = stop.clone();
        thread::Builder::new().name("lease".to_owned()).spawn(move || {
            panic_if_planted("lease");
            runtime.block_on(async {
                if let Some(listener) = listener.and_then(|listener| TcpListener::from_std(listener).ok()) {
                    tokio::spawn(lifeline::serve(listener, identity.into(), candidate.lost_sight()));
                }
                take_part(candidate, phase, stopped).await;
            });
        })?;
        Ok(Self { phase: seen, tenure, contact, stop })
    }

    /// Until when this process may write.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Whether the API server answers.
    #[must_use]
    pub fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// Waits until this process holds the lease.
    ///
    /// # Errors
    /// When it cannot any more.
    pub async fn acquired(&mut self) -> Result<(), Lost> {
        let phase = self.phase.wait_for(|phase| !matches!(phase, Phase::Standby)).await;
        match phase.as_deref() {
            Ok(Phase::Leading) => Ok(()),
            Ok(Phase::Lost(lost)) => Err(lost.clone()),
            Ok(Phase::Standby) | Err(_) => Err(Lost::ThreadEnded),
        }
    }

    /// Waits until the lease is lost.
    pub async fn lost(&mut self) -> Lost {
        match self.phase.wait_for(|phase| matches!(phase, Phase::Lost(_))).await.as_deref() {
            Ok(Phase::Lost(lost)) => lost.clone(),
            Ok(Phase::Standby | Phase::Leading) | Err(_) => Lost::ThreadEnded,
        }
    }

    /// Gives the lease up, so that a standby takes over at once. Nothing is written after it.
    pub async fn release(mut self) {
        self.stop.cancel();
        // The thread ends when it is done, and with it the sender.
        while self.phase.changed().await.is_ok() {}
    }
}

fn bind(endpoint: &mut Endpoint) -> Result<std::net::TcpListener, NotStarted> {
    let address = endpoint.listen;
    let bound = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, listener))
    };
    let (local, listener) = bound().map_err(|source| NotStarted::Listen { address, source })?;
    if endpoint.advertised.port() == 0 {
        endpoint.advertised.set_port(local.port());
    }
    Ok(listener)
}

async fn take_part(mut candidate: Candidate, phase: watch::Sender<Phase>, stop: CancellationToken) {
    let lost = async {
        candidate.acquire().await;
        phase.send_replace(Phase::Leading);
        candidate.keep().await
    };
    let lost = tokio::select! {
        lost = lost => lost,
        () = stop.cancelled() => return candidate.release().await,
    };
    phase.send_replace(Phase::Lost(lost));
    // Whoever waits for it reads it before the sender goes.
    stop.cancelled().await;
}
