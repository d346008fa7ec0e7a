//! An election: what it is about, who takes part, and how that ends.

use std::{io, net::SocketAddr, time::Duration};

/// What is elected, and who takes part.
pub struct Election {
    /// How the API server is reached.
    pub config: kube::Config,
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// This process; no other has or had the same.
    pub identity: String,
    /// For how long a lease holds after each renewal; whole seconds.
    pub duration: Duration,
    /// The annotation of the Lease that holds the address of the holder's lifeline.
    pub annotation: String,
    /// Where the others see whether this process lives; without it nobody takes over before the lease is over.
    pub lifeline: Option<Endpoint>,
}

/// Where a process is known to live.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// What it listens on.
    pub listen: SocketAddr,
    /// What the others connect to. With port 0 it is the port that it listens on.
    pub advertised: SocketAddr,
}

/// Why a process cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The thread or its runtime cannot be started.
    #[error("the thread of the lease cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// The address of the lifeline cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// The lease was lost, or could not be renewed in time.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else holds it.
    #[error("the lease is held by {0}")]
    Taken(String),
    /// The API server did not take the renewal in time.
    #[error("the lease could not be renewed in time: {0}")]
    NotRenewed(String),
    /// What kept it ended.
    #[error("the thread of the lease ended")]
    ThreadEnded,
}
