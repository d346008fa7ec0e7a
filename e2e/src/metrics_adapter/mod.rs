//! An adapter for custom.metrics.k8s.io and external.metrics.k8s.io with values that tests set.
//!
//! What it answers is formed as by adapters built on `sigs.k8s.io/custom-metrics-apiserver` (prometheus-adapter, KEDA):
//! members, their order of nesting, and the errors for what is not there. Like them it finds pods by asking the API
//! server with the selector it was given. It runs in the test process, and only the API server reaches it.

mod answers;
mod routes;
mod values;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use kube::Client;
use tokio::task::JoinHandle;

use crate::{
    control_plane::{AggregatedApi, ControlPlane},
    tls::{TlsListener, server_config},
};
use values::{Labels, ObjectMetric, Values};

/// The group of metrics of objects in the cluster.
const CUSTOM: &str = "custom.metrics.k8s.io";
/// The group of metrics of things outside of it.
const EXTERNAL: &str = "external.metrics.k8s.io";
/// The Service behind which the API server finds it.
const SERVICE: &str = "metrics-adapter";

/// The versions of custom.metrics.k8s.io under which an adapter is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomVersions {
    /// v1beta1 alone, as older adapters do.
    V1Beta1,
    /// v1beta1 and v1beta2.
    Both,
}

impl CustomVersions {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::V1Beta1 => &["v1beta1"],
            Self::Both => &["v1beta2", "v1beta1"],
        }
    }
}

/// A running adapter; it ends when it is dropped, but stays registered.
pub struct MetricsAdapter {
    values: Arc<Mutex<Values>>,
    server: JoinHandle<()>,
    port: u16,
}

/// What the routes look at.
#[derive(Clone)]
struct Shared {
    values: Arc<Mutex<Values>>,
    client: Client,
}

impl MetricsAdapter {
    /// Starts an adapter without any values and makes it part of the Kubernetes API.
    ///
    /// # Errors
    /// When the API server does not reach it.
    pub async fn start(control_plane: &ControlPlane, custom: CustomVersions) -> Result<Self> {
        let keys = control_plane.serving_certificate(SERVICE)?;
        let listener =
            TlsListener::bind(server_config(&keys.certificate, &keys.key, Some(&keys.client_authority))?).await?;
        let port = listener.port();
        let values = Arc::new(Mutex::new(Values::default()));
        let shared = Shared { values: values.clone(), client: control_plane.client() };
        let router = routes::router(shared);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the metrics adapter ended");
            }
        });
        let adapter = Self { values, server, port };
        for version in custom.names() {
            let api = AggregatedApi { group: CUSTOM, version, service: SERVICE };
            control_plane.aggregate(&api, port).await?;
        }
        let api = AggregatedApi { group: EXTERNAL, version: "v1beta1", service: SERVICE };
        control_plane.aggregate(&api, port).await?;
        Ok(adapter)
    }

    /// Takes an API of it out of the Kubernetes API, such as `custom.metrics.k8s.io` `v1beta2`.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn withdraw(&self, control_plane: &ControlPlane, group: &str, version: &str) -> Result<()> {
        control_plane.remove_aggregated(&AggregatedApi { group, version, service: SERVICE }).await
    }

    /// Makes an API part of the Kubernetes API again.
    ///
    /// # Errors
    /// When the API server does not reach it.
    pub async fn register(&self, control_plane: &ControlPlane, group: &str, version: &str) -> Result<()> {
        control_plane.aggregate(&AggregatedApi { group, version, service: SERVICE }, self.port).await
    }

    /// Sets a metric of an object, as a quantity. `resource`: `pods`, `services`, `deployments.apps`; for a metric of
    /// the namespace itself `namespaces`.
    pub fn set_object(&self, namespace: &str, resource: &str, name: &str, metric: &str, quantity: &str) {
        self.set_object_series(namespace, resource, name, metric, &[], quantity);
    }

    /// The same for a series with labels, for metric selectors.
    pub fn set_object_series(
        &self,
        namespace: &str,
        resource: &str,
        name: &str,
        metric: &str,
        labels: &[(&str, &str)],
        quantity: &str,
    ) {
        let object = ObjectMetric {
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            metric: metric.to_owned(),
        };
        self.values().objects.entry(object).or_default().insert(labels_of(labels), quantity.to_owned());
    }

    /// Sets one series of an external metric, as a quantity.
    pub fn set_external(&self, namespace: &str, metric: &str, labels: &[(&str, &str)], quantity: &str) {
        let key = (namespace.to_owned(), metric.to_owned());
        self.values().external.entry(key).or_default().insert(labels_of(labels), quantity.to_owned());
    }

    /// Removes all series of an external metric.
    pub fn remove_external(&self, namespace: &str, metric: &str) {
        self.values().external.remove(&(namespace.to_owned(), metric.to_owned()));
    }

    /// Removes everything.
    pub fn clear(&self) {
        *self.values() = Values::default();
    }

    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MetricsAdapter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn labels_of(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
