//! Events (events.k8s.io/v1) on workloads.

use catamaran_crds::ElasticWorkload;
use catamaran_plan::status::Announcement;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::metrics::{Metrics, Verb};

/// Publishes what a plan announces; equal Events become a series.
#[derive(Clone)]
pub struct Announcer {
    recorder: Recorder,
    metrics: Metrics,
}

impl Announcer {
    /// An announcer that reports as this process.
    #[must_use]
    pub fn new(client: Client, instance: &str, metrics: Metrics) -> Self {
        let reporter =
            Reporter { controller: "catamaran.dev/operator".to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client, reporter), metrics }
    }

    /// Publishes announcements. An Event that cannot be written is logged: it must not hold up the workload.
    pub async fn publish(&self, workload: &ElasticWorkload, announcements: &[Announcement]) {
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
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::warn!(%error, %reason, "an Event could not be written");
            }
        }
    }
}
