//! The client of the API server. Nothing that it does can hang: a connection, an answer and a stream each have their
//! limit.
//!
//! kube's own retry is off: it repeats what was answered with 429, 503 or 504 for minutes within one request, and the
//! caller learns nothing of it. Here a read is repeated once, after a moment; what else is refused reaches the caller
//! at once, with the time after which the server wants to be asked again ([`retry_after`]).
//!
//! What is repeated and by whom an answer was given is in `exchange.rs`, the limits to bodies are in `body.rs`, and
//! what comes in place of an answer is in `unanswered.rs`.

mod body;
mod exchange;
mod limits;
mod unanswered;

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
};
use tower::ServiceBuilder;

use exchange::Exchange;
pub use limits::Limits;
pub use unanswered::{Unanswered, retry_after, unanswered};

/// After this time without traffic the kernel asks whether the other end still lives, and asks again as often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often the kernel asks before it gives a connection up.
const KEEPALIVE_PROBES: u32 = 3;
/// A connection that nobody uses is closed after this time: what lies idle for long is what firewalls forget.
const IDLE: Duration = Duration::from_secs(30);

/// A client with the usual [`Limits`].
///
/// # Errors
/// When the configuration is wrong.
// A kube::Error is large, and this happens once.
#[allow(clippy::result_large_err)]
pub fn connect(config: Config) -> Result<Client, kube::Error> {
    connect_within(config, Limits::default())
}

/// A client with limits of its own.
///
/// # Errors
/// When the configuration is wrong, or names a proxy: kube's support for proxies is not built in.
#[allow(clippy::result_large_err)]
pub fn connect_within(config: Config, limits: Limits) -> Result<Client, kube::Error> {
    if let Some(proxy_url) = config.proxy_url.clone().map(Box::new) {
        return Err(kube::Error::ProxyProtocolDisabled { proxy_url, protocol_feature: "kube/http-proxy" });
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    // What was sent and is not acknowledged counts as well.
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(limits.answer));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(Some(limits.connect));
    // HTTP/1.1, as kube's connector offers no other: each watch has a connection of its own, and what hangs is closed
    // with it.
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .build(connector);
    let service = ServiceBuilder::new()
        .layer_fn(|inner| Exchange::new(inner, limits))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}
