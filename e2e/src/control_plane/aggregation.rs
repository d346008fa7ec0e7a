//! APIs that other programs on this host serve behind the API server.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::{
    ByteString,
    api::core::v1::Service,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, APIServiceStatus, ServiceReference},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams},
};
use serde_json::json;

use super::{ControlPlane, pki::Authority};
use crate::wait::eventually;

/// The namespace of the Services through which such APIs are found.
const NAMESPACE: &str = "kube-system";
/// How long an API may take to be reached.
const AVAILABLE_WITHIN: Duration = Duration::from_secs(60);

/// A group and version, and the name of the Service behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AggregatedApi<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) service: &'a str,
}

/// What a server behind the API server needs for TLS, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct ServingCertificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// The authority of the certificates of clients, the API server among them.
    pub(crate) client_authority: String,
}

impl ControlPlane {
    /// A certificate by which the API server knows the server of an API behind a Service.
    pub(crate) fn serving_certificate(&self, service: &str) -> Result<ServingCertificate> {
        let pair = self.authority.server(&[server_name(service), "localhost".to_owned()])?;
        Ok(ServingCertificate {
            certificate: pair.certificate,
            key: pair.key,
            client_authority: self.authority.certificate(),
        })
    }

    /// Makes an API that is served at a port of this host part of the Kubernetes API, and waits until it is available.
    pub(crate) async fn aggregate(&self, api: &AggregatedApi<'_>, port: u16) -> Result<()> {
        register(&self.client, &self.authority, api, port).await
    }

    /// Takes an API out of the Kubernetes API.
    pub(crate) async fn remove_aggregated(&self, api: &AggregatedApi<'_>) -> Result<()> {
        let services: Api<APIService> = Api::all(self.client());
        let name = format!("{}.{}", api.version, api.group);
        services.delete(&name, &Default::default()).await.with_context(|| format!("cannot remove {name}"))?;
        Ok(())
    }
}

/// The name that the API server expects in the certificate.
pub(crate) fn server_name(service: &str) -> String {
    format!("{service}.{NAMESPACE}.svc")
}

/// See [`ControlPlane::aggregate`].
pub(super) async fn register(client: &Client, authority: &Authority, api: &AggregatedApi<'_>, port: u16) -> Result<()> {
    let apply = PatchParams::apply("e2e").force();
    // A Service by address would need Endpoints, which may not be on the loopback address.
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": api.service},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    services
        .patch(api.service, &apply, &Patch::Apply(&service))
        .await
        .with_context(|| format!("cannot create the Service {}", api.service))?;

    let name = format!("{}.{}", api.version, api.group);
    let api_service = APIService {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        spec: Some(APIServiceSpec {
            ca_bundle: Some(ByteString(authority.certificate().into_bytes())),
            group: Some(api.group.to_owned()),
            version: Some(api.version.to_owned()),
            service: Some(ServiceReference {
                name: Some(api.service.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                port: Some(port.into()),
            }),
            group_priority_minimum: 100,
            // Newer versions come first: v1beta2 before v1beta1.
            version_priority: 100 + i32::from(api.version.bytes().last().unwrap_or_default()),
            insecure_skip_tls_verify: None,
        }),
        status: None,
    };
    let api_services: Api<APIService> = Api::all(client.clone());
    api_services
        .patch(&name, &apply, &Patch::Apply(&api_service))
        .await
        .with_context(|| format!("cannot create the APIService {name}"))?;
    let api_services = &api_services;
    eventually(&format!("{name} is available"), AVAILABLE_WITHIN, || {
        let name = name.clone();
        async move { available(api_services.get(&name).await?.status) }
    })
    .await
}

fn available(status: Option<APIServiceStatus>) -> Result<Option<()>> {
    let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.into_iter().find(|condition| condition.type_ == "Available") {
        Some(condition) if condition.status == "True" => Ok(Some(())),
        Some(condition) => bail!("{}", condition.message.unwrap_or_default()),
        None => Ok(None),
    }
}
