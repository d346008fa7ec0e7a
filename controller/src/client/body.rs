//! Bodies of answers that end in time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;

use super::Unanswered;

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// It is complete by then; it may take so long altogether.
    Until(Instant, Duration),
    /// It brings something at least so often.
    Silence(Duration),
}

/// A body with a limit.
pub struct Limited {
    inner: Incoming,
    limit: Limit,
    timer: Pin<Box<Sleep>>,
}

impl Limited {
    /// A body with a limit that counts from now on.
    pub fn new(inner: Incoming, limit: Limit) -> Self {
        let end = match limit {
            Limit::Until(end, _) => end,
            Limit::Silence(silence) => Instant::now() + silence,
        };
        Self { inner, limit, timer: Box::pin(sleep_until(end)) }
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            if let Limit::Silence(silence) = self.limit {
                self.timer.as_mut().reset(Instant::now() + silence);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        self.timer.as_mut().poll(cx).map(|()| {
            Some(Err(match self.limit {
                Limit::Until(_, limit) => Unanswered::Late(limit).into(),
                Limit::Silence(silence) => Unanswered::Silent(silence).into(),
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
