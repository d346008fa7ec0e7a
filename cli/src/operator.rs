//! The operator, asked through the API server's proxy to its Service, or directly at a URL.

use std::time::Duration;

use clap::Args;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Status};
use kube::{Api, Client, Config, ResourceExt, api::ListParams};

use crate::connection::{ConnectionArguments, describe};

/// The label by which the operator's Service is found.
const LABEL: &str = "app.kubernetes.io/name=catamaran";
/// The name of its port for such questions.
const PORT: &str = "http";
/// Where the operator is by its documentation, for users who may not list Services.
const USUAL: (&str, &str) = ("catamaran-system", "catamaran-metrics");
/// The longest answer that is read.
const LONGEST_ANSWER: usize = 16 << 20;

/// Where the operator is.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Operator")]
pub struct OperatorArguments {
    /// Ask the operator at this URL and not through the API server, for example by `kubectl port-forward`
    #[arg(long, value_name = "URL", env = "CATAMARAN_OPERATOR_URL")]
    operator_url: Option<Uri>,
    /// The namespace of the operator; looked for when absent
    #[arg(long, value_name = "NAME", env = "CATAMARAN_OPERATOR_NAMESPACE")]
    operator_namespace: Option<String>,
    /// The operator's Service in front of its HTTP port; looked for when absent
    #[arg(long, value_name = "NAME", env = "CATAMARAN_OPERATOR_SERVICE")]
    operator_service: Option<String>,
}

/// Why the operator gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is no such Service.
    #[error(
        "no operator found: there is no Service with the label {LABEL} and a port named {PORT}; install Catamaran, or name the Service by --operator-namespace and --operator-service"
    )]
    NoOperator,
    /// There are several.
    #[error("several operators found ({0}); choose one by --operator-namespace and --operator-service")]
    Several(String),
    /// The named Service does not exist.
    #[error("no operator found: {0}; name its Service by --operator-namespace and --operator-service")]
    NoService(String),
    /// RBAC says no.
    #[error(
        "not allowed to ask the operator: {message}; have the Role {service}-plugin of namespace {namespace} bound to you, or use `kubectl port-forward` and --operator-url (docs/kubectl-plugin.md)"
    )]
    Forbidden {
        /// The API server's words.
        message: String,
        /// The operator's namespace.
        namespace: String,
        /// The operator's full name.
        service: String,
    },
    /// The credentials are not accepted.
    #[error("the API server does not accept the credentials of the kubeconfig: {0}")]
    Unauthorized(String),
    /// No operator pod answers.
    #[error("the operator does not answer: {message}; look at `kubectl get pods --namespace {namespace}`")]
    NotRunning {
        /// The words of whoever says so.
        message: String,
        /// The operator's namespace.
        namespace: String,
    },
    /// The operator has no such workload.
    #[error("{0}; see `kubectl get elasticworkloads --all-namespaces`")]
    NoWorkload(String),
    /// The path is unknown to it.
    #[error("the operator does not know this question; it is older than this plugin")]
    Older,
    /// Anything else that was answered.
    #[error("{code}: {message}")]
    Refused {
        /// The HTTP status.
        code: StatusCode,
        /// The words with it.
        message: String,
    },
    /// The connection failed.
    #[error("{place} cannot be reached: {message}")]
    Unreachable {
        /// What cannot be reached.
        place: String,
        /// Why.
        message: String,
    },
    /// The answer is too long or breaks off.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// The way to an operator.
pub struct Operator {
    client: Client,
    route: Route,
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Direct { url: String },
    Proxy { namespace: String, service: String },
}

/// What can go wrong on the way to the first question.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// No client.
    #[error(transparent)]
    NoClient(#[from] crate::connection::NoClient),
    /// No operator.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl OperatorArguments {
    /// Finds the operator. With a URL the API server is not asked, and gets no say in who may.
    ///
    /// # Errors
    /// When there is none.
    pub async fn find(&self, client: &Client) -> Result<Operator, Unanswered> {
        if let Some(url) = &self.operator_url {
            let unreachable =
                |message: String| Unanswered::Unreachable { place: format!("the operator at {url}"), message };
            let mut config = Config::new(url.clone());
            config.connect_timeout = Some(Duration::from_secs(10));
            config.read_timeout = Some(Duration::from_secs(30));
            config.default_retry = false;
            let client = Client::try_from(config).map_err(|error| unreachable(describe(&error)))?;
            return Ok(Operator { client, route: Route::Direct { url: url.to_string() } });
        }
        let route = match (&self.operator_namespace, &self.operator_service) {
            (namespace, Some(service)) => Route::Proxy {
                namespace: namespace.clone().unwrap_or_else(|| USUAL.0.to_owned()),
                service: service.clone(),
            },
            (namespace, None) => look_for(client, namespace.as_deref()).await?,
        };
        Ok(Operator { client: client.clone(), route })
    }

    /// The client for the namespace of the context, and the operator.
    ///
    /// # Errors
    /// When there is no client or no operator.
    pub async fn connect(&self, connection: &ConnectionArguments) -> Result<(Client, Operator), NotFound> {
        let client = connection.client().await?;
        let operator = self.find(&client).await?;
        Ok((client, operator))
    }
}

/// Looks for the operator's Service.
async fn look_for(client: &Client, namespace: Option<&str>) -> Result<Route, Unanswered> {
    let services: Api<Service> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match services.list(&ListParams::default().labels(LABEL)).await {
        Ok(list) => choose(&list.items),
        // Who may not list Services may still be allowed to use this one.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Ok(Route::Proxy { namespace: namespace.unwrap_or(USUAL.0).to_owned(), service: USUAL.1.to_owned() })
        }
        Err(kube::Error::Api(status)) if status.code == 401 => Err(Unanswered::Unauthorized(status.message)),
        Err(error) => Err(Unanswered::Unreachable { place: "the API server".to_owned(), message: describe(&error) }),
    }
}

fn choose(services: &[Service]) -> Result<Route, Unanswered> {
    let has_port = |service: &&Service| {
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.into_iter().any(|port| port.name.as_deref() == Some(PORT))
    };
    let mut found: Vec<(String, String)> = services
        .iter()
        .filter(has_port)
        .map(|service| (service.namespace().unwrap_or_default(), service.name_any()))
        .collect();
    found.sort();
    match found.as_slice() {
        [] => Err(Unanswered::NoOperator),
        [(namespace, service)] => Ok(Route::Proxy { namespace: namespace.clone(), service: service.clone() }),
        several => {
            let names = several.iter().map(|(namespace, service)| format!("{namespace}/{service}"));
            Err(Unanswered::Several(names.collect::<Vec<_>>().join(", ")))
        }
    }
}

impl Operator {
    /// Whether each question goes to the same replica of the operator.
    #[must_use]
    pub fn is_one(&self) -> bool {
        matches!(self.route, Route::Direct { .. })
    }

    /// Asks for a path such as `/usage`; the answer as text.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn get(&self, path: &str) -> Result<String, Unanswered> {
        let prefix = match &self.route {
            Route::Direct { .. } => String::new(),
            Route::Proxy { namespace, service } => {
                format!("/api/v1/namespaces/{namespace}/services/http:{service}:{PORT}/proxy")
            }
        };
        let request = Request::get(format!("{prefix}{path}")).body(kube::client::Body::empty());
        let request = request.map_err(|error| Unanswered::Unreadable(error.to_string()))?;
        let response = self.client.send(request).await.map_err(|error| self.unreachable(describe(&error)))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Unanswered::Unreadable(error.to_string()))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if code.is_success() { Ok(text) } else { Err(self.route.refusal(code, &text)) }
    }

    fn unreachable(&self, message: String) -> Unanswered {
        let place = match &self.route {
            Route::Direct { url } => format!("the operator at {url}"),
            Route::Proxy { .. } => "the API server".to_owned(),
        };
        Unanswered::Unreachable { place, message }
    }
}

impl Route {
    /// What an answer that is no success means: it is the operator's, or the API server's on the way.
    fn refusal(&self, code: StatusCode, body: &str) -> Unanswered {
        let status: Option<Status> = serde_json::from_str(body).ok();
        let kind = status.as_ref().and_then(|status| status.details.as_ref()?.kind.clone()).unwrap_or_default();
        let message = status.and_then(|status| status.message).unwrap_or_else(|| {
            let line = body.lines().next().unwrap_or_default().trim();
            if line.is_empty() { code.to_string() } else { line.chars().take(200).collect() }
        });
        let namespace = match self {
            Self::Direct { .. } => USUAL.0.to_owned(),
            Self::Proxy { namespace, .. } => namespace.clone(),
        };
        match (code, self) {
            (StatusCode::NOT_FOUND, _) if kind == "elasticworkloads" => Unanswered::NoWorkload(message),
            (StatusCode::NOT_FOUND, Self::Proxy { .. }) if kind == "services" => Unanswered::NoService(message),
            (StatusCode::NOT_FOUND, _) => Unanswered::Older,
            (StatusCode::FORBIDDEN, Self::Proxy { service, .. }) => Unanswered::Forbidden {
                message,
                namespace,
                service: service.strip_suffix("-metrics").unwrap_or(service).to_owned(),
            },
            (StatusCode::UNAUTHORIZED, Self::Proxy { .. }) => Unanswered::Unauthorized(message),
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT, _) => {
                Unanswered::NotRunning { message, namespace }
            }
            (code, Self::Direct { .. } | Self::Proxy { .. }) => Unanswered::Refused { code, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, port: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name}, "spec": {"ports": [{"name": port, "port": 8080}]},
        }))
        .expect("a Service")
    }

    fn proxy() -> Route {
        Route::Proxy { namespace: "system".to_owned(), service: "cat-metrics".to_owned() }
    }

    #[test]
    fn the_service_with_the_port_is_chosen() {
        let usage = service("system", "cat-usage", "usage");
        let http = service("system", "cat-metrics", "http");
        assert_eq!(choose(&[usage.clone(), http.clone()]).ok(), Some(proxy()));
        let told = |services: &[Service]| choose(services).expect_err("none is chosen").to_string();
        insta::assert_snapshot!(told(&[usage]), @"no operator found: there is no Service with the label app.kubernetes.io/name=catamaran and a port named http; install Catamaran, or name the Service by --operator-namespace and --operator-service");
        insta::assert_snapshot!(told(&[http, service("other", "cat-metrics", "http")]), @"several operators found (other/cat-metrics, system/cat-metrics); choose one by --operator-namespace and --operator-service");
    }

    #[test]
    fn refusals_tell_the_way_out() {
        let body = |kind: &str, message: &str| {
            json!({"kind": "Status", "message": message, "details": {"kind": kind}}).to_string()
        };
        let direct = Route::Direct { url: "http://localhost:8080".to_owned() };
        let told = |route: &Route, code: StatusCode, body: &str| route.refusal(code, body).to_string();
        let lines = [
            told(
                &proxy(),
                StatusCode::FORBIDDEN,
                &body("services", "services \"http:cat-metrics:http\" is forbidden: User \"eve\" cannot get resource"),
            ),
            told(&proxy(), StatusCode::NOT_FOUND, &body("services", "services \"cat-metrics\" not found")),
            told(
                &proxy(),
                StatusCode::NOT_FOUND,
                &body("elasticworkloads", "the operator knows no ElasticWorkload web in namespace shop"),
            ),
            told(&proxy(), StatusCode::NOT_FOUND, ""),
            told(
                &proxy(),
                StatusCode::SERVICE_UNAVAILABLE,
                &body("", "no endpoints available for service \"cat-metrics\""),
            ),
            told(&proxy(), StatusCode::UNAUTHORIZED, &body("", "Unauthorized")),
            told(&direct, StatusCode::FORBIDDEN, "<html>\nno"),
            told(&direct, StatusCode::INTERNAL_SERVER_ERROR, ""),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }
}
