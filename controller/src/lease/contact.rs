//! When the API server last answered about the lease.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::uptime::uptime;

/// When the API server last answered about the lease: a standby that cannot reach it would not take over.
#[derive(Clone, Debug)]
pub struct Contact {
    /// In milliseconds of [`uptime`].
    last: Arc<AtomicU64>,
}

impl Contact {
    pub(super) fn new() -> Self {
        let contact = Self { last: Arc::default() };
        contact.note();
        contact
    }

    pub(super) fn note(&self) {
        self.last.store(u64::try_from(uptime().as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// For how long there has been no answer; before the first one, since the start.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        uptime().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}
