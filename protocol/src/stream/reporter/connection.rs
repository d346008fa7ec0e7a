//! The stream to one replica, and its coming back.

use std::{error::Error, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::stream;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep, sleep_until, timeout},
};
use tonic::{
    Code, Request, Status as GrpcStatus, Streaming,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{Config, Shared, Status};
use crate::stream::{
    encode::Encoder,
    limits::UNACKNOWLEDGED,
    proto::{Hello, StreamRequest, StreamResponse, stream_request, usage_intake_client::UsageIntakeClient},
    snapshot::Snapshot,
};

/// To a TCP connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// From the first packet to an open stream. Long: after a restart of the operator all nodes come at once, and who gives
/// up while it waits for its turn has the work done for nothing.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// A replica that does not answer a report for so long is taken for lost.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(10);
/// Whether the connection is alive is asked so often while nothing else tells.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the answer to that may take.
const PING_WITHIN: Duration = Duration::from_secs(5);
/// How often the token's file is looked at. The kubelet writes a new one when a fifth of its life is left: minutes.
const TOKEN_EVERY: Duration = Duration::from_secs(20);
/// The first pause after a failure; the next ones double, each with as much again at random.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, before what is added at random.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One replica.
pub(super) struct Connection {
    pub(super) config: Arc<Config>,
    pub(super) address: SocketAddr,
    pub(super) newest: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(super) status: Shared,
}

/// Why a stream ended, or never began.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the token in {} cannot be sent in a header", .0.display())]
    Token(PathBuf),
    #[error("cannot connect: {}", causes(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("no stream within {OPEN_WITHIN:?}")]
    Open,
    #[error("{:?}: {}", .0.code(), .0.message())]
    Refused(#[from] GrpcStatus),
    #[error("the replica closed the stream")]
    Closed,
    #[error("no acknowledgement within {ACKNOWLEDGE_WITHIN:?}")]
    Silent,
    #[error("there is a new token")]
    TokenChanged,
    #[error("the reporter stops")]
    Stopped,
}

impl Connection {
    /// Streams for as long as the replica is wanted.
    pub(super) async fn keep(mut self) {
        let pauses = || {
            ExponentialBuilder::default()
                .with_min_delay(FIRST_PAUSE)
                .with_max_delay(LONGEST_PAUSE)
                .without_max_times()
                .with_jitter()
                .build()
        };
        let mut next = pauses();
        loop {
            let before = self.counted().acknowledged;
            let ended = self.stream().await;
            let worked = self.counted().acknowledged > before;
            match &ended {
                Ended::Stopped => return,
                Ended::TokenChanged => tracing::debug!(address = %self.address, "{ended}"),
                other => tracing::warn!(address = %self.address, "no usage is streamed: {other}"),
            }
            self.status.update(self.address, |status| {
                status.connected = false;
                status.failures = status.failures.saturating_add(u64::from(!matches!(ended, Ended::TokenChanged)));
                status.last_error = Some(ended.to_string());
            });
            if matches!(ended, Ended::TokenChanged) {
                continue;
            }
            // Where another process streams for this node, coming back at once would only end its stream in turn.
            let replaced = matches!(&ended, Ended::Refused(status) if status.code() == Code::Aborted);
            if worked && !replaced {
                next = pauses();
            }
            sleep(next.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    fn counted(&self) -> Status {
        self.status.lock().get(&self.address).cloned().unwrap_or_default()
    }

    /// One stream, from connecting to its end.
    async fn stream(&mut self) -> Ended {
        match self.try_stream().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_stream(&mut self) -> Result<std::convert::Infallible, Ended> {
        let token = self.read_token().await?;
        let (sender, receiver) = mpsc::channel(4);
        let hello = Hello { node: self.config.node.clone(), boot_id: self.config.boot_id.clone() };
        send(&sender, stream_request::Message::Hello(hello))?;
        let opened = timeout(OPEN_WITHIN, self.open(&token, receiver)).await;
        let inbound = opened.map_err(|_| Ended::Open)??;
        self.status.update(self.address, |status| status.streams = status.streams.saturating_add(1));
        self.exchange(&token, &sender, inbound).await
    }

    async fn open(
        &self,
        token: &str,
        messages: mpsc::Receiver<StreamRequest>,
    ) -> Result<Streaming<StreamResponse>, Ended> {
        let channel = self.connect().await?;
        let messages =
            stream::unfold(messages, |mut messages| async { messages.recv().await.map(|message| (message, messages)) });
        let mut request = Request::new(messages);
        let mut authorization = AsciiMetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Ended::Token(self.config.token_file.clone()))?;
        authorization.set_sensitive(true);
        request.metadata_mut().insert("authorization", authorization);
        Ok(UsageIntakeClient::new(channel).stream(request).await?.into_inner())
    }

    async fn connect(&self) -> Result<Channel, Ended> {
        let authorities = read(&self.config.ca_file).await?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authorities))
            .domain_name(self.config.server_name.clone());
        let channel = Endpoint::from_shared(format!("https://{}", self.address))?
            .tls_config(tls)?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .tcp_nodelay(true)
            .connect()
            .await?;
        Ok(channel)
    }

    /// Sends what is new while few reports wait for an answer.
    async fn exchange(
        &mut self,
        token: &str,
        sender: &mpsc::Sender<StreamRequest>,
        mut inbound: Streaming<StreamResponse>,
    ) -> Result<std::convert::Infallible, Ended> {
        let (mut encoder, mut sent, mut acknowledged) = (Encoder::default(), 0_u64, 0_u64);
        let mut answer_by = Instant::now();
        let mut tokens = interval(TOKEN_EVERY);
        loop {
            let unanswered = sent.saturating_sub(acknowledged);
            tokio::select! {
                // Biased: why a stream ended is read before the end is noticed in writing.
                biased;
                answer = inbound.message() => {
                    let answer = answer?.ok_or(Ended::Closed)?;
                    // What was never sent cannot be acknowledged.
                    let new = answer.acknowledged.min(sent).saturating_sub(acknowledged);
                    acknowledged = acknowledged.saturating_add(new);
                    answer_by = Instant::now() + ACKNOWLEDGE_WITHIN;
                    self.status.update(self.address, |status| {
                        status.connected = true;
                        status.last_error = None;
                        status.acknowledged = status.acknowledged.saturating_add(new);
                    });
                }
                changed = self.newest.changed(), if unanswered < UNACKNOWLEDGED => {
                    changed.map_err(|_| Ended::Stopped)?;
                    let newest = self.newest.borrow_and_update().clone();
                    let Some(snapshot) = newest else { continue };
                    let encoded = encoder.encode(&snapshot);
                    if unanswered == 0 {
                        answer_by = Instant::now() + ACKNOWLEDGE_WITHIN;
                    }
                    sent = encoded.report.sequence;
                    self.status.update(self.address, |status| {
                        status.sent = status.sent.saturating_add(1);
                        status.left_out = encoded.left_out;
                    });
                    send(sender, stream_request::Message::Report(encoded.report))?;
                }
                () = sleep_until(answer_by), if unanswered > 0 => return Err(Ended::Silent),
                _ = tokens.tick() => {
                    // A file that cannot be read now is written now.
                    if self.read_token().await.is_ok_and(|new| new != token) {
                        return Err(Ended::TokenChanged);
                    }
                }
            }
        }
    }

    async fn read_token(&self) -> Result<String, Ended> {
        let bytes = read(&self.config.token_file).await?;
        let token = String::from_utf8(bytes).map_err(|_| Ended::Token(self.config.token_file.clone()))?;
        Ok(token.trim().to_owned())
    }
}

/// There is room: the messages that wait are never more than a hello and the unacknowledged reports.
fn send(sender: &mpsc::Sender<StreamRequest>, message: stream_request::Message) -> Result<(), Ended> {
    sender.try_send(StreamRequest { message: Some(message) }).map_err(|_| Ended::Closed)
}

async fn read(path: &std::path::Path) -> Result<Vec<u8>, Ended> {
    tokio::fs::read(path).await.map_err(|source| Ended::File { path: path.to_owned(), source })
}

/// An error with its causes, which name what went wrong; the outermost only says "transport error".
fn causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
