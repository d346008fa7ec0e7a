//! The paths of the two APIs.

use std::sync::PoisonError;

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use super::{
    CUSTOM, CustomVersions, EXTERNAL, Shared,
    answers::{ObjectValue, custom_list, external_list, group, no_metric, no_metric_for, ok, resources, status},
    values::{MetricSelector, ObjectMetric, Values},
};

/// The adapter's paths.
pub(super) fn router(shared: Shared) -> Router {
    // Which of them are asked is decided by what is registered.
    let groups = [(CUSTOM, CustomVersions::Both.names()), (EXTERNAL, &["v1beta1"][..])];
    let mut router = Router::new()
        .route("/apis/custom.metrics.k8s.io/{version}/namespaces/{namespace}/{resource}/{name}/{metric}", get(object))
        .route("/apis/custom.metrics.k8s.io/{version}/namespaces/{namespace}/metrics/{metric}", get(namespace))
        .route("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}", get(external));
    let list = json!({
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": groups.iter().map(|(name, versions)| group(name, versions)).collect::<Vec<_>>(),
    });
    router = router.route("/apis", get(move || async move { ok(&list) }));
    for (name, versions) in groups {
        let told = group(name, versions);
        router = router.route(&format!("/apis/{name}"), get(move || async move { ok(&told) }));
        for version in versions {
            router =
                router.route(&format!("/apis/{name}/{version}"), get(move |shared| discover(name, version, shared)));
        }
    }
    router.with_state(shared)
}

/// The resources of a version are its metrics.
async fn discover(name: &'static str, version: &'static str, State(shared): State<Shared>) -> Response {
    let names: Vec<String> = read(&shared, |values| {
        let mut names: Vec<String> = if name == EXTERNAL {
            values.external.keys().map(|(_, metric)| metric.clone()).collect()
        } else {
            values.objects.keys().map(|object| format!("{}/{}", object.resource, object.metric)).collect()
        };
        names.sort();
        names.dedup();
        names
    });
    ok(&resources(name, version, &names))
}

async fn object(
    State(shared): State<Shared>,
    Path((version, namespace, resource, name, metric)): Path<(String, String, String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let parameters = Parameters::read(query);
    let selector = match MetricSelector::parse(&parameters.metric_selector) {
        Ok(selector) => selector,
        Err(error) => return status(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
    };
    let (names, one) = match (name.as_str(), resource.as_str()) {
        ("*", "pods") => {
            let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &namespace);
            match pods.list(&ListParams::default().labels(&parameters.labels)).await {
                Ok(pods) => (pods.iter().map(ResourceExt::name_any).collect(), false),
                Err(error) => return status(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
            }
        }
        ("*", _) => return status(StatusCode::BAD_REQUEST, "BadRequest", "this adapter lists pods only"),
        _ => (vec![name], true),
    };
    let values = read(&shared, Values::clone);
    if !values.knows(&namespace, &resource, &metric) {
        return no_metric(&metric, &resource);
    }
    let mut found = Vec::new();
    for name in &names {
        let object = ObjectMetric {
            namespace: namespace.clone(),
            resource: resource.clone(),
            name: name.clone(),
            metric: metric.clone(),
        };
        let (namespace, resource, metric, selector_text) =
            (&namespace, &resource, &metric, &parameters.metric_selector);
        let value = |quantity| ObjectValue { namespace, resource, name, metric, selector: selector_text, quantity };
        found.extend(values.of_object(&object, &selector).into_iter().map(value));
    }
    match (found.is_empty(), names.as_slice()) {
        (true, [name]) if one => no_metric_for(&metric, &resource, name),
        _ => ok(&custom_list(&version, &found)),
    }
}

/// Metrics of the namespace itself.
async fn namespace(
    State(shared): State<Shared>,
    Path((version, namespace, metric)): Path<(String, String, String)>,
    query: RawQuery,
) -> Response {
    let name = namespace.clone();
    object(State(shared), Path((version, namespace, "namespaces".to_owned(), name, metric)), query).await
}

async fn external(
    State(shared): State<Shared>,
    Path((namespace, metric)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let selector = match MetricSelector::parse(&Parameters::read(query).labels) {
        Ok(selector) => selector,
        Err(error) => return status(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()),
    };
    read(&shared, |values| match values.external.get(&(namespace, metric.clone())) {
        Some(series) => {
            let taken: Vec<_> = series.iter().filter(|(labels, _)| selector.takes(labels)).collect();
            ok(&external_list(&metric, &taken))
        }
        None => no_metric(&metric, "external"),
    })
}

fn read<T>(shared: &Shared, look: impl FnOnce(&Values) -> T) -> T {
    look(&shared.values.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The parameters of a request.
#[derive(Default)]
struct Parameters {
    labels: String,
    metric_selector: String,
}

impl Parameters {
    fn read(query: Option<String>) -> Self {
        let mut parameters = Self::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "labelSelector" => parameters.labels = value.into_owned(),
                "metricLabelSelector" => parameters.metric_selector = value.into_owned(),
                _ => {}
            }
        }
        parameters
    }
}
