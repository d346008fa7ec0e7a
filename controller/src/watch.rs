//! Watches that cannot hang, and that say how old what they brought is.
//!
//! kube's `watcher` keeps bookmarks to itself, and so what is the only sign of life of a kind that does not change.
//! Here each page, event and bookmark is one ([`Life`]). A stream that is silent for longer than bookmarks are apart is
//! given up by the client, and everything is listed anew on a fresh connection: a watch that starts and never brings
//! anything is not taken for a quiet one. Who takes over asks for a listing that begins after that moment
//! ([`Life::ask`]).

use std::{sync::Arc, time::Duration, vec};

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::Instant};

pub use kube::runtime::watcher::Event;

use crate::client::{self, Unanswered};

/// The server ends each watch after this time; the next one goes on where it ended.
const ROUND: u32 = 290;
/// Objects of one page of a listing.
const PAGE: u32 = 500;
/// The pauses after failures: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// The signs of life of one watch. Clones share it.
#[derive(Clone)]
pub struct Life(Arc<Inner>);

struct Inner {
    kind: String,
    last: watch::Sender<Instant>,
    /// How many listings were asked for.
    asked: watch::Sender<u64>,
    /// How many of them were answered by a listing that began later, and that is entered.
    answered: watch::Sender<u64>,
}

impl Life {
    /// Of a kind that is watched from now on.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        let last = watch::Sender::new(Instant::now());
        let (asked, answered) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { kind: kind.into(), last, asked, answered }))
    }

    /// What is watched.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// The time since the last sign of life: what is known of the kind is at most so old.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.last.borrow().elapsed()
    }

    /// Whether what is known is at most so old, and no newer listing was asked for.
    #[must_use]
    pub fn is_fresh(&self, most: Duration) -> bool {
        *self.0.answered.borrow() >= *self.0.asked.borrow() && self.age() <= most
    }

    /// The API server said something about the kind.
    pub fn sign(&self) {
        self.0.last.send_replace(Instant::now());
    }

    /// Asks for a listing that begins after this call. Returns its number. Until it is [answered](Self::answered)
    /// nothing is fresh.
    pub fn ask(&self) -> u64 {
        let mut number = 0;
        self.0.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        number
    }

    /// How many listings were asked for.
    #[must_use]
    pub fn asked(&self) -> u64 {
        *self.0.asked.borrow()
    }

    /// Waits until a listing that was asked for is entered.
    pub async fn answered(&self, number: u64) {
        // The sender lives as long as self.
        let _ = self.0.answered.subscribe().wait_for(|answered| *answered >= number).await;
    }

    /// Listings that were asked for are answered, as far as this number: [`watch`] says so, and whoever finds that
    /// there is no such kind.
    pub fn answer(&self, number: u64) {
        self.0.answered.send_modify(|answered| *answered = number.max(*answered));
    }
}

/// Why a watch has to begin again. It does so by itself when it is asked for the next event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The objects could not be listed.
    #[error("listing failed: {0}")]
    List(#[source] kube::Error),
    /// The watch could not be started.
    #[error("the watch could not be started: {0}")]
    Start(#[source] kube::Error),
    /// The stream broke, or fell silent.
    #[error("the watch failed: {0}")]
    Stream(#[source] kube::Error),
    /// The API server ended the watch with an error.
    #[error("the API server ended the watch: {0}")]
    Ended(#[source] Box<Status>),
    /// An object or a listing has no resourceVersion.
    #[error("there is no resourceVersion in the answer")]
    NoVersion,
}

impl Error {
    /// The API server does not serve the kind: 404 for the path itself.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::List(kube::Error::Api(status)) | Self::Start(kube::Error::Api(status)) | Self::Ended(status) => {
                status.code == 404
            }
            Self::List(_) | Self::Start(_) | Self::Stream(_) | Self::NoVersion => false,
        }
    }

    fn cause(&self) -> Option<&kube::Error> {
        match self {
            Self::List(error) | Self::Start(error) | Self::Stream(error) => Some(error),
            Self::Ended(_) | Self::NoVersion => None,
        }
    }
}

/// Watches what has the label `selector`, or everything. The client has to be one of [`client`]: it bounds each step.
/// The stream does not end; after an error it pauses before it goes on, for longer each time.
pub fn watch<K>(
    api: Api<K>,
    selector: Option<&str>,
    life: Life,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let asked = life.0.asked.subscribe();
    let selector = selector.map(str::to_owned);
    let watcher =
        Watcher { api, selector, life, asked, state: State::Unlisted, failures: 0, pause: None, entered: None };
    futures::stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await;
        Some((event, watcher))
    })
}

struct Watcher<K> {
    api: Api<K>,
    selector: Option<String>,
    life: Life,
    asked: watch::Receiver<u64>,
    state: State<K>,
    /// Since the last sign of life.
    failures: u32,
    /// Before the next attempt.
    pause: Option<Duration>,
    /// The listings that are answered once the next event is asked for: then the last one is handled.
    entered: Option<u64>,
}

enum State<K> {
    Unlisted,
    Listing {
        /// The listings that this one answers.
        answers: u64,
        objects: vec::IntoIter<K>,
        next: Next,
    },
    Listed {
        version: String,
    },
    Watching {
        version: String,
        stream: BoxStream<'static, kube::Result<WatchEvent<K>>>,
        /// Whether it brought anything yet.
        heard: bool,
    },
}

/// What follows the objects of a page.
enum Next {
    Page(Option<String>),
    End { version: String },
}

impl<K> Watcher<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    async fn next(&mut self) -> Result<Event<K>, Error> {
        if let Some(number) = self.entered.take() {
            self.life.answer(number);
        }
        if let Some(pause) = self.pause.take() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.asked.changed() => self.state = State::Unlisted,
            }
        }
        loop {
            match self.step().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.pause = Some(self.pause_after(&error));
                    return Err(error);
                }
            }
        }
    }

    /// Longer each time; not before the server wants to be asked again.
    fn pause_after(&mut self, error: &Error) -> Duration {
        let [first, longest] = PAUSES;
        let ours = first.saturating_mul(1 << self.failures.min(8)).min(longest);
        self.failures = self.failures.saturating_add(1);
        error.cause().and_then(client::retry_after).map_or(ours, |asked| asked.clamp(ours, longest.max(ours)))
    }

    fn heard(&mut self) {
        self.failures = 0;
        self.life.sign();
    }

    /// One step; not each brings an event. What fails leaves the state from which to go on.
    async fn step(&mut self) -> Result<Option<Event<K>>, Error> {
        match std::mem::replace(&mut self.state, State::Unlisted) {
            State::Unlisted => {
                let answers = *self.asked.borrow_and_update();
                self.state = State::Listing { answers, objects: Vec::new().into_iter(), next: Next::Page(None) };
                Ok(Some(Event::Init))
            }
            State::Listing { answers, mut objects, next } => {
                if let Some(object) = objects.next() {
                    self.state = State::Listing { answers, objects, next };
                    return Ok(Some(Event::InitApply(object)));
                }
                match next {
                    Next::Page(token) => self.list(answers, token).await,
                    Next::End { version } => {
                        self.entered = Some(answers);
                        self.state = State::Listed { version };
                        Ok(Some(Event::InitDone))
                    }
                }
            }
            State::Listed { version } => self.start(version).await,
            State::Watching { version, mut stream, heard } => {
                let item = tokio::select! {
                    biased;
                    // A stream that may be stale is given up; what comes next is listed.
                    _ = self.asked.changed() => return Ok(None),
                    item = stream.next() => item,
                };
                match item {
                    Some(Ok(event)) => self.take(event, version, stream),
                    // It ended without so much as a bookmark.
                    None if !heard => Ok(None),
                    None => {
                        self.state = State::Listed { version };
                        Ok(None)
                    }
                    Some(Err(error)) => {
                        if !matches!(client::unanswered(&error), Some(Unanswered::Silent(_))) {
                            self.state = State::Listed { version };
                        }
                        Err(Error::Stream(error))
                    }
                }
            }
        }
    }

    async fn list(&mut self, answers: u64, token: Option<String>) -> Result<Option<Event<K>>, Error> {
        let parameters = ListParams {
            label_selector: self.selector.clone(),
            limit: Some(PAGE),
            continue_token: token,
            ..ListParams::default()
        };
        // Without a resourceVersion: as new as the store is.
        let page = self.api.list(&parameters).await.map_err(Error::List)?;
        self.heard();
        let token = page.metadata.continue_.filter(|token| !token.is_empty());
        let next = match (token, page.metadata.resource_version.filter(|version| !version.is_empty())) {
            (Some(token), _) => Next::Page(Some(token)),
            (None, Some(version)) => Next::End { version },
            (None, None) => return Err(Error::NoVersion),
        };
        self.state = State::Listing { answers, objects: page.items.into_iter(), next };
        Ok(None)
    }

    async fn start(&mut self, version: String) -> Result<Option<Event<K>>, Error> {
        let parameters = WatchParams {
            label_selector: self.selector.clone(),
            timeout: Some(ROUND),
            bookmarks: true,
            ..WatchParams::default()
        };
        match self.api.watch(&parameters, &version).await {
            Ok(stream) => {
                self.state = State::Watching { version, stream: stream.boxed(), heard: false };
                Ok(None)
            }
            Err(error) => {
                // Too old to go on from: listed anew.
                if !matches!(&error, kube::Error::Api(status) if status.code == 410) {
                    self.state = State::Listed { version };
                }
                Err(Error::Start(error))
            }
        }
    }

    fn take(
        &mut self,
        event: WatchEvent<K>,
        version: String,
        stream: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    ) -> Result<Option<Event<K>>, Error> {
        let (version, event) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                (object.resource_version(), Event::Apply(object))
            }
            WatchEvent::Deleted(object) => (object.resource_version(), Event::Delete(object)),
            WatchEvent::Bookmark(bookmark) => {
                self.heard();
                let version = bookmark.metadata.resource_version;
                self.state = State::Watching { version, stream, heard: true };
                return Ok(None);
            }
            WatchEvent::Error(status) => {
                if status.code != 410 {
                    self.state = State::Listed { version };
                }
                return Err(Error::Ended(status.boxed()));
            }
        };
        let version = version.filter(|version| !version.is_empty()).ok_or(Error::NoVersion)?;
        self.heard();
        self.state = State::Watching { version, stream, heard: true };
        Ok(Some(event))
    }
}
