//! Metrics of the questions to sources.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{backend::Backend, failure::Failure};

/// Counts of questions, by the kind of their source and how they ended.
#[derive(Default)]
pub(super) struct SourceMetrics(Family<Labels, Counter>);

/// `source` and `outcome`.
type Labels = [(&'static str, &'static str); 2];

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer.
    Answered,
    /// The source was reached, and has no answer to this question, or none in time.
    Failed,
    /// The source is absent or down.
    Unavailable,
    /// It was not asked, since the source was down a moment ago.
    Withheld,
}

impl SourceMetrics {
    /// Registers them, each at zero: the first one of a series that begins with it would be lost to rate().
    pub(super) fn register(&self, registry: &mut Registry) {
        for source in ["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io", "prometheus"] {
            for ended in [Ended::Answered, Ended::Failed, Ended::Unavailable, Ended::Withheld] {
                drop(self.0.get_or_create(&labels(source, ended)));
            }
        }
        registry.register(
            "source_requests",
            "Questions to sources of metrics, by source and how they ended",
            self.0.clone(),
        );
    }

    pub(super) fn ended(&self, backend: &Backend, ended: Ended) {
        let source = match backend {
            Backend::Resource => "metrics.k8s.io",
            Backend::Custom => "custom.metrics.k8s.io",
            Backend::External => "external.metrics.k8s.io",
            // Which one of them is the user's to name: that would be a series for each.
            Backend::Prometheus(..) => "prometheus",
        };
        self.0.get_or_create(&labels(source, ended)).inc();
    }
}

fn labels(source: &'static str, ended: Ended) -> Labels {
    let outcome = match ended {
        Ended::Answered => "answered",
        Ended::Failed => "failed",
        Ended::Unavailable => "unavailable",
        Ended::Withheld => "withheld",
    };
    [("source", source), ("outcome", outcome)]
}

impl<T> From<&Result<T, Failure>> for Ended {
    fn from(outcome: &Result<T, Failure>) -> Self {
        match outcome {
            Ok(_) => Self::Answered,
            Err(Failure::Answered(_)) => Self::Failed,
            Err(Failure::Unavailable(_)) => Self::Unavailable,
        }
    }
}
