//! What workloads ask of metric sources.

use k8s_openapi::{
    api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::Selector;

use super::{custom::ObjectName, failure::Failure, prometheus::BaseUrl, secrets::StoredKey};

/// One metric of a workload, to be asked for again and again. It is always one of the workload's own namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// What pods use of a resource, from metrics.k8s.io; for Resource and ContainerResource metrics.
    Resource {
        /// The pods.
        selector: LabelSelector,
        /// `cpu` or `memory`.
        name: String,
    },
    /// A metric of each pod, from custom.metrics.k8s.io.
    Pods {
        /// The pods.
        selector: LabelSelector,
        /// The metric.
        metric: MetricIdentifier,
    },
    /// A metric of one object, from custom.metrics.k8s.io.
    Object {
        /// The object.
        described_object: CrossVersionObjectReference,
        /// The metric.
        metric: MetricIdentifier,
    },
    /// A metric of something outside of the cluster, from external.metrics.k8s.io.
    External {
        /// The metric.
        metric: MetricIdentifier,
    },
    /// An instant query of Prometheus.
    Prometheus(PrometheusMetric),
}

/// An instant query of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusMetric {
    /// The base URL, such as `https://prometheus.monitoring.svc:9090`.
    pub url: String,
    /// PromQL that gives one number.
    pub query: String,
    /// The key of a Secret that holds the authorities that the server's certificate must come from, in PEM; those of
    /// the operator's host when absent.
    pub ca: Option<KeyOf>,
    /// The key of a Secret that holds a bearer token.
    pub bearer_token: Option<KeyOf>,
}

/// A key of a Secret of the workload's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOf {
    /// The name of the Secret.
    pub name: String,
    /// The key in its data.
    pub key: String,
}

/// One request, as often as it is sent. Workloads of a namespace with equal requests share it and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    /// The namespace of the workloads that ask: whose turn it is, and what it is about.
    pub(super) namespace: String,
    pub(super) source: Source,
}

/// What is sent where, in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// All resources at once.
    PodUsage {
        selector: String,
    },
    Pods {
        selector: String,
        metric: String,
        metric_selector: String,
    },
    Object {
        object: ObjectName,
        metric: String,
        metric_selector: String,
    },
    External {
        metric: String,
        metric_selector: String,
    },
    Prometheus {
        url: BaseUrl,
        query: String,
        ca: Option<StoredKey>,
        bearer_token: Option<StoredKey>,
    },
}

impl Metric {
    /// The request for a workload of a namespace.
    ///
    /// Errors: a selector or URL in it is wrong.
    pub(super) fn request(&self, namespace: &str) -> Result<Request, Failure> {
        let source = match self {
            Metric::Resource { selector, name: _ } => Source::PodUsage { selector: text_of(Some(selector))? },
            Metric::Pods { selector, metric } => Source::Pods {
                selector: text_of(Some(selector))?,
                metric: metric.name.clone(),
                metric_selector: text_of(metric.selector.as_ref())?,
            },
            Metric::Object { described_object, metric } => Source::Object {
                object: object_name(described_object),
                metric: metric.name.clone(),
                metric_selector: text_of(metric.selector.as_ref())?,
            },
            Metric::External { metric } => {
                Source::External { metric: metric.name.clone(), metric_selector: text_of(metric.selector.as_ref())? }
            }
            Metric::Prometheus(PrometheusMetric { url, query, ca, bearer_token }) => {
                let stored = |KeyOf { name, key }: &KeyOf| StoredKey {
                    namespace: namespace.to_owned(),
                    name: name.clone(),
                    key: key.clone(),
                };
                Source::Prometheus {
                    url: url.parse::<BaseUrl>().map_err(|error| Failure::Answered(error.to_string()))?,
                    query: query.clone(),
                    ca: ca.as_ref().map(stored),
                    bearer_token: bearer_token.as_ref().map(stored),
                }
            }
        };
        Ok(Request { namespace: namespace.to_owned(), source })
    }

    /// The resource that is taken from the answer, when the request is for all resources.
    pub(super) fn resource(&self) -> Option<&str> {
        match self {
            Metric::Resource { name, .. } => Some(name),
            Metric::Pods { .. } | Metric::Object { .. } | Metric::External { .. } | Metric::Prometheus(_) => None,
        }
    }
}

/// The group of an `apiVersion` is what comes before its slash.
fn object_name(object: &CrossVersionObjectReference) -> ObjectName {
    let api_version = object.api_version.as_deref().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    ObjectName { group: group.to_owned(), kind: object.kind.clone(), name: object.name.clone() }
}

/// A selector as a parameter; none selects everything, as in the requests of the HPA.
fn text_of(selector: Option<&LabelSelector>) -> Result<String, Failure> {
    let Some(selector) = selector else { return Ok(String::new()) };
    let wrong = |why: String| Failure::Answered(format!("invalid selector: {why}"));
    let labels = selector.match_labels.iter().flatten().flat_map(|(key, value)| [key, value]);
    let expressions = selector.match_expressions.iter().flatten();
    let words = expressions.flat_map(|e| std::iter::once(&e.key).chain(e.values.iter().flatten()));
    // In a parameter, a comma or a bracket would make another selector of it.
    if let Some(word) = labels.chain(words).find(|word| !is_label(word)) {
        return Err(wrong(format!("{:?} is no key or value of a label", super::failure::shorten(word))));
    }
    let selector = Selector::try_from(selector.clone()).map_err(|error| wrong(error.to_string()))?;
    Ok(selector.to_string())
}

fn is_label(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn selector(labels: &[(&str, &str)], expressions: &[(&str, &str, &[&str])]) -> LabelSelector {
        let requirement = |(key, operator, values): &(&str, &str, &[&str])| LabelSelectorRequirement {
            key: (*key).to_owned(),
            operator: (*operator).to_owned(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        LabelSelector {
            match_labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            match_expressions: Some(expressions.iter().map(requirement).collect()),
        }
    }

    #[test]
    fn selectors_become_parameters() {
        let text = |selector: &LabelSelector| text_of(Some(selector)).map_err(|failure| failure.why());
        assert_eq!(text_of(None).ok().as_deref(), Some(""));
        assert_eq!(text(&LabelSelector::default()).as_deref(), Ok(""));
        let full = selector(
            &[("b", "2"), ("app.kubernetes.io/name", "web")],
            &[
                ("tier", "In", &["y", "x"]),
                ("env", "NotIn", &["dev"]),
                ("a", "Exists", &[]),
                ("z", "DoesNotExist", &[]),
            ],
        );
        assert_eq!(text(&full).as_deref(), Ok("app.kubernetes.io/name=web,b=2,tier in (x,y),env notin (dev),a,!z"));
        assert_eq!(
            text(&selector(&[("app", "web,tier=db")], &[])).as_deref(),
            Err(&"invalid selector: \"web,tier=db\" is no key or value of a label".to_owned())
        );
        assert!(text(&selector(&[], &[("a", "In", &["b)"])])).is_err());
        assert!(text(&selector(&[], &[("a", "Near", &["b"])])).is_err());
    }

    #[test]
    fn equal_questions_are_one_request() {
        let usage = |name: &str| Metric::Resource { selector: selector(&[("app", "web")], &[]), name: name.to_owned() };
        assert_eq!(usage("cpu").request("shop"), usage("memory").request("shop"));
        assert_ne!(usage("cpu").request("shop"), usage("cpu").request("other"));
    }

    #[test]
    fn the_group_of_an_object_is_in_its_api_version() {
        for (api_version, group) in
            [(None, ""), (Some("v1"), ""), (Some("networking.k8s.io/v1"), "networking.k8s.io"), (Some(""), "")]
        {
            let object = CrossVersionObjectReference {
                api_version: api_version.map(str::to_owned),
                kind: "Kind".to_owned(),
                name: "name".to_owned(),
            };
            assert_eq!(object_name(&object).group, group, "{api_version:?}");
        }
    }

    #[test]
    fn keys_are_of_the_own_namespace() {
        let key = || KeyOf { name: "prometheus".to_owned(), key: "token".to_owned() };
        let metric = Metric::Prometheus(PrometheusMetric {
            url: "https://prometheus".to_owned(),
            query: "up".to_owned(),
            ca: Some(key()),
            bearer_token: Some(key()),
        });
        let request = metric.request("shop");
        let Ok(Request { source: Source::Prometheus { ca: Some(ca), bearer_token: Some(token), .. }, .. }) = request
        else {
            panic!("{request:?}")
        };
        assert_eq!((ca.namespace.as_str(), token.namespace.as_str()), ("shop", "shop"));
    }
}
