//! Which calls meet which fault.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    answer::Answer,
    call::{Call, Match, Verb},
};

/// What becomes of a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered by the proxy; the server never sees it.
    Answer(Answer),
    /// It is forwarded later.
    Delay(Duration),
    /// It is neither forwarded nor answered. When the rule is cleared its connection is reset.
    Hold,
    /// Its connection moves no more bytes in either direction until the rule is cleared. [`Match::all`] takes new
    /// connections too, from their first byte; a running watch that is matched falls silent at once. Not counted: it
    /// holds for all that match.
    Silence,
    /// The connections that are open now fall silent, of those that are matched, or all; new ones work: so it looks
    /// when a router on the way forgets them.
    SilenceOpen,
    /// Its connection is reset; the server never sees the call. With [`Match::all`] every new connection is, as by a
    /// host on which no server listens, and open ones at once.
    Reset,
    /// The server carries it out, and the connection is reset in place of an answer.
    LoseAnswer,
    /// The server carries it out, its answer is kept, and from then on every write is held.
    LastWrite,
    /// A watch's events are kept until the rule is cleared; its other calls pass.
    Freeze,
    /// A watch's events come so much later.
    Late(Duration),
    /// A watch, also one that runs, is told that its resourceVersion is too old, and ends.
    Gone,
}

impl Fault {
    /// Whether it concerns the events of a watch, and not its start.
    fn is_of_events(&self) -> bool {
        matches!(self, Self::Freeze | Self::Late(_) | Self::Gone)
    }

    /// Whether it concerns open connections, and not calls.
    fn is_of_connections(&self) -> bool {
        matches!(self, Self::SilenceOpen)
    }
}

impl From<Answer> for Fault {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// Calls and their fault.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) calls: Match,
    pub(super) fault: Fault,
    /// So many calls pass before.
    skip: usize,
    /// So many calls meet the fault.
    times: usize,
}

impl Rule {
    /// Every call that is matched meets the fault.
    #[must_use]
    pub fn new(calls: Match, fault: impl Into<Fault>) -> Self {
        Self { calls, fault: fault.into(), skip: 0, times: usize::MAX }
    }

    /// Only the first so many do.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Only the n-th does, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: usize) -> Self {
        (self.skip, self.times) = (n.saturating_sub(1), 1);
        self
    }
}

/// A rule that was set.
#[derive(Debug)]
pub struct Active {
    pub(super) rule: Rule,
    /// Connections with a lower number were open when it was set.
    first_new: u64,
    /// How many calls it matched, those that passed before the fault included.
    matched: watch::Sender<usize>,
    /// How often the fault was carried out.
    hits: watch::Sender<usize>,
}

impl Active {
    fn new(rule: Rule, first_new: u64) -> Arc<Self> {
        Arc::new(Self { rule, first_new, matched: watch::Sender::new(0), hits: watch::Sender::new(0) })
    }

    /// How often the fault was carried out.
    #[must_use]
    pub fn hits(&self) -> usize {
        *self.hits.borrow()
    }

    /// Comes when the fault was carried out for the first time.
    pub async fn hit(&self) {
        // The sender lives as long as self.
        let _ = self.hits.subscribe().wait_for(|hits| *hits > 0).await;
    }

    pub(super) fn note_hit(&self) {
        self.hits.send_modify(|hits| *hits += 1);
    }

    /// What becomes of a call that begins, if this rule has a say in it. A call that it matches is counted.
    fn verdict(&self, call: &Call) -> Option<Fault> {
        let Rule { calls, fault, skip, times } = &self.rule;
        if fault.is_of_events() || fault.is_of_connections() {
            return None;
        }
        if calls.covers(call) {
            let mut before = 0;
            self.matched.send_modify(|matched| {
                before = *matched;
                *matched += 1;
            });
            if before >= *skip && before - skip < *times {
                return Some(fault.clone());
            }
        }
        let after_the_last = matches!(fault, Fault::LastWrite) && *self.matched.borrow() > *skip;
        (after_the_last && Verb::WRITES.contains(&call.verb)).then_some(Fault::Hold)
    }
}

/// The rules that hold, the newest first.
#[derive(Default)]
pub(super) struct Rules(watch::Sender<Vec<Arc<Active>>>);

impl Rules {
    /// `first_new`: the number of the next connection.
    pub(super) fn set(&self, rule: Rule, first_new: u64) -> Arc<Active> {
        let active = Active::new(rule, first_new);
        self.0.send_modify(|rules| rules.insert(0, active.clone()));
        active
    }

    pub(super) fn clear(&self, rule: &Arc<Active>) {
        self.0.send_modify(|rules| rules.retain(|other| !Arc::ptr_eq(rule, other)));
    }

    pub(super) fn clear_all(&self) {
        self.0.send_modify(Vec::clear);
    }

    /// The rule for a call that begins and what becomes of it, if there is one. A call is judged once.
    pub(super) fn judge(&self, call: &Call) -> Option<(Arc<Active>, Fault)> {
        let rules = self.0.borrow().clone();
        rules.into_iter().find_map(|active| active.verdict(call).map(|fault| (active, fault)))
    }

    /// The rule for the events of a running watch, if there is one.
    pub(super) fn of_events(&self, call: &Call) -> Option<Arc<Active>> {
        let rules = self.0.borrow();
        rules.iter().find(|active| active.rule.fault.is_of_events() && active.rule.calls.covers(call)).cloned()
    }

    /// The rule for an open connection with its present call, if there is one that stops its bytes.
    pub(super) fn of_connection(&self, number: u64, call: Option<&Call>) -> Option<Arc<Active>> {
        let rules = self.0.borrow();
        rules
            .iter()
            .find(|active| {
                let Rule { calls, fault, .. } = &active.rule;
                let matches = calls.is_all() || call.is_some_and(|call| calls.covers(call));
                match fault {
                    Fault::Silence => matches,
                    Fault::SilenceOpen => matches && number < active.first_new,
                    Fault::Reset => calls.is_all(),
                    _ => false,
                }
            })
            .cloned()
    }

    /// Comes when the rule is cleared.
    pub(super) async fn cleared(&self, rule: &Arc<Active>) {
        let mut rules = self.0.subscribe();
        let cleared = |rules: &Vec<Arc<Active>>| !rules.iter().any(|other| Arc::ptr_eq(rule, other));
        // The sender lives as long as self.
        let _ = rules.wait_for(cleared).await;
    }

    /// Tells of every change.
    pub(super) fn changes(&self) -> watch::Receiver<Vec<Arc<Active>>> {
        self.0.subscribe()
    }
}
