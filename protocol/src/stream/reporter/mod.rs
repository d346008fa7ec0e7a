//! The client: streams snapshots to every replica of the operator.
//!
//! Each replica has a stream of its own, which fails and comes back alone. Only the newest snapshot waits to be sent:
//! what a slow or lost replica misses is in the next one, as counters are cumulative.

mod connection;
mod replicas;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::stream::snapshot::Snapshot;

/// Who reports, to whom, and with which credentials.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the Node.
    pub node: String,
    /// The life of the clock behind [`Snapshot::taken`]; see `Hello.boot_id` in the protocol.
    pub boot_id: String,
    /// Where the replicas of the operator are.
    pub replicas: Replicas,
    /// The name that their certificate has to be for.
    pub server_name: String,
    /// The certificate authorities that may have signed it (PEM). Read again for each connection.
    pub ca_file: PathBuf,
    /// The token. Read again for each stream; when it changes, the stream is replaced.
    pub token_file: PathBuf,
}

/// Where the replicas of the operator are.
#[derive(Clone, Debug)]
pub enum Replicas {
    /// At these addresses.
    Addresses(Vec<SocketAddr>),
    /// At the addresses that a name has: a headless Service. It is resolved again and again.
    Service {
        /// The DNS name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Streams to every replica until it is dropped.
#[derive(Debug)]
pub struct Reporter {
    newest: watch::Sender<Option<Arc<Snapshot>>>,
    status: Shared,
    _task: AbortOnDropHandle<()>,
}

/// How it goes with one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// A stream is open and the replica has answered on it.
    pub connected: bool,
    /// Streams opened so far.
    pub streams: u64,
    /// Reports sent so far.
    pub sent: u64,
    /// Reports that the replica took, those included that newer ones superseded.
    pub acknowledged: u64,
    /// Pods that the last report had to leave out.
    pub left_out: usize,
    /// Streams that ended or could not be opened, but for those that a new token replaced.
    pub failures: u64,
    /// Why the last stream ended.
    pub last_error: Option<String>,
}

impl Reporter {
    /// Starts to stream. To be called within a tokio runtime.
    #[must_use]
    pub fn start(config: Config) -> Self {
        let (newest, receiver) = watch::channel(None);
        let status = Shared::default();
        let task = tokio::spawn(replicas::keep(Arc::new(config), receiver, status.clone()));
        Self { newest, status, _task: AbortOnDropHandle::new(task) }
    }

    /// Hands over the newest snapshot. Never blocks: one that waits to be sent is replaced.
    pub fn report(&self, snapshot: Snapshot) {
        self.newest.send_replace(Some(Arc::new(snapshot)));
    }

    /// How it goes with each replica.
    #[must_use]
    pub fn status(&self) -> BTreeMap<SocketAddr, Status> {
        self.status.lock().clone()
    }
}

/// The status of all replicas.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<BTreeMap<SocketAddr, Status>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Status>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, address: SocketAddr, change: impl FnOnce(&mut Status)) {
        change(self.lock().entry(address).or_default());
    }
}
