//! Connections: accepted, encrypted, and bounded in number, time and memory.

use std::{convert::Infallible, sync::Arc, time::Duration};

use catamaran_protocol::stream::{limits::MESSAGE_BYTES, proto::usage_intake_server::UsageIntakeServer};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{io::InspectReader, sync::CancellationToken, task::TaskTracker};
use tonic::codegen::Service as _;

use super::{metrics::IntakeMetrics, peer::Peer, service::Service, settings::Timing, tls::Tls};

/// Connections on which nobody has been admitted yet. More wait in the kernel's queue.
const STRANGERS: usize = 256;
/// Streams of one connection. An agent has one, and a second while it replaces its token.
const STREAMS_PER_CONNECTION: u32 = 4;
/// Bytes that a peer may send before they are read, for each stream and for the connection.
const WINDOW_BYTES: u32 = 128 * 1024;
/// Bytes of the headers of a call: a token and little else.
const HEADER_BYTES: u32 = 16 * 1024;
/// Whether a peer is alive is asked so often.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long the answer may take.
const PING_WITHIN: Duration = Duration::from_secs(10);
/// A pause after the kernel has refused a connection, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long open streams may take to end when the intake stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Takes connections.
pub(super) struct Acceptor {
    pub(super) service: Service,
    pub(super) tls: Arc<Tls>,
    pub(super) timing: Timing,
    pub(super) metrics: IntakeMetrics,
    pub(super) stop: CancellationToken,
    /// Connections and streams that run.
    pub(super) tasks: TaskTracker,
}

impl Acceptor {
    /// Takes connections until the intake stops, then waits for those that are open, but not for long.
    pub(super) async fn run(self, listener: TcpListener, max_streams: usize) {
        let acceptor = Arc::new(self);
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        let all = Arc::new(Semaphore::new(max_streams.saturating_add(STRANGERS)));
        while let Some((connection, permits)) = acceptor.next(&listener, &strangers, &all).await {
            let tasks = acceptor.tasks.clone();
            tasks.spawn(acceptor.clone().serve(connection, permits));
        }
        acceptor.tasks.close();
        // What does not end in time is dropped with the process.
        let _ = timeout(STOP_WITHIN, acceptor.tasks.wait()).await;
    }

    /// The next connection, once there is room for it; `None` when the intake stops.
    async fn next(
        &self,
        listener: &TcpListener,
        strangers: &Arc<Semaphore>,
        all: &Arc<Semaphore>,
    ) -> Option<(TcpStream, [OwnedSemaphorePermit; 2])> {
        let next = async {
            // Neither semaphore is ever closed.
            let stranger = strangers.clone().acquire_owned().await.ok()?;
            let any = all.clone().acquire_owned().await.ok()?;
            loop {
                match listener.accept().await {
                    Ok((connection, _)) => return Some((connection, [stranger, any])),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => None,
            next = next => next,
        }
    }

    async fn serve(self: Arc<Self>, connection: TcpStream, [stranger, _any]: [OwnedSemaphorePermit; 2]) {
        let _counting = self.metrics.connection();
        // Acknowledgements are small, and wait for nothing.
        let _ = connection.set_nodelay(true);
        let metrics = self.metrics.clone();
        let connection = InspectReader::new(connection, move |bytes: &[u8]| metrics.received(bytes.len()));
        let handshake = TlsAcceptor::from(self.tls.config()).accept(connection);
        let connection = match timeout(self.timing.handshake, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
            Err(_) => return tracing::debug!("no TLS in time"),
        };
        let peer = Arc::new(Peer::new(stranger));
        let server = UsageIntakeServer::new(self.service.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let calls = {
            let peer = peer.clone();
            service_fn(move |mut request: hyper::Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                let mut server = server.clone();
                async move { server.call(request).await as Result<_, Infallible> }
            })
        };
        let serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .serve_connection(TokioIo::new(connection), calls);
        let mut serving = std::pin::pin!(serving);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = sleep(self.timing.unused) => {
                    if !peer.has_streams() {
                        return tracing::debug!("a connection without a stream is closed");
                    }
                }
            }
        }
    }
}
