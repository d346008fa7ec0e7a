//! Until when this process may write, as every write asks just before it is sent.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request};
use kube::{Client, client::Body};
use tower::{BoxError, Layer, Service, service_fn};

use crate::uptime::uptime;

/// Until when this process may write. The lease's thread prolongs it; the others look.
#[derive(Clone, Debug, Default)]
pub struct Tenure {
    /// In nanoseconds of [`uptime`]; 0 while this process does not lead.
    until: Arc<AtomicU64>,
}

/// A write that was not sent, or given up: this process does not lead, or not any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this process does not hold the lease any more; nothing is written")]
pub struct NotLeading;

impl Tenure {
    /// For how long this process may still write; `None` when it may not.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let until = Duration::from_nanos(self.until.load(Ordering::Acquire));
        until.checked_sub(uptime()).filter(|left| !left.is_zero())
    }

    /// A client that writes only as long as the tenure lasts, over another one. What tries a request again belongs
    /// above it.
    #[must_use]
    pub fn gate(&self, client: &Client) -> Client {
        let (through, namespace) = (client.clone(), client.default_namespace().to_owned());
        let sent = service_fn(move |request| {
            let client = through.clone();
            async move { client.send(request).await }
        });
        Client::new(Gate(self.clone()).layer(sent), namespace)
    }

    pub(super) fn prolong(&self, until: Duration) {
        self.until.store(u64::try_from(until.as_nanos()).unwrap_or(0), Ordering::Release);
    }

    /// It lasts for this time at most, unless it is prolonged.
    pub(super) fn shorten(&self, to: Duration) {
        if self.left().is_some_and(|left| left > to) {
            self.prolong(uptime() + to);
        }
    }

    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// Lets a client write only as long as the [`Tenure`] lasts: it is asked just before a request is sent, and a request
/// that is under way when it ends is given up. Reads pass.
#[derive(Clone, Debug)]
struct Gate(Tenure);

/// See [`Gate`].
#[derive(Clone, Debug)]
struct Gated<S> {
    inner: S,
    tenure: Tenure,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, tenure: self.0.clone() }
    }
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            let answer = self.inner.call(request);
            return Box::pin(async { answer.await.map_err(Into::into) });
        }
        if self.tenure.left().is_none() {
            return Box::pin(async { Err(NotLeading.into()) });
        }
        let mut answer = Box::pin(self.inner.call(request));
        let tenure = self.tenure.clone();
        Box::pin(async move {
            loop {
                // Asked before the request is driven on, so that a process that was stopped sends nothing when it
                // wakes.
                let Some(left) = tenure.left() else { return Err(NotLeading.into()) };
                // Renewed meanwhile: there is more time.
                if let Ok(answer) = tokio::time::timeout(left, driven(&tenure, answer.as_mut())).await {
                    return answer;
                }
            }
        })
    }
}

/// Drives a request on, each time only if there is still tenure.
async fn driven<F, T, E>(tenure: &Tenure, mut answer: Pin<&mut F>) -> Result<T, BoxError>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    std::future::poll_fn(|context| {
        if tenure.left().is_none() {
            return Poll::Ready(Err(NotLeading.into()));
        }
        answer.as_mut().poll(context).map_err(Into::into)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A service that answers after a while, and counts.
    fn service(
        after: Duration,
    ) -> (impl Service<Request<Body>, Response = (), Error = BoxError, Future: Send>, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(after).await;
                Ok::<_, BoxError>(())
            }
        });
        (service, calls)
    }

    fn request(method: Method) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        request
    }

    #[tokio::test]
    async fn without_tenure_reads_pass_and_nothing_is_written() {
        let (service, calls) = service(Duration::ZERO);
        let mut gated = Gate(Tenure::default()).layer(service);
        for method in [Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
            let refused = gated.call(request(method)).await.err().map(|error| error.is::<NotLeading>());
            assert_eq!(refused, Some(true));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 0, "not even begun");
        assert!(gated.call(request(Method::GET)).await.is_ok());
    }

    #[tokio::test]
    async fn a_write_under_way_is_given_up_when_the_tenure_ends() {
        let tenure = Tenure::default();
        tenure.prolong(uptime() + Duration::from_millis(50));
        let (service, calls) = service(Duration::from_secs(60));
        let mut gated = Gate(tenure).layer(service);
        let refused = gated.call(request(Method::PATCH)).await.err().map(|error| error.is::<NotLeading>());
        assert_eq!((refused, calls.load(Ordering::SeqCst)), (Some(true), 1));
    }

    #[tokio::test]
    async fn a_write_outlives_the_end_of_a_tenure_that_is_prolonged() {
        let tenure = Tenure::default();
        tenure.prolong(uptime() + Duration::from_millis(100));
        let (service, _) = service(Duration::from_millis(300));
        let mut gated = Gate(tenure.clone()).layer(service);
        let written = gated.call(request(Method::PATCH));
        tenure.prolong(uptime() + Duration::from_secs(60));
        assert!(written.await.is_ok());
    }
}
