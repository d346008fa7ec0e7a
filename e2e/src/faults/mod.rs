//! Faults between a client and its API server: a reverse proxy whose rules a test sets and clears while it runs.
//!
//! It ends the client's TLS and speaks TLS to the real server; whoever comes through keeps the identity of its own
//! token. A [`Rule`] says which calls ([`Match`]) meet which [`Fault`], and which of them by number. What passed is
//! [recorded](Proxy::passed). An operator that has to be told apart from another has a proxy of its own.
//!
//! Faults of the network are made above TCP: a connection that is [silent](Fault::Silence) is still acknowledged by the
//! kernel, so that neither `TCP_USER_TIMEOUT` nor keepalive probes help the client, as with a server or load balancer
//! that hangs.
//!
//! ```no_run
//! # async fn example(control_plane: &catamaran_e2e::control_plane::ControlPlane) -> anyhow::Result<()> {
//! use catamaran_e2e::faults::{Answer, Fault, Match, Proxy, Rule};
//!
//! let proxy = Proxy::start(control_plane).await?;
//! // The next three writes in one namespace are answered with 503.
//! let rule = proxy.set(Rule::new(Match::writes().namespace("shop"), Answer::unavailable().retry_after(1)).times(3));
//! rule.hit().await;
//! proxy.clear(&rule);
//! // The network drops all of it: nothing moves in either direction.
//! proxy.set(Rule::new(Match::all(), Fault::Silence));
//! # Ok(())
//! # }
//! ```

mod answer;
mod call;
mod connection;
mod forward;
mod record;
mod rules;
#[cfg(test)]
mod tests;
mod watches;

use std::{net::Ipv4Addr, net::SocketAddr, sync::Arc};

use anyhow::Result;
use kube::{Client, Config, config::AuthInfo};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

pub use self::{
    answer::Answer,
    call::{Call, Match, Verb},
    record::{Outcome, Passed},
    rules::{Active, Fault, Rule},
};
use self::{connection::Connections, record::Record, rules::Rules};
use crate::{control_plane::ControlPlane, tls::server_config};

/// The running proxy; it ends, with all of its connections, when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

/// What all connections look at.
struct Shared {
    /// The server behind.
    server: Client,
    rules: Rules,
    connections: Connections,
    record: Record,
}

impl Proxy {
    /// A proxy of the API server, with a certificate of the same authority.
    ///
    /// # Errors
    /// When there is no port, or no client for the control plane.
    pub async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let keys = control_plane.serving_certificate("faults")?;
        let config = control_plane.config_for_user("faults", None).await?;
        Self::between(server_config(&keys.certificate, &keys.key, None)?, config).await
    }

    /// A proxy that shows `tls` to its clients and forwards to the server of `config`.
    ///
    /// # Errors
    /// When there is no port, or no client for the server.
    pub async fn between(tls: ServerConfig, mut config: Config) -> Result<Self> {
        // The proxy itself is nobody, and neither repeats nor shortens what passes.
        config.auth_info = AuthInfo::default();
        config.default_retry = false;
        (config.read_timeout, config.write_timeout) = (None, None);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server: Client::try_from(config)?,
            rules: Rules::default(),
            connections: Connections::default(),
            record: Record::default(),
        });
        let accepting = tokio::spawn(connection::accept(listener, TlsAcceptor::from(Arc::new(tls)), shared.clone()));
        Ok(Self { address, shared, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on the rule holds, before those that were set earlier; also for watches that run and connections that
    /// are open.
    pub fn set(&self, rule: Rule) -> Arc<Active> {
        let active = self.shared.rules.set(rule, self.shared.connections.next());
        self.shared.connections.follow(&self.shared.rules);
        active
    }

    /// The rule holds no more: what is silent or frozen goes on, what was held is reset.
    pub fn clear(&self, rule: &Arc<Active>) {
        self.shared.rules.clear(rule);
        self.shared.connections.follow(&self.shared.rules);
    }

    /// No rule holds any more.
    pub fn clear_all(&self) {
        self.shared.rules.clear_all();
        self.shared.connections.follow(&self.shared.rules);
    }

    /// Lets so many more writes through, at least one, and then none: a process can be killed between any two of them.
    /// The server carries the last of them out, but its answer is kept. Leases, Events and reviews do not count, and
    /// pass until then. The rule is hit when the last write is carried out.
    pub fn shut_after(&self, writes: usize) -> Arc<Active> {
        let counted = Match::writes().except("leases").except("events").except("tokenreviews");
        let counted = counted.except("subjectaccessreviews").except("selfsubjectaccessreviews");
        self.set(Rule::new(counted, Fault::LastWrite).nth(writes.max(1)))
    }

    /// What has passed or was stopped since the start, in the order in which it ended; a watch is here when it began.
    #[must_use]
    pub fn passed(&self) -> Vec<Passed> {
        self.shared.record.all()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.connections.count()
    }
}
