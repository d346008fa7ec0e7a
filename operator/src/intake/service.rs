//! Streams: from the call to the store.

use std::{
    hash::BuildHasher,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use catamaran_protocol::stream::{
    limits::REPORT_INTERVAL,
    proto::{StreamRequest, StreamResponse, usage_intake_server::UsageIntake},
    rates::Pushed,
    session::{Accepted, Malformed, Sender, Session},
};
use futures::{FutureExt, SinkExt, Stream, channel::mpsc};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    authentication::{Denied, Gate, ReviewError, Token},
    hooks::{Observer, Placed, Placement},
    metrics::{EndReason, IntakeMetrics, Refused},
    nodes::{Nodes, Turn},
    peer::{Admitted, Peer},
    settings::Timing,
    store::{Reading, UsageStore},
};

/// Messages that are read at once when many wait; the newest report counts.
const MESSAGES_AT_ONCE: usize = 64;
/// How long a new stream waits for room, which the one that it replaces may be about to make.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// The gRPC service. Clones share everything.
#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Shared>);

/// What all streams share.
pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) nodes: Nodes,
    pub(super) room: Arc<Semaphore>,
    pub(super) placement: Arc<dyn Placement>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) store: UsageStore,
    pub(super) metrics: IntakeMetrics,
    pub(super) timing: Timing,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Names the lives of clocks by number.
    pub(super) clocks: std::hash::RandomState,
}

/// Why a stream ended.
#[derive(Debug)]
enum End {
    Closed,
    Lost(Status),
    Oversized(Status),
    Undecodable(Status),
    Replaced,
    Idle,
    Denied(Denied),
    Malformed(Malformed),
    Stopped,
}

#[tonic::async_trait]
impl UsageIntake for Service {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<StreamRequest>>) -> Result<Response<Self::StreamStream>, Status> {
        let shared = self.0.clone();
        let refuse = |reason: Refused, status: Status| {
            shared.metrics.refused(reason);
            tracing::warn!(?reason, message = status.message(), "a usage stream is refused");
            status
        };
        let token =
            Token::from_metadata(request.metadata()).map_err(|denied| refuse(denied.reason(), denied.status()))?;
        let admitted = shared.gate.admit(&token).await;
        let bound = admitted.map_err(|denied| refuse(denied.reason(), denied.status()))?;
        let peer = request.extensions().get::<Arc<Peer>>().cloned();

        let mut inbound = request.into_inner();
        let hello = timeout(shared.timing.hello, inbound.message()).await.map_err(|_| End::Idle);
        let sender = hello
            .and_then(next)
            .and_then(|hello| Sender::from_first(hello).map_err(End::Malformed))
            .map_err(|end| refuse(Refused::Hello, end.status().unwrap_or_else(|| Status::cancelled("no hello"))))?;
        if *sender.node != *bound {
            let denied = Denied::Node { bound, claimed: sender.node.to_string() };
            return Err(refuse(denied.reason(), denied.status()));
        }

        let turn = shared.nodes.take_over(&sender.node);
        let room = timeout(ROOM_WITHIN, shared.room.clone().acquire_owned()).await;
        let full = || refuse(Refused::Busy, Status::resource_exhausted("there are as many streams as may be"));
        let room = room.map_err(|_| full())?.map_err(|_| full())?;
        let (answers, responses) = mpsc::channel(1);
        let stream = OpenStream {
            shared: shared.clone(),
            sender,
            token,
            turn,
            answers,
            _room: room,
            _admitted: peer.map(|peer| peer.admit()),
        };
        shared.tasks.spawn(stream.run(inbound));
        Ok(Response::new(Box::pin(responses)))
    }
}

/// A stream that was taken.
struct OpenStream {
    shared: Arc<Shared>,
    sender: Sender,
    token: Token,
    turn: Turn,
    answers: mpsc::Sender<Result<StreamResponse, Status>>,
    _room: OwnedSemaphorePermit,
    _admitted: Option<Admitted>,
}

impl OpenStream {
    async fn run(mut self, inbound: Streaming<StreamRequest>) {
        let _counting = self.shared.metrics.stream();
        let shared = self.shared.clone();
        tracing::debug!(node = %self.sender.node, "a usage stream is open");
        let answers = self.answers.clone();
        let end = tokio::select! {
            () = self.turn.replaced() => End::Replaced,
            () = shared.stop.cancelled() => End::Stopped,
            denied = keep_admitted(&shared, &self.token, &self.sender.node) => End::Denied(denied),
            end = read(&shared, &self.sender, answers, inbound) => end,
        };
        shared.metrics.ended(end.reason());
        tracing::debug!(node = %self.sender.node, ?end, "a usage stream ends");
        if let Some(status) = end.status() {
            // A peer that does not read learns it from the end of the connection.
            let _ = timeout(Duration::from_secs(1), self.answers.send(Err(status))).await;
        }
    }
}

/// Reviews the token again and again, until it is no longer good.
async fn keep_admitted(shared: &Shared, token: &Token, node: &str) -> Denied {
    let mut last = Instant::now();
    loop {
        sleep(shared.timing.review).await;
        match shared.gate.admit_again(token).await {
            Ok(bound) if bound == node => last = Instant::now(),
            Ok(bound) => return Denied::Node { bound, claimed: node.to_owned() },
            Err(Denied::Review(ReviewError::Unavailable(error))) if last.elapsed() < shared.timing.review_grace => {
                tracing::debug!(%error, node, "a token is not reviewed");
            }
            Err(denied) => return denied,
        }
    }
}

/// Reads reports, until there are no more.
async fn read(
    shared: &Shared,
    sender: &Sender,
    mut answers: mpsc::Sender<Result<StreamResponse, Status>>,
    mut inbound: Streaming<StreamRequest>,
) -> End {
    let clock = shared.clocks.hash_one(&sender.boot_id);
    let (mut session, mut last) = (Session::default(), None);
    loop {
        let first = match timeout(shared.timing.idle, inbound.message()).await {
            Err(_) => return End::Idle,
            Ok(message) => message,
        };
        let mut report = match next(first).and_then(|message| session.accept(message).map_err(End::Malformed)) {
            Ok(report) => report,
            Err(end) => return end,
        };
        // Where several wait, the newest counts: counters are cumulative.
        let mut ended = None;
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(waiting) = inbound.message().now_or_never() else { break };
            match next(waiting).and_then(|message| session.accept(message).map_err(End::Malformed)) {
                Ok(newer) => {
                    shared.metrics.superseded();
                    let mut gone = std::mem::take(&mut report.gone);
                    gone.extend(newer.gone);
                    report = Accepted { gone, ..newer };
                }
                Err(end) => {
                    ended = Some(end);
                    break;
                }
            }
        }
        let taken = Instant::now();
        let acknowledged = report.sequence;
        shared.metrics.report(last.map(|last| taken.duration_since(last)), clock_offset(report.unix_usec));
        last = Some(taken);
        record(shared, sender, clock, report);
        if let Some(end) = ended {
            return end;
        }
        match timeout(shared.timing.idle, answers.send(Ok(StreamResponse { acknowledged }))).await {
            Err(_) => return End::Idle,
            Ok(Err(_)) => return End::Closed,
            Ok(Ok(())) => {}
        }
        // What comes sooner waits, at last at the sender.
        sleep_until(taken + REPORT_INTERVAL).await;
    }
}

/// A message, or what its absence means.
fn next(message: Result<Option<StreamRequest>, Status>) -> Result<StreamRequest, End> {
    match message {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(End::Closed),
        // tonic's code for a message above the limit.
        Err(status) if status.code() == Code::OutOfRange => Err(End::Oversized(status)),
        // And for bytes that are no message.
        Err(status) if status.code() == Code::Internal => Err(End::Undecodable(status)),
        Err(status) => Err(End::Lost(status)),
    }
}

/// Writes a report to the store, and tells of it.
fn record(shared: &Shared, sender: &Sender, clock: u64, report: Accepted) {
    let Shared { store, metrics, placement, observer, .. } = shared;
    for pod in &report.gone {
        store.remove(&sender.node, pod);
    }
    let reading = Reading { node: &sender.node, clock, taken: report.taken, arrived: store.now() };
    let (mut samples, mut pods) = (0_u64, Vec::with_capacity(report.readings.len()));
    for pod in report.readings {
        let placed = placement.check(pod.pod(), &sender.node);
        metrics.placed(placed);
        match placed {
            Placed::Here => {
                // None of its containers runs: what they used at last is of interest to accounts alone.
                if pod.counters().is_empty() {
                    store.remove(&sender.node, pod.pod());
                    pods.push(pod);
                    continue;
                }
                store.record(&reading, &pod, |pushed| {
                    samples = samples.saturating_add(1);
                    match pushed {
                        Pushed::Restarted(restart) => metrics.restarted(restart),
                        Pushed::Started | Pushed::Continued | Pushed::Repeated => {}
                    }
                });
                pods.push(pod);
            }
            Placed::OtherNode | Placed::OtherUid | Placed::Unknown => {}
        }
    }
    metrics.recorded(samples);
    if !pods.is_empty() {
        observer.read(&reading, &pods);
        observer.reported(&pods.iter().map(|pod| pod.pod().clone()).collect::<Vec<_>>());
    }
}

/// How far a node's clock is from ours.
fn clock_offset(unix_usec: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
    let offset = i128::try_from(now).unwrap_or(i128::MAX).abs_diff(i128::from(unix_usec));
    Duration::from_micros(u64::try_from(offset).unwrap_or(u64::MAX))
}

impl End {
    fn reason(&self) -> EndReason {
        match self {
            Self::Closed => EndReason::Closed,
            Self::Lost(_) => EndReason::Lost,
            Self::Oversized(_) => EndReason::Oversized,
            Self::Replaced => EndReason::Replaced,
            Self::Idle => EndReason::Idle,
            Self::Denied(Denied::Review(ReviewError::Unavailable(_))) => EndReason::Review,
            Self::Denied(_) => EndReason::Token,
            Self::Malformed(_) | Self::Undecodable(_) => EndReason::Malformed,
            Self::Stopped => EndReason::Stopped,
        }
    }

    /// What the agent is told.
    fn status(self) -> Option<Status> {
        match self {
            Self::Closed => None,
            Self::Lost(status) | Self::Oversized(status) => Some(status),
            Self::Undecodable(status) => Some(Status::invalid_argument(status.message())),
            Self::Replaced => Some(Status::aborted("another stream of this node took over")),
            Self::Idle => Some(Status::deadline_exceeded("no message for too long")),
            Self::Denied(denied) => Some(denied.status()),
            Self::Malformed(malformed) => Some(Status::invalid_argument(malformed.to_string())),
            Self::Stopped => Some(Status::unavailable("the operator stops")),
        }
    }
}
