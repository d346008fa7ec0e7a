//! Instant queries of the Prometheus HTTP API: one number for one query.

mod answer;
mod client;
mod policy;
mod url;

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::client::legacy::ResponseFuture;
use secrecy::{ExposeSecret, SecretString};

pub use policy::{Forbidden, PrometheusSettings};
pub use url::{BaseUrl, NotABaseUrl, UrlPrefix};

use super::failure::{Failure, chain};
use client::Clients;

/// The longest answer that is read: one number needs a hundred bytes, and a query that gives thousands of series is a mistake anyhow.
const LONGEST_ANSWER: usize = 1 << 20;
/// The endpoint of instant queries.
const ENDPOINT: &str = "/api/v1/query";

/// One instant query.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstantQuery<'a> {
    /// The server.
    pub(super) url: &'a BaseUrl,
    /// PromQL that gives a scalar, or a vector of one element.
    pub(super) query: &'a str,
    /// The authorities that the server's certificate must come from, in PEM; those of the host when absent.
    pub(super) ca: Option<&'a Arc<[u8]>>,
    /// Sent as `Authorization: Bearer`.
    pub(super) bearer_token: Option<&'a SecretString>,
}

/// Asks Prometheus servers.
pub(super) struct Prometheus {
    settings: Arc<PrometheusSettings>,
    clients: Clients,
}

impl Prometheus {
    /// With an administrator's settings.
    pub(super) fn new(settings: PrometheusSettings) -> Self {
        let settings = Arc::new(settings);
        Self { clients: Clients::new(settings.clone()), settings }
    }

    /// Asks; the value in thousandths. Redirects are not followed: a query and its token go where the URL says, or nowhere.
    ///
    /// Errors: the URL may not be asked, or the server does not answer with one finite value. The caller limits the time.
    pub(super) async fn ask(&self, query: &InstantQuery<'_>) -> Result<i64, Refused> {
        self.settings.check_url(query.url).map_err(|why| Failure::Answered(why.to_string()))?;
        let client = self.clients.trusting(query.ca, query.url.is_https())?;
        let (head, body) = read(client.request(request(query)?)).await?;
        match head.status {
            code if code.is_redirection() => {
                let location = head.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
                Err(Failure::Answered(redirected(code, location)).into())
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let failure = Failure::Answered(format!("the server refuses access: {}", head.status));
                Err(Refused { failure, unauthorized: true })
            }
            code => answer::value(code, &body).map_err(Refused::from),
        }
    }
}

/// A query without a value.
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// Whether another token might do.
    pub(super) unauthorized: bool,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, unauthorized: false }
    }
}

fn request(query: &InstantQuery<'_>) -> Result<Request<String>, Failure> {
    let uri = query.url.endpoint(ENDPOINT).map_err(|error| Failure::Answered(error.to_string()))?;
    // By POST, since a query may be longer than a URL.
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("query", query.query).finish();
    let mut request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("catamaran-operator/", env!("CARGO_PKG_VERSION")))
        .body(form)
        .map_err(|error| Failure::Answered(error.to_string()))?;
    if let Some(token) = query.bearer_token {
        // Editors put a line break at the end of a file.
        let header = format!("Bearer {}", token.expose_secret().trim());
        let mut header = HeaderValue::from_str(&header)
            .map_err(|_| Failure::Answered("the bearer token holds characters that no token may hold".to_owned()))?;
        header.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, header);
    }
    Ok(request)
}

/// The whole of an answer.
async fn read(response: ResponseFuture) -> Result<(http::response::Parts, Vec<u8>), Failure> {
    // Nothing of the request is in these errors.
    let response: Response<_> = response.await.map_err(|error| {
        let words = chain(&error);
        if error.is_connect() { Failure::Unavailable(words) } else { Failure::Answered(words) }
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| {
        Failure::Answered(if error.is::<LengthLimitError>() {
            format!("the answer is longer than {} KiB", LONGEST_ANSWER >> 10)
        } else {
            chain(&*error)
        })
    })?;
    Ok((head, body.to_bytes().to_vec()))
}

/// Says where a redirect leads to, as far as a base URL goes; what comes after it may be secret.
fn redirected(code: StatusCode, location: Option<&str>) -> String {
    let base = location.and_then(|location| location.split(['?', '#']).next()?.parse::<BaseUrl>().ok());
    match base {
        Some(base) => format!("the server answered {code} to {base}, which is not followed: name the final URL"),
        None => format!("the server answered {code}, which is not followed: name the final URL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_but_not_printed() {
        let url: BaseUrl = "http://prometheus:9090/p".parse().expect("a base URL");
        let token = SecretString::from("s3cr3t\n");
        let query = InstantQuery { url: &url, query: "sum(up) + 1", ca: None, bearer_token: Some(&token) };
        let sent = request(&query).expect("a request");
        assert_eq!(sent.uri(), "http://prometheus:9090/p/api/v1/query");
        assert_eq!(sent.body(), "query=sum%28up%29+%2B+1");
        assert_eq!(sent.headers()[header::AUTHORIZATION].as_bytes(), b"Bearer s3cr3t");
        assert!(!format!("{sent:?} {query:?}").contains("s3cr3t"));

        let token = SecretString::from("a\nb");
        let failure = request(&InstantQuery { bearer_token: Some(&token), ..query }).expect_err("refused");
        assert_eq!(failure.why(), "the bearer token holds characters that no token may hold");
    }

    #[test]
    fn a_redirect_is_told_without_its_secrets() {
        for (location, expected) in [
            (
                Some("https://b/login?state=secret"),
                "the server answered 307 Temporary Redirect to https://b:443/login, which is not followed: name the final URL",
            ),
            (
                Some("https://user:secret@b/"),
                "the server answered 307 Temporary Redirect, which is not followed: name the final URL",
            ),
            (
                Some("/elsewhere"),
                "the server answered 307 Temporary Redirect, which is not followed: name the final URL",
            ),
            (None, "the server answered 307 Temporary Redirect, which is not followed: name the final URL"),
        ] {
            assert_eq!(redirected(StatusCode::TEMPORARY_REDIRECT, location), expected);
        }
    }
}
