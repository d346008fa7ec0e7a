//! The other end of a connection, and whether it has been admitted.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::OwnedSemaphorePermit;

/// What is known of the other end of a connection, for the calls on it.
#[derive(Debug)]
pub(super) struct Peer {
    streams: AtomicUsize,
    /// Held until somebody is admitted.
    stranger: Mutex<Option<OwnedSemaphorePermit>>,
}

/// One admitted stream on a connection.
#[derive(Debug)]
pub(super) struct Admitted(Arc<Peer>);

impl Peer {
    /// One that nobody knows yet; it gives its place among strangers back once somebody is admitted.
    pub(super) fn new(stranger: OwnedSemaphorePermit) -> Self {
        Self { streams: AtomicUsize::new(0), stranger: Mutex::new(Some(stranger)) }
    }

    /// Whether it has an admitted stream.
    pub(super) fn has_streams(&self) -> bool {
        self.streams.load(Ordering::Acquire) > 0
    }

    /// The caller is known: the connection stays for as long as the stream does.
    pub(super) fn admit(self: &Arc<Self>) -> Admitted {
        self.streams.fetch_add(1, Ordering::AcqRel);
        self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take();
        Admitted(self.clone())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}
