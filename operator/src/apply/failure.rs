//! Why a write did not happen, and in which words that is reported.

use catamaran_plan::Problem;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What it was planned on is out of date: plan again at once.
    #[error("the {object} changed in the meantime")]
    Conflict {
        /// What was to be written.
        object: String,
    },
    /// The API server says no, and will say so again until something changes.
    #[error("{}", .0.message())]
    Refused(Problem),
    /// No answer, or one that passes.
    #[error("writing the {object}: {source}")]
    Transient {
        /// What was to be written.
        object: String,
        /// What went wrong.
        source: kube::Error,
    },
}

impl Failure {
    pub(super) fn new(object: String, error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => match status.code {
                409 => Self::Conflict { object },
                // Too many requests, time-outs and server errors pass; other answers to our writes are a no.
                400..=499 if !matches!(status.code, 408 | 429) => {
                    Self::Refused(Problem::Refused { object, message: status.message.clone() })
                }
                _ => Self::Transient { object, source: error },
            },
            _ => Self::Transient { object, source: error },
        }
    }

    /// For the metric of errors.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Refused(_) => "refused",
            Self::Transient { .. } => "transient",
        }
    }

    /// As it is reported in the status, with the API server's own words where it answered.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::Conflict { object } => {
                Problem::WriteFailing { object: object.clone(), message: "it changes all the time".to_owned() }
            }
            Self::Transient { object, source } => {
                let message = match source {
                    kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
                    error => error.to_string(),
                };
                Problem::WriteFailing { object: object.clone(), message }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_api_server_are_reported() {
        let of = |code: u16| {
            let status = kube::core::Status::failure("failed calling webhook", "InternalError").with_code(code);
            Failure::new("ReplicaSet web-1".to_owned(), kube::Error::Api(status.boxed())).problem()
        };
        assert_eq!((of(403).reason(), of(500).reason(), of(504).reason()), ("Refused", "WriteFailing", "WriteFailing"));
        for code in [400, 403, 408, 422, 429, 500, 503, 504] {
            assert!(of(code).message().contains("failed calling webhook"), "{}", of(code).message());
        }
    }
}
