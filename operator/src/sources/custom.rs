//! custom.metrics.k8s.io: values of pods and of other objects in the cluster, as adapters serve them.

use std::collections::BTreeMap;

use catamaran_autoscale::samples::{PodSample, Samples};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};
use kube::Client;
use serde::Deserialize;

use super::{
    api::{Absent, Question, get},
    discovery::{Discovery, GROUP, Version},
    failure::Failure,
    quantity::milli,
};

/// What the HPA takes for a window where the API names none.
const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// In front of every error, as in the HPA's client.
const UNABLE: &str = "unable to fetch metrics from custom metrics API";

/// A MetricValueList of v1beta2 or v1beta1; the two differ in the names of members.
#[derive(Deserialize)]
struct MetricValueList {
    #[serde(default)]
    items: Option<Vec<MetricValue>>,
}

#[derive(Deserialize)]
struct MetricValue {
    #[serde(rename = "describedObject")]
    described_object: Described,
    #[serde(default)]
    timestamp: Option<Time>,
    #[serde(default, rename = "windowSeconds", alias = "window")]
    window_seconds: Option<i64>,
    value: Quantity,
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}

/// Another object of the workload's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ObjectName {
    /// Empty for the core group.
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
}

/// The custom metrics API.
pub(super) struct Custom {
    client: Client,
    discovery: Discovery,
}

impl Custom {
    pub(super) fn new(client: Client) -> Self {
        Self { discovery: Discovery::new(client.clone()), client }
    }

    /// The values of a metric of the pods that a selector matches.
    ///
    /// Errors: in the words of the HPA's client; an empty list is one of them.
    pub(super) async fn pods(
        &self,
        namespace: &str,
        selector: &str,
        metric: &str,
        metric_selector: &str,
    ) -> Result<Samples, Failure> {
        let parameters = [("labelSelector", selector), ("metricLabelSelector", metric_selector)];
        let list = self.ask(namespace, &["pods", "*", metric], &parameters).await?;
        pod_samples(list)
    }

    /// The value of a metric of one object. A Namespace is always the workload's own, whatever its name.
    ///
    /// Errors: in the words of the HPA's client; any other number of values than one is one of them.
    pub(super) async fn object(
        &self,
        namespace: &str,
        object: &ObjectName,
        metric: &str,
        metric_selector: &str,
    ) -> Result<Samples, Failure> {
        let parameters = [("metricLabelSelector", metric_selector)];
        // Before the kind is looked up: a kind that nobody serves says nothing of the API, and must not pass for an
        // answer of it.
        self.version().await?;
        let list = if object.group.is_empty() && object.kind == "Namespace" {
            self.ask(namespace, &["metrics", metric], &parameters).await?
        } else {
            let resource =
                self.discovery.resource(&object.group, &object.kind).await.map_err(|failure| failure.within(UNABLE))?;
            self.ask(namespace, &[&resource, &object.name, metric], &parameters).await?
        };
        object_value(list)
    }

    async fn version(&self) -> Result<Version, Failure> {
        self.discovery.version().await.map_err(|failure| failure.within(UNABLE))
    }

    async fn ask(
        &self,
        namespace: &str,
        path: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<MetricValueList, Failure> {
        let version = self.version().await?;
        let question = Question { group: GROUP, version: version.as_str(), namespace, path, parameters };
        get(&self.client, &question).await.map_err(|refused| {
            match refused.absent {
                Some(Absent::Api) => self.discovery.forget(),
                // Most likely there is no such metric, but maybe the kind is now served under another name.
                Some(Absent::Metric) => self.discovery.doubt(),
                None => {}
            }
            refused.failure.within(UNABLE)
        })
    }
}

fn pod_samples(list: MetricValueList) -> Result<Samples, Failure> {
    let items = list.items.unwrap_or_default();
    if items.is_empty() {
        return Err(Failure::Answered("no metrics returned from custom metrics API".to_owned()));
    }
    let sample = |item: MetricValue| {
        let sample = PodSample {
            value: milli(&item.value)?,
            // Without a time the sample is as old as can be.
            taken: item.timestamp.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            window: item.window_seconds.map_or(DEFAULT_WINDOW, SignedDuration::from_secs),
        };
        Ok((item.described_object.name, sample))
    };
    items.into_iter().map(sample).collect::<Result<BTreeMap<_, _>, Failure>>().map(Samples::Pods)
}

fn object_value(list: MetricValueList) -> Result<Samples, Failure> {
    match list.items.unwrap_or_default().as_slice() {
        [one] => milli(&one.value).map(Samples::Value),
        other => Err(Failure::Answered(format!(
            "{UNABLE}: the custom metrics API server returned {} results when we asked for exactly one",
            other.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> MetricValueList {
        serde_json::from_str(json).expect("a MetricValueList")
    }

    /// As prometheus-adapter answers.
    const V1BETA2: &str = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","metadata":{},"items":[
        {"describedObject":{"kind":"Pod","namespace":"shop","name":"web-1","apiVersion":"/v1"},
         "metric":{"name":"http_requests","selector":null},"timestamp":"2026-11-02T10:00:12Z","windowSeconds":30,"value":"1500m"},
        {"describedObject":{"kind":"Pod","namespace":"shop","name":"web-2","apiVersion":"/v1"},
         "metric":{"name":"http_requests","selector":{"matchLabels":{"verb":"GET"}}},"timestamp":null,"value":"2"}]}"#;
    const V1BETA1: &str = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta1","metadata":{},"items":[
        {"describedObject":{"kind":"Service","namespace":"shop","name":"web","apiVersion":"/v1"},
         "metricName":"http_requests","timestamp":"2026-11-02T10:00:12Z","window":30,"value":"-3","selector":null}]}"#;

    #[test]
    fn values_are_by_pod() {
        let sample = |value, taken: &str, window| PodSample {
            value,
            taken: taken.parse().expect("a time"),
            window: SignedDuration::from_secs(window),
        };
        let expected = BTreeMap::from([
            ("web-1".to_owned(), sample(1500, "2026-11-02T10:00:12Z", 30)),
            ("web-2".to_owned(), sample(2000, "1970-01-01T00:00:00Z", 60)),
        ]);
        assert_eq!(pod_samples(list(V1BETA2)), Ok(Samples::Pods(expected)));
        let expected = BTreeMap::from([("web".to_owned(), sample(-3000, "2026-11-02T10:00:12Z", 30))]);
        assert_eq!(pod_samples(list(V1BETA1)), Ok(Samples::Pods(expected)));
        for empty in [r#"{"items":[]}"#, r#"{"items":null}"#] {
            let none = Failure::Answered("no metrics returned from custom metrics API".to_owned());
            assert_eq!(pod_samples(list(empty)), Err(none));
        }
    }

    #[test]
    fn an_object_has_one_value() {
        assert_eq!(object_value(list(V1BETA1)), Ok(Samples::Value(-3000)));
        let told = |json| object_value(list(json)).expect_err("a failure").why();
        assert_eq!(
            told(V1BETA2),
            "unable to fetch metrics from custom metrics API: the custom metrics API server returned 2 results when we asked for exactly one"
        );
        assert!(told(r#"{"items":[]}"#).contains("returned 0 results"));
    }
}
