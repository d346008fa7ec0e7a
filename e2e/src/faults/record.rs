//! What passed.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::call::{Call, Verb};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered with this code.
    Forwarded(u16),
    /// The proxy answered with this code.
    Planted(u16),
    /// The server carried it out; no answer went back.
    Unanswered,
    /// Neither the server nor the client heard of it again.
    Stopped,
    /// The client gave up first.
    GivenUp,
}

/// One call that ended; of a watch, its start.
#[derive(Clone, Debug)]
pub struct Passed {
    /// When it came.
    pub at: Timestamp,
    /// From then until its answer began.
    pub took: Duration,
    /// The connection, by number from the start of the proxy.
    pub connection: u64,
    /// The call.
    pub call: Call,
    /// Which try this is of the same verb and path since one succeeded, from 1.
    pub attempt: usize,
    /// How it ended.
    pub outcome: Outcome,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, took, connection, call, attempt, outcome } = self;
        write!(f, "{at} #{connection} {:?} {} {}", call.verb, call.path, call.name)?;
        write!(f, " try {attempt}: {outcome:?} after {took:?}")
    }
}

#[derive(Default)]
pub(super) struct Record(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    passed: Vec<Passed>,
    /// Tries since the last success.
    tries: HashMap<(Verb, String, String), usize>,
}

/// A call that runs. Dropped before its end, the client gave up.
pub(super) struct Ticket {
    inner: Arc<Mutex<Inner>>,
    passed: Option<Passed>,
    begun: Instant,
}

impl Record {
    pub(super) fn begins(&self, call: Call, connection: u64) -> Ticket {
        let attempt = {
            let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let tries = inner.tries.entry(key(&call)).or_default();
            *tries += 1;
            *tries
        };
        let (at, took, outcome) = (Timestamp::now(), Duration::ZERO, Outcome::GivenUp);
        let passed = Some(Passed { at, took, connection, call, attempt, outcome });
        Ticket { inner: self.0.clone(), passed, begun: Instant::now() }
    }

    pub(super) fn all(&self) -> Vec<Passed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).passed.clone()
    }
}

impl Ticket {
    pub(super) fn ends(mut self, outcome: Outcome) {
        self.note(outcome);
    }

    fn note(&mut self, outcome: Outcome) {
        let Some(mut passed) = self.passed.take() else { return };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(outcome, Outcome::Forwarded(200..300)) {
            inner.tries.remove(&key(&passed.call));
        }
        (passed.outcome, passed.took) = (outcome, self.begun.elapsed());
        inner.passed.push(passed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.note(Outcome::GivenUp);
    }
}

fn key(call: &Call) -> (Verb, String, String) {
    (call.verb, call.path.clone(), call.user_agent.clone())
}
