//! metrics.k8s.io: what pods use, as metrics-server and its like serve it.

use std::collections::BTreeMap;

use catamaran_autoscale::samples::{ResourceSample, Samples};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};
use kube::Client;
use serde::{Deserialize, Deserializer, de::Error};

use super::{
    api::{Question, get},
    failure::Failure,
    quantity::milli,
};

/// A PodMetricsList; Go writes an empty list as null.
#[derive(Deserialize)]
struct PodMetricsList {
    #[serde(default)]
    items: Option<Vec<PodUsage>>,
}

/// A PodMetrics, as far as it is needed: all resources of one pod.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct PodUsage {
    metadata: Metadata,
    #[serde(default)]
    timestamp: Option<Time>,
    #[serde(deserialize_with = "go_duration")]
    window: SignedDuration,
    #[serde(default)]
    containers: Option<Vec<ContainerUsage>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct ContainerUsage {
    name: String,
    #[serde(default)]
    usage: Option<BTreeMap<String, Quantity>>,
}

/// A metav1.Duration, such as `15.012s` or `1m0s`.
fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| D::Error::custom(format!("{text:?} is no duration: {error}")))
}

/// What the pods that a selector matches use.
///
/// Errors: in the words of the HPA's client; an empty list is one of them.
pub(super) async fn pod_usage(client: &Client, namespace: &str, selector: &str) -> Result<Vec<PodUsage>, Failure> {
    let question = Question {
        group: "metrics.k8s.io",
        version: "v1beta1",
        namespace,
        path: &["pods"],
        parameters: &[("labelSelector", selector)],
    };
    let list: PodMetricsList = get(client, &question)
        .await
        .map_err(|refused| refused.failure.within("unable to fetch metrics from resource metrics API"))?;
    match list.items {
        Some(items) if !items.is_empty() => Ok(items),
        Some(_) | None => Err(Failure::Answered("no metrics returned from resource metrics API".to_owned())),
    }
}

/// The samples of one resource (`cpu`, `memory`) by pod.
///
/// Errors: a quantity cannot be read.
pub(super) fn samples(pods: &[PodUsage], resource: &str) -> Result<Samples, Failure> {
    let sample = |pod: &PodUsage| {
        let containers = pod
            .containers
            .iter()
            .flatten()
            .map(|container| {
                let usage = container.usage.as_ref().and_then(|usage| usage.get(resource));
                Ok((container.name.clone(), usage.map(milli).transpose()?))
            })
            .collect::<Result<_, Failure>>()?;
        // Without a time the sample is as old as can be.
        let taken = pod.timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        Ok((pod.metadata.name.clone(), ResourceSample { containers, taken, window: pod.window }))
    };
    pods.iter().map(sample).collect::<Result<_, _>>().map(Samples::Resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Vec<PodUsage> {
        serde_json::from_str::<PodMetricsList>(json).expect("a PodMetricsList").items.unwrap_or_default()
    }

    /// As metrics-server v0.9.0 answers.
    const USAGE: &str = r#"{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[
        {"metadata":{"name":"web-1","namespace":"shop","creationTimestamp":"2026-11-02T10:00:20Z","labels":{"app":"web"}},
         "timestamp":"2026-11-02T10:00:12Z","window":"15.012s",
         "containers":[{"name":"main","usage":{"cpu":"250123456n","memory":"12345Ki"}},{"name":"proxy","usage":{"memory":"1Mi"}}]},
        {"metadata":{"name":"web-2","namespace":"shop","creationTimestamp":null},"timestamp":null,"window":"1m0s","containers":null},
        {"metadata":{"name":"web-3"},"timestamp":"2026-11-02T10:00:12.5Z","window":"0s","containers":[{"name":"main","usage":null}]}]}"#;

    #[test]
    fn usage_is_by_pod_and_container() {
        let pods = list(USAGE);
        let Ok(Samples::Resource(cpu)) = samples(&pods, "cpu") else { panic!("no samples") };
        let web = &cpu["web-1"];
        assert_eq!(web.containers, BTreeMap::from([("main".to_owned(), Some(251)), ("proxy".to_owned(), None)]));
        assert_eq!(web.taken.to_string(), "2026-11-02T10:00:12Z");
        assert_eq!(web.window, SignedDuration::from_millis(15_012));
        assert_eq!(cpu["web-2"].containers, BTreeMap::new());
        assert_eq!(cpu["web-2"].taken, Timestamp::UNIX_EPOCH);
        assert_eq!(cpu["web-2"].window, SignedDuration::from_secs(60));
        assert_eq!(cpu["web-3"].containers, BTreeMap::from([("main".to_owned(), None)]));

        let Ok(Samples::Resource(memory)) = samples(&pods, "memory") else { panic!("no samples") };
        assert_eq!(
            memory["web-1"].containers,
            BTreeMap::from([("main".to_owned(), Some(12_641_280_000)), ("proxy".to_owned(), Some(1_048_576_000))])
        );
    }

    #[test]
    fn a_wrong_quantity_is_no_sample() {
        let pods = list(
            r#"{"items":[{"metadata":{"name":"a"},"window":"1s","containers":[{"name":"c","usage":{"cpu":"lots","memory":"1"}}]}]}"#,
        );
        assert!(samples(&pods, "cpu").is_err());
        assert!(samples(&pods, "memory").is_ok());
    }

    #[test]
    fn durations_are_those_of_go() {
        let read = |text: &str| {
            let json = format!(r#"{{"items":[{{"metadata":{{"name":"a"}},"window":"{text}"}}]}}"#);
            serde_json::from_str::<PodMetricsList>(&json).ok().and_then(|list| Some(list.items?.first()?.window))
        };
        for (text, milliseconds) in [
            ("0s", 0),
            ("15s", 15_000),
            ("15.012s", 15_012),
            ("1m0s", 60_000),
            ("1m30.5s", 90_500),
            ("1h0m0s", 3_600_000),
            ("500ms", 500),
            ("1.5ms", 1),
            ("-1s", -1000),
        ] {
            assert_eq!(read(text).map(|window| window.as_millis()), Some(milliseconds), "{text}");
        }
        for text in ["", "fast", "15", "99999999999999999999999h", "NaNs", "1e300h"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
