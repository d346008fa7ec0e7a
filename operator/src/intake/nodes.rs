//! One stream for each node.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

/// Which stream reports for which node.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    streams: Arc<DashMap<Arc<str>, Current>>,
    next: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    replaced: CancellationToken,
}

/// The right to report for a node, until a newer stream takes it, or this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    nodes: Nodes,
    node: Arc<str>,
    number: u64,
    replaced: CancellationToken,
}

impl Nodes {
    /// Ends the stream of a node, if there is one, in favour of a new one.
    pub(super) fn take_over(&self, node: &Arc<str>) -> Turn {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let replaced = CancellationToken::new();
        let before = self.streams.insert(node.clone(), Current { number, replaced: replaced.clone() });
        if let Some(before) = before {
            before.replaced.cancel();
        }
        Turn { nodes: self.clone(), node: node.clone(), number, replaced }
    }
}

impl Turn {
    /// Waits until another stream takes over.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.nodes.streams.remove_if(&self.node, |_, current| current.number == self.number);
    }
}
