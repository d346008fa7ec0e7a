//! Instant queries of the Prometheus HTTP API: one number for one query.

mod answer;
mod client;
mod policy;
mod url;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Request, Response};
use secrecy::{ExposeSecret, SecretString};

pub use policy::{Forbidden, PrometheusSettings};
pub use url::{BaseUrl, NotABaseUrl, UrlPrefix};

use super::failure::{Failure, chain};
use client::Clients;

/// The longest answer that is read: one number needs a hundred bytes, and a query that gives thousands of series is a
/// mistake anyhow.
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

    /// Asks; the value in thousandths. Redirects are not followed: a query and its token go where the URL says, or
    /// nowhere.
    ///
    /// Errors: the URL may not be asked, or the server does not answer with one finite value. The caller limits the
    /// time.
    pub(super) async fn ask(&self, query: &InstantQuery<'_>) -> Result<i64, Refused> {
        self.settings.check_url(query.url).map_err(|why| Failure::Answered(why.to_string()))?;
        let client = self.clients.trusting(query.ca, query.url.is_https())?;
        let response = client.execute(request(&client, query)?).await.map_err(unsent)?;
        let (code, location) = (response.status(), location(response.headers()));
        let body = read(response).await?;
        match code {
            code if code.is_redirection() => Err(Failure::Answered(redirected(code, location.as_deref())).into()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let failure = Failure::Answered(format!("the server refuses access: {code}"));
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

fn request(client: &Client, query: &InstantQuery<'_>) -> Result<Request, Failure> {
    // By POST, since a query may be longer than a URL.
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("query", query.query).finish();
    let mut request = client
        .post(query.url.endpoint(ENDPOINT))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .body(form)
        .build()
        .map_err(|error| Failure::Answered(chain(&error)))?;
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

/// Why there is no answer. Nothing of the request is in it.
fn unsent(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let words = chain(&error);
    if error.is_connect() { Failure::Unavailable(words) } else { Failure::Answered(words) }
}

fn location(headers: &HeaderMap) -> Option<String> {
    headers.get(header::LOCATION)?.to_str().ok().map(str::to_owned)
}

/// The whole of an answer.
async fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unsent)? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Err(Failure::Answered(format!("the answer is longer than {} KiB", LONGEST_ANSWER >> 10)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
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
        let client = Clients::new(Arc::default()).trusting(None, false).unwrap_or_else(|_| panic!("a client"));
        let sent = request(&client, &query).expect("a request");
        assert_eq!(sent.url().as_str(), "http://prometheus:9090/p/api/v1/query");
        let body = sent.body().and_then(reqwest::Body::as_bytes);
        assert_eq!(body, Some(b"query=sum%28up%29+%2B+1".as_slice()));
        assert_eq!(sent.headers()[header::AUTHORIZATION].as_bytes(), b"Bearer s3cr3t");
        assert!(!format!("{sent:?} {query:?}").contains("s3cr3t"));

        let token = SecretString::from("a\nb");
        let failure = request(&client, &InstantQuery { bearer_token: Some(&token), ..query }).expect_err("refused");
        assert_eq!(failure.why(), "the bearer token holds characters that no token may hold");
    }

    #[test]
    fn a_redirect_is_told_without_its_secrets() {
        for (location, expected) in [
            (
                Some("https://b/login?state=secret"),
                "the server answered 307 Temporary Redirect to https://b/login, which is not followed: name the final URL",
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
