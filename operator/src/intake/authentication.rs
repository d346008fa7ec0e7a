//! Who may report for a node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tonic::{Status, metadata::MetadataMap};

use super::metrics::{IntakeMetrics, Refused};

/// The longest token that is looked at. Those of Kubernetes have about 1,000 characters.
const TOKEN_BYTES: usize = 8 * 1024;
/// Answers that are remembered: an old and a new token for each of 5,000 nodes, as hashes.
const REMEMBERED: usize = 10_000;
/// How long a token that was accepted needs no review when it opens a stream. Short: it may be revoked.
const ACCEPTED_FOR: Duration = Duration::from_secs(30);
/// How long a token that was refused is refused without a review.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Reviews that are asked for at once.
const CONCURRENT_REVIEWS: usize = 16;
/// How much longer one counts that refused a token, so that made-up tokens cannot keep the API server busy.
const REFUSAL_PAUSE: Duration = Duration::from_millis(200);

/// Whose a token is, as the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user name, such as `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// The node of the pod that the token is bound to.
    pub node: Option<String>,
}

/// Why a token was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// It is not valid: wrong, expired, revoked, or for another audience.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// Nobody could be asked.
    #[error("the token cannot be reviewed now: {0}")]
    Unavailable(String),
}

/// Says to whom a token belongs. In the product the API server does ([`super::token_review::TokenReviewer`]).
pub trait Authenticator: Send + Sync + 'static {
    /// Reviews a token.
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>>;
}

/// Why a caller may not report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("the call needs the metadata `authorization: Bearer TOKEN`")]
    NoToken,
    #[error(transparent)]
    Review(#[from] ReviewError),
    #[error("the token is of {actual}, not of {expected}")]
    Account { actual: String, expected: String },
    #[error("the token is bound to no node")]
    Unbound,
    #[error("the token is bound to the node {bound}, not to {claimed}")]
    Node { bound: String, claimed: String },
}

impl Denied {
    pub(super) fn reason(&self) -> Refused {
        match self {
            Self::NoToken => Refused::NoToken,
            Self::Review(ReviewError::Invalid(_)) => Refused::Token,
            Self::Review(ReviewError::Unavailable(_)) => Refused::Review,
            Self::Account { .. } => Refused::Account,
            Self::Unbound => Refused::Unbound,
            Self::Node { .. } => Refused::Node,
        }
    }

    pub(super) fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::NoToken | Self::Review(ReviewError::Invalid(_)) => Status::unauthenticated(text),
            Self::Review(ReviewError::Unavailable(_)) => Status::unavailable(text),
            Self::Account { .. } | Self::Unbound | Self::Node { .. } => Status::permission_denied(text),
        }
    }
}

/// A token. It is not printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    /// The token of a call.
    pub(super) fn from_metadata(metadata: &MetadataMap) -> Result<Self, Denied> {
        let value = metadata.get("authorization").and_then(|value| value.to_str().ok()).ok_or(Denied::NoToken)?;
        let (scheme, token) = value.split_once(' ').ok_or(Denied::NoToken)?;
        let valid = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_BYTES;
        if valid { Ok(Self(token.to_owned())) } else { Err(Denied::NoToken) }
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

/// Decides who may report.
pub(super) struct Gate {
    authenticator: Arc<dyn Authenticator>,
    /// The user name that agents have.
    account: String,
    reviews: Semaphore,
    answers: Cache<[u8; 32], Answer>,
    metrics: IntakeMetrics,
}

#[derive(Clone)]
struct Answer {
    until: Instant,
    identity: Result<Identity, ReviewError>,
}

impl Gate {
    pub(super) fn new(authenticator: Arc<dyn Authenticator>, account: String, metrics: IntakeMetrics) -> Self {
        let reviews = Semaphore::new(CONCURRENT_REVIEWS);
        Self { authenticator, account, reviews, answers: Cache::new(REMEMBERED), metrics }
    }

    /// The node that the owner of a token may report for.
    pub(super) async fn admit(&self, token: &Token) -> Result<String, Denied> {
        let answer = self.answers.get(&token.hash()).filter(|answer| Instant::now() < answer.until);
        let identity = match answer {
            Some(answer) => answer.identity?,
            None => self.review(token).await?,
        };
        self.node_of(identity)
    }

    /// The same, and what was answered before does not count.
    pub(super) async fn admit_again(&self, token: &Token) -> Result<String, Denied> {
        let identity = self.review(token).await?;
        self.node_of(identity)
    }

    fn node_of(&self, identity: Identity) -> Result<String, Denied> {
        if identity.username != self.account {
            return Err(Denied::Account { actual: identity.username, expected: self.account.clone() });
        }
        identity.node.ok_or(Denied::Unbound)
    }

    async fn review(&self, token: &Token) -> Result<Identity, ReviewError> {
        let permit = self.reviews.acquire().await;
        let identity = self.authenticator.review(&token.0).await;
        if matches!(identity, Err(ReviewError::Invalid(_))) {
            tokio::time::sleep(REFUSAL_PAUSE).await;
        }
        drop(permit);
        self.metrics.reviewed(!matches!(identity, Err(ReviewError::Unavailable(_))));
        let remember = match &identity {
            Ok(_) => Some(ACCEPTED_FOR),
            Err(ReviewError::Invalid(_)) => Some(REFUSED_FOR),
            Err(ReviewError::Unavailable(_)) => None,
        };
        if let Some(time) = remember {
            self.answers.insert(token.hash(), Answer { until: Instant::now() + time, identity: identity.clone() });
        }
        identity
    }
}
