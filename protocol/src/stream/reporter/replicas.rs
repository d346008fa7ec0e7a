//! One connection for each replica that there is now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Config, Replicas, Shared, connection::Connection};
use crate::stream::snapshot::Snapshot;

/// How often the name of a Service is resolved again: a new replica is warm soon after it is in the DNS.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// Connects to every replica, as they come and go. Ends when it is aborted, and with it all connections.
pub(super) async fn keep(config: Arc<Config>, newest: watch::Receiver<Option<Arc<Snapshot>>>, status: Shared) {
    let mut connections = BTreeMap::new();
    let mut ticks = tokio::time::interval(RESOLVE_EVERY);
    loop {
        ticks.tick().await;
        let addresses = match &config.replicas {
            Replicas::Addresses(addresses) => addresses.iter().copied().collect(),
            Replicas::Service { host, port } => match tokio::net::lookup_host((host.as_str(), *port)).await {
                Ok(addresses) => addresses.collect::<BTreeSet<SocketAddr>>(),
                Err(error) => {
                    // A DNS that fails for a while costs nothing but new replicas.
                    tracing::warn!(%error, host, "cannot resolve the operator's Service");
                    continue;
                }
            },
        };
        connections.retain(|address, _| addresses.contains(address));
        status.lock().retain(|address, _| addresses.contains(address));
        for address in addresses {
            connections.entry(address).or_insert_with(|| {
                let connection =
                    Connection { config: config.clone(), address, newest: newest.clone(), status: status.clone() };
                AbortOnDropHandle::new(tokio::spawn(connection.keep()))
            });
        }
    }
}
