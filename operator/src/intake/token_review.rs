//! Tokens reviewed by the API server.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};

use super::authentication::{Authenticator, Identity, ReviewError};

/// Where the API server tells the node of the pod that a token is bound to (KEP-4193; Kubernetes 1.30 and newer, by
/// default since 1.32).
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// An API server that does not answer is asked again by the next stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Asks the API server: `create` on `tokenreviews.authentication.k8s.io`.
#[derive(Clone)]
pub struct TokenReviewer {
    reviews: Api<TokenReview>,
    audience: String,
}

impl TokenReviewer {
    /// Accepts tokens for one audience.
    #[must_use]
    pub fn new(client: Client, audience: String) -> Self {
        Self { reviews: Api::all(client), audience }
    }
}

impl Authenticator for TokenReviewer {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>> {
        async move {
            let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![self.audience.clone()]) };
            let review = TokenReview { spec, ..TokenReview::default() };
            let parameters = PostParams::default();
            let answer = tokio::time::timeout(ANSWER_WITHIN, self.reviews.create(&parameters, &review)).await;
            let answer = answer
                .map_err(|_| ReviewError::Unavailable(format!("no answer within {ANSWER_WITHIN:?}")))?
                .map_err(|error| ReviewError::Unavailable(error.to_string()))?;
            identity(answer.status.unwrap_or_default(), &self.audience)
        }
        .boxed()
    }
}

/// Whose the token is, by the API server's answer.
fn identity(status: TokenReviewStatus, audience: &str) -> Result<Identity, ReviewError> {
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_else(|| "the API server does not know it".to_owned());
        return Err(ReviewError::Invalid(reason));
    }
    // An authenticator that knows no audiences answers with none, and has not checked them.
    if !status.audiences.unwrap_or_default().iter().any(|valid| valid == audience) {
        return Err(ReviewError::Invalid(format!("it is not for the audience {audience}")));
    }
    let user = status.user.unwrap_or_default();
    let nodes = user.extra.and_then(|mut extra| extra.remove(NODE_NAME)).unwrap_or_default();
    // One value; more would leave open which of them is meant.
    let node = <[String; 1]>::try_from(nodes).ok().map(|[node]| node);
    Ok(Identity { username: user.username.unwrap_or_default(), node })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity_in(status: Value) -> Result<Identity, ReviewError> {
        identity(serde_json::from_value(status).expect("a status"), "catamaran-usage")
    }

    fn status(audiences: &[&str], nodes: Value) -> Value {
        let user = json!({"username": "system:serviceaccount:s:agent", "extra": {NODE_NAME: nodes}});
        json!({"authenticated": true, "audiences": audiences, "user": user})
    }

    #[test]
    fn a_token_bound_to_a_node_is_the_nodes() {
        let identity = identity_in(status(&["catamaran-usage"], json!(["n1"]))).expect("valid");
        assert_eq!(identity.username, "system:serviceaccount:s:agent");
        assert_eq!(identity.node.as_deref(), Some("n1"));
    }

    #[test]
    fn a_token_without_exactly_one_node_is_bound_to_none() {
        let without = json!({"authenticated": true, "audiences": ["catamaran-usage"], "user": {"username": "someone"}});
        let with = [json!([]), json!(["n1", "n2"])].map(|nodes| status(&["catamaran-usage"], nodes));
        for answer in with.into_iter().chain([without]) {
            assert_eq!(identity_in(answer).expect("valid").node, None);
        }
    }

    #[test]
    fn other_audiences_and_other_answers_are_refused() {
        let other_audiences = [status(&[], json!(["n1"])), status(&["https://kubernetes.default.svc"], json!(["n1"]))];
        let not_authenticated = [json!({}), json!({"authenticated": false}), json!({"error": "expired"})];
        for answer in other_audiences.into_iter().chain(not_authenticated) {
            assert!(matches!(identity_in(answer.clone()), Err(ReviewError::Invalid(_))), "{answer}");
        }
    }
}
