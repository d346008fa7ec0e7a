//! The usage intake: node agents stream what containers use, and the store answers for every pod.
//!
//! Every replica of the operator takes the streams, so a standby is warm. The protocol is in `catamaran_protocol`, and
//! for people in docs/reference/usage-protocol.md.
//!
//! - [`store`]: usage by pod, as rates
//! - [`hooks`]: what the intake asks of the rest of the operator, and whom it tells
//! - [`authentication`], [`token_review`]: who may report for a node
//! - `connection`, `peer`, `service`, `nodes`, [`tls`]: from the socket to the store

pub mod authentication;
mod connection;
pub mod hooks;
pub mod metrics;
mod nodes;
mod peer;
mod service;
pub mod settings;
pub mod store;
pub mod tls;
pub mod token_review;

use std::sync::Arc;

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use authentication::{Authenticator, Gate};
use connection::Acceptor;
use hooks::{Observer, Placement};
use metrics::IntakeMetrics;
use nodes::Nodes;
use service::{Service, Shared};
use settings::{Account, Timing};
use store::UsageStore;
use tls::{CertificateFiles, Tls};

/// What an intake consists of.
pub struct Intake {
    /// The certificate that agents see.
    pub certificate: CertificateFiles,
    /// The account that agents have.
    pub account: Account,
    /// How many nodes may stream at once.
    pub max_streams: u32,
    /// The times that it keeps.
    pub timing: Timing,
    /// Says to whom a token belongs.
    pub authenticator: Arc<dyn Authenticator>,
    /// Tells where pods run.
    pub placement: Arc<dyn Placement>,
    /// Is told of new usage.
    pub observer: Arc<dyn Observer>,
    /// Where usage is kept.
    pub store: UsageStore,
    /// What is counted.
    pub metrics: IntakeMetrics,
}

/// Takes usage from node agents until `stop`; then open streams are ended.
///
/// It begins when the certificate can be used ([`IntakeMetrics::has_certificate`]), and tries that again and again.
/// Later the last good one stays in use.
pub async fn serve(listener: TcpListener, intake: Intake, stop: CancellationToken) {
    let Intake { certificate, account, max_streams, timing, authenticator, placement, observer, store, metrics } =
        intake;
    let max_streams = usize::try_from(max_streams).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS / 2);
    let tls = tokio::select! {
        tls = Tls::first(certificate, metrics.clone(), timing.certificate) => Arc::new(tls),
        () = stop.cancelled() => return,
    };
    let tasks = TaskTracker::new();
    let shared = Shared {
        gate: Gate::new(authenticator, account.username(), metrics.clone()),
        nodes: Nodes::default(),
        room: Arc::new(Semaphore::new(max_streams)),
        placement,
        observer,
        store: store.clone(),
        metrics: metrics.clone(),
        timing,
        stop: stop.clone(),
        tasks: tasks.clone(),
        clocks: std::hash::RandomState::new(),
    };
    let acceptor = Acceptor {
        service: Service(Arc::new(shared)),
        tls: tls.clone(),
        timing,
        metrics: metrics.clone(),
        stop,
        tasks,
    };
    let sweep = async {
        loop {
            tokio::time::sleep(timing.sweep).await;
            metrics.swept(&store.sweep(store.now()));
        }
    };
    tokio::select! {
        () = acceptor.run(listener, max_streams) => {}
        // Neither of them ends by itself.
        () = sweep => {}
        () = tls.keep_reading(timing.certificate) => {}
    }
}
