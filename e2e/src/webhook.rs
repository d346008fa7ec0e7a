//! An admission webhook that lives, and answers by a function.

use anyhow::Result;
use axum::{Json, Router, routing::post};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::{
    control_plane::ControlPlane,
    tls::{TlsListener, server_config},
};

/// What a webhook says to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Let it be as it is.
    Allowed,
    /// Change it by this JSON patch (RFC 6902).
    Changed(Value),
    /// Refuse it, with this message.
    Denied(String),
}

/// A server of `AdmissionReview` (`admission.k8s.io/v1`). It ends when this is dropped.
pub struct Webhook {
    port: u16,
    authority: String,
    serving: AbortHandle,
}

impl Webhook {
    /// Starts it on this host. `decide` gets the request of the review.
    ///
    /// # Errors
    /// When there is no port for it, or no certificate.
    pub async fn start(control_plane: &ControlPlane, decide: fn(&Value) -> Verdict) -> Result<Self> {
        let keys = control_plane.serving_certificate("webhook")?;
        let listener = TlsListener::bind(server_config(&keys.certificate, &keys.key, None)?).await?;
        let port = listener.port();
        let answer = move |Json(review): Json<Value>| async move { Json(answered(&review["request"], decide)) };
        let router = Router::new().route("/", post(answer));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { port, authority: keys.client_authority, serving })
    }

    /// The `clientConfig` of its configuration.
    #[must_use]
    pub fn client_config(&self) -> Value {
        let bundle = ByteString(self.authority.clone().into_bytes());
        json!({ "url": format!("https://localhost:{}/", self.port), "caBundle": bundle })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn answered(request: &Value, decide: fn(&Value) -> Verdict) -> Value {
    let mut response = json!({ "uid": request["uid"], "allowed": true });
    match decide(request) {
        Verdict::Allowed => {}
        Verdict::Changed(patch) => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(ByteString(patch.to_string().into_bytes()));
        }
        Verdict::Denied(message) => {
            response["allowed"] = json!(false);
            response["status"] = json!({ "message": message, "code": 403 });
        }
    }
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}
