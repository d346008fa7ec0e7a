//! Answers that the proxy gives in the server's place.

use anyhow::Result;
use axum::body::{Body, Bytes};
use http::{HeaderValue, Response, StatusCode, header};
use kube::Client;
use serde_json::{Value, json};

/// An answer that never came from the server.
#[derive(Clone, Debug)]
pub struct Answer {
    code: StatusCode,
    content_type: &'static str,
    retry_after: Option<u32>,
    body: Bytes,
}

impl Answer {
    /// An error as Kubernetes tells it: a `Status` with a machine-readable reason, such as `InternalError`.
    #[must_use]
    pub fn status(code: StatusCode, reason: &str, message: &str) -> Self {
        Self::json(code, &status(code, reason, message))
    }

    /// 503, as an API server that is overloaded or shuts down.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::status(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "the server is unavailable (a planted fault)",
        )
    }

    /// 429, as API Priority and Fairness answers.
    #[must_use]
    pub fn too_many_requests() -> Self {
        Self::status(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "too many requests (a planted fault)")
    }

    /// 500 as an API server whose webhook failed.
    #[must_use]
    pub fn internal_error(message: &str) -> Self {
        Self::status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 410, as to a list or a watch whose resourceVersion is compacted.
    #[must_use]
    pub fn gone() -> Self {
        Self::status(StatusCode::GONE, "Expired", "The resourceVersion for the provided watch is too old.")
    }

    /// Plain text, as a proxy of somebody else answers.
    #[must_use]
    pub fn text(code: StatusCode, text: &str) -> Self {
        Self { code, content_type: "text/plain", retry_after: None, body: Bytes::from(text.to_owned()) }
    }

    /// JSON.
    #[must_use]
    pub fn json(code: StatusCode, value: &Value) -> Self {
        Self { code, content_type: "application/json", retry_after: None, body: Bytes::from(value.to_string()) }
    }

    /// What the server answers to a GET of this path now: a list to be served when it is old.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn of_now(client: &Client, path: &str) -> Result<Self> {
        let answer: Value = client.request(http::Request::get(path).body(Vec::new())?).await?;
        Ok(Self::json(StatusCode::OK, &answer))
    }

    /// The same with a `Retry-After` of so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn code(&self) -> u16 {
        self.code.as_u16()
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.code;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A `Status` of a failure.
pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    })
}
