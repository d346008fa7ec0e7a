//! Events (events.k8s.io/v1) on workloads.
//!
//! Passes hand them over and go on: a slow or refused Events API delays nothing but Events. What waits is bounded; the
//! oldest are dropped, and counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use catamaran_crds::ElasticWorkload;
use catamaran_plan::plan::Announcement;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::Notify, time::timeout};

use crate::metrics::{Metrics, Verb};

/// How many Events may wait.
const CAPACITY: usize = 1024;
/// How long one Event may take to be written: the next ones are worth more than waiting for it.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// The longest note of an Event, in bytes (validation of events.k8s.io/v1).
const MAX_NOTE: usize = 1024;
/// The longest reason, and the longest name of the instance that reports, in bytes.
const MAX_WORD: usize = 128;

/// Publishes what plans announce. Clones share what waits.
#[derive(Clone)]
pub struct Announcer {
    client: Client,
    reporter: Reporter,
    metrics: Metrics,
    waiting: Arc<Waiting>,
}

/// Events on their way, the oldest first.
#[derive(Default)]
struct Waiting {
    events: Mutex<VecDeque<(Event, ObjectReference)>>,
    arrived: Notify,
}

impl Announcer {
    /// An announcer that reports as this process.
    #[must_use]
    pub fn new(client: Client, instance: &str, metrics: Metrics) -> Self {
        let instance = Some(cut(instance, MAX_WORD).to_owned());
        let reporter = Reporter { controller: "catamaran.dev/operator".to_owned(), instance };
        Self { client, reporter, metrics, waiting: Arc::default() }
    }

    /// Hands announcements over to [`Self::run`].
    pub fn publish(&self, workload: &ElasticWorkload, announcements: &[Announcement]) {
        let reference = workload.object_ref(&());
        for announcement in announcements {
            if self.waiting.push(event(announcement), reference.clone()) {
                self.metrics.event_dropped();
            }
        }
    }

    /// Writes Events, one after the other, until it is dropped. One that cannot be written is logged.
    pub async fn run(&self) {
        loop {
            let (event, reference) = self.waiting.next().await;
            // One for each Event: what a recorder remembers makes a series of Events with equal reasons and shows the
            // first one's note for all, as if a second rescale had not been; and it keeps every Event for minutes.
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            self.metrics.write(Verb::Create, "Event");
            let (reason, workload) = (&event.reason, &reference.name);
            match timeout(WRITTEN_WITHIN, recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, reason, workload, "an Event could not be written"),
                Err(_) => tracing::warn!(reason, workload, "an Event could not be written in time"),
            }
        }
    }
}

impl Waiting {
    /// Adds an Event. Returns whether the oldest one was dropped for it.
    fn push(&self, event: Event, reference: ObjectReference) -> bool {
        let mut events = self.lock();
        let full = events.len() >= CAPACITY;
        if full {
            events.pop_front();
        }
        events.push_back((event, reference));
        drop(events);
        self.arrived.notify_one();
        full
    }

    async fn next(&self) -> (Event, ObjectReference) {
        loop {
            let next = self.lock().pop_front();
            match next {
                Some(next) => return next,
                // Kept for us if it comes between the two.
                None => self.arrived.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Event, ObjectReference)>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(announcement: &Announcement) -> Event {
    let Announcement { warning, reason, note } = announcement;
    Event {
        type_: if *warning { EventType::Warning } else { EventType::Normal },
        reason: cut(reason, MAX_WORD).to_owned(),
        note: Some(cut(note, MAX_NOTE).to_owned()),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// The beginning of a text, of at most so many bytes and of whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    let ends = text.char_indices().map(|(start, character)| start + character.len_utf8());
    &text[..ends.take_while(|end| *end <= bytes).last().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(note: &str) -> Announcement {
        Announcement { warning: false, reason: "Progressing".to_owned(), note: note.to_owned() }
    }

    #[test]
    fn a_note_is_cut_at_1024_bytes_between_characters() {
        for (note, bytes) in [("short".to_owned(), 5), ("a".repeat(2000), 1024), ("\u{20ac}".repeat(1000), 1023)] {
            assert_eq!(event(&announcement(&note)).note.map(|note| note.len()), Some(bytes));
        }
    }

    #[tokio::test]
    async fn when_too_many_wait_the_oldest_are_dropped() {
        let waiting = Waiting::default();
        let push = |note: usize| waiting.push(event(&announcement(&note.to_string())), ObjectReference::default());
        let dropped = (0..CAPACITY + 3).filter(|note| push(*note)).count();
        assert_eq!(dropped, 3);
        assert_eq!(waiting.next().await.0.note.as_deref(), Some("3"));
        assert_eq!(waiting.lock().len(), CAPACITY - 1);
    }
}
