//! Events (events.k8s.io/v1) on workloads.

use catamaran_crds::ElasticWorkload;
use catamaran_plan::plan::Announcement;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::metrics::{Metrics, Verb};

/// Publishes what a plan announces.
#[derive(Clone)]
pub struct Announcer {
    client: Client,
    reporter: Reporter,
    metrics: Metrics,
}

impl Announcer {
    /// An announcer that reports as this process.
    #[must_use]
    pub fn new(client: Client, instance: &str, metrics: Metrics) -> Self {
        let reporter =
            Reporter { controller: "catamaran.dev/operator".to_owned(), instance: Some(instance.to_owned()) };
        Self { client, reporter, metrics }
    }

    /// Publishes announcements. An Event that cannot be written is logged: it must not hold up the workload.
    pub async fn publish(&self, workload: &ElasticWorkload, announcements: &[Announcement]) {
        // One for each time: what a recorder remembers makes a series of Events with equal reasons and shows the first one's note for
        // all, as if a second rescale had not been; and it keeps every Event for minutes.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let reference = workload.object_ref(&());
        for announcement in announcements {
            let Announcement { warning, reason, note } = announcement;
            let event = Event {
                type_: if *warning { EventType::Warning } else { EventType::Normal },
                reason: reason.clone(),
                // The API takes at most 1024 bytes.
                note: Some(note.chars().take(1000).collect()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            self.metrics.write(Verb::Create, "Event");
            if let Err(error) = recorder.publish(&event, &reference).await {
                tracing::warn!(%error, %reason, "an Event could not be written");
            }
        }
    }
}
