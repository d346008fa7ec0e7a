//! One request and its answer: within its time, with a read repeated once, and with a refusal kept as data.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{RETRY_AFTER, SERVER, VIA},
};
use http_body_util::{BodyExt, Either, Full, LengthLimitError};
use hyper::body::{Bytes, Incoming};
use kube::{
    client::Body,
    core::{Status, response::StatusDetails},
};
use tokio::time::{Instant, sleep, timeout_at};
use tower::{BoxError, Service, ServiceExt};

use super::{
    Limits, Unanswered,
    body::{Limit, Limited},
};

/// A header that the API server sets in each of its answers.
const AUDIT_ID: &str = "audit-id";
/// The longest text of a refusal that is read, in bytes.
const MAX_REFUSAL: usize = 1 << 20;
/// How much of an answer that is not the API server's is kept, in characters.
const EXCERPT: usize = 200;
/// A server that wants to be asked again later than this is not asked again here.
const SOON: Duration = Duration::from_secs(1);

/// What the body of an answer is: a refusal was read already.
type AnswerBody = Either<Limited, Full<Bytes>>;

/// The service that carries requests out within their limits.
#[derive(Clone)]
pub struct Exchange<S> {
    inner: S,
    limits: Limits,
}

impl<S> Exchange<S> {
    pub fn new(inner: S, limits: Limits) -> Self {
        Self { inner, limits }
    }
}

impl<S> Service<Request<Body>> for Exchange<S>
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<AnswerBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Each request waits for its own clone, within its own time.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(exchange(self.inner.clone(), request, self.limits))
    }
}

async fn exchange<S>(inner: S, request: Request<Body>, limits: Limits) -> Result<Response<AnswerBody>, BoxError>
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError> + Clone,
{
    let end = Instant::now() + limits.answer;
    let late = |_| Unanswered::Late(limits.answer);
    let watches = is_watch(&request);
    let answer = timeout_at(end, attempts(inner, request, limits)).await.map_err(late)??;
    let status = answer.status();
    if status.is_client_error() || status.is_server_error() {
        return Ok(timeout_at(end, refusal(answer)).await.map_err(late)??.map(|text| Either::Right(Full::new(text))));
    }
    let limit = if watches { Limit::Silence(limits.silence) } else { Limit::Until(end, limits.answer) };
    Ok(answer.map(|body| Either::Left(Limited::new(body, limit))))
}

/// A read that got no answer, or is to be asked again soon, is asked again once. A write never is: the caller knows
/// whether it may be. Nor is a watch, which is started again in any case.
async fn attempts<S>(inner: S, request: Request<Body>, limits: Limits) -> Result<Response<Incoming>, BoxError>
where
    S: Service<Request<Body>, Response = Response<Incoming>, Error = BoxError> + Clone,
{
    if request.method() != Method::GET || is_watch(&request) {
        return inner.oneshot(request).await;
    }
    let (parts, _) = request.into_parts();
    let again = Request::from_parts(parts.clone(), Body::empty());
    match inner.clone().oneshot(Request::from_parts(parts, Body::empty())).await {
        Ok(answer) if !passes_soon(&answer) => Ok(answer),
        Ok(_) | Err(_) => {
            sleep(limits.pause).await;
            inner.oneshot(again).await
        }
    }
}

fn is_watch<B>(request: &Request<B>) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

fn passes_soon<B>(answer: &Response<B>) -> bool {
    let passes = matches!(
        answer.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    );
    passes && retry_after(answer.headers()).is_none_or(|after| after <= SOON)
}

/// In seconds, as the API server and Kubernetes' proxies write it. A date is passed over.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The API server's refusal, with the header Retry-After in its details: kube passes only the body on.
///
/// # Errors
/// When it is somebody else's.
async fn refusal(answer: Response<Incoming>) -> Result<Response<Bytes>, BoxError> {
    let (parts, body) = answer.into_parts();
    let text = match http_body_util::Limited::new(body, MAX_REFUSAL).collect().await {
        Ok(text) => text.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(error) => return Err(error),
    };
    let status = serde_json::from_slice::<Kind>(&text)
        .ok()
        .filter(|kind| kind.kind == "Status")
        .and_then(|_| serde_json::from_slice::<Status>(&text).ok());
    let retry_after = retry_after(&parts.headers);
    let status = match status {
        Some(status) => status,
        // Of a path that it does not serve, and of too many requests, the API server speaks in plain text.
        None if parts.headers.contains_key(AUDIT_ID) => {
            Status::failure(String::from_utf8_lossy(&text).trim(), "").with_code(parts.status.as_u16())
        }
        None => {
            let excerpt = String::from_utf8_lossy(&text).trim().chars().take(EXCERPT).collect();
            let (code, by) = (parts.status, name(&parts.headers));
            return Err(Unanswered::NotTheApiServer { code, by, retry_after, excerpt }.into());
        }
    };
    let text = serde_json::to_vec(&asked_again(status, retry_after))?;
    Ok(Response::from_parts(parts, text.into()))
}

/// What somebody between here and the API server calls itself.
fn name(headers: &HeaderMap) -> String {
    let named = [VIA, SERVER].into_iter().find_map(|header| headers.get(header)?.to_str().ok().map(str::to_owned));
    named.unwrap_or_else(|| "something".to_owned())
}

fn asked_again(mut status: Status, after: Option<Duration>) -> Status {
    let seconds = after.and_then(|after| u32::try_from(after.as_secs()).ok()).unwrap_or(0);
    if seconds > 0 {
        let details = status.details.get_or_insert_with(|| StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        });
        if details.retry_after_seconds == 0 {
            details.retry_after_seconds = seconds;
        }
    }
    status
}

#[derive(serde::Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}
