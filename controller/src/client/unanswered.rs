//! What comes in place of an answer, and when to ask again.

use std::{error::Error, time::Duration};

use http::StatusCode;

/// What came in place of an answer of the API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// No complete answer came within this time.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// A stream brought nothing for this time.
    #[error("the stream was silent for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// Something between here and the API server answered: a proxy, a load balancer, a service mesh.
    #[error("{code} from {by} between here and the API server, not from the API server: {excerpt}")]
    NotTheApiServer {
        /// The HTTP status.
        code: StatusCode,
        /// What it calls itself.
        by: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// The beginning of what it says.
        excerpt: String,
    },
}

/// After which time the server that refused a request wants to be asked again, if it said so.
#[must_use]
pub fn retry_after(error: &kube::Error) -> Option<Duration> {
    match error {
        kube::Error::Api(status) => {
            let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
            (seconds > 0).then(|| Duration::from_secs(seconds.into()))
        }
        error => match unanswered(error)? {
            Unanswered::NotTheApiServer { retry_after, .. } => *retry_after,
            Unanswered::Late(_) | Unanswered::Silent(_) => None,
        },
    }
}

/// What came in place of an answer of the API server, if it is that: nothing in time, or somebody else's answer.
#[must_use]
pub fn unanswered(error: &kube::Error) -> Option<&Unanswered> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    // Chains of errors are short; a loop in one must not stop us.
    for _ in 0..16 {
        let error = cause?;
        if let Some(unanswered) = error.downcast_ref() {
            return Some(unanswered);
        }
        cause = error.source();
    }
    None
}
