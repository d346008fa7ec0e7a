//! external.metrics.k8s.io: values of things outside of the cluster, one for each series.

use catamaran_autoscale::samples::Samples;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use serde::Deserialize;

use super::{
    api::{Question, get},
    failure::Failure,
    quantity::milli,
};

/// An ExternalMetricValueList, as far as it is needed.
#[derive(Deserialize)]
struct ExternalMetricValueList {
    #[serde(default)]
    items: Option<Vec<ExternalMetricValue>>,
}

#[derive(Deserialize)]
struct ExternalMetricValue {
    value: Quantity,
}

/// The values of a metric.
///
/// Errors: in the words of the HPA's client; an empty list is one of them.
pub(super) async fn series(client: &Client, namespace: &str, metric: &str, selector: &str) -> Result<Samples, Failure> {
    let question = Question {
        group: "external.metrics.k8s.io",
        version: "v1beta1",
        namespace,
        path: &[metric],
        parameters: &[("labelSelector", selector)],
    };
    let list: ExternalMetricValueList = get(client, &question)
        .await
        .map_err(|refused| refused.failure.within("unable to fetch metrics from external metrics API"))?;
    samples(list)
}

fn samples(list: ExternalMetricValueList) -> Result<Samples, Failure> {
    match list.items {
        Some(items) if !items.is_empty() => {
            items.iter().map(|item| milli(&item.value)).collect::<Result<_, _>>().map(Samples::Series)
        }
        Some(_) | None => Err(Failure::Answered("no metrics returned from external metrics API".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_counts() {
        let read = |json| samples(serde_json::from_str(json).expect("an ExternalMetricValueList"));
        // As KEDA's metrics server answers.
        let two = r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[
            {"metricName":"s0-queue","metricLabels":{"queue":"a"},"timestamp":"2026-11-02T10:00:12Z","value":"1500m"},
            {"metricName":"s0-queue","metricLabels":null,"timestamp":"2026-11-02T10:00:12Z","window":60,"value":"12"}]}"#;
        assert_eq!(read(two), Ok(Samples::Series(vec![1500, 12_000])));
        for empty in [r#"{"items":[]}"#, r#"{"items":null}"#, "{}"] {
            let none = Failure::Answered("no metrics returned from external metrics API".to_owned());
            assert_eq!(read(empty), Err(none));
        }
        assert!(read(r#"{"items":[{"value":"many"}]}"#).is_err());
    }
}
