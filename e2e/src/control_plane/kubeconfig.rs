//! Kubeconfig files that need no other file.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::pki::Certificate;

/// How a client proves who it is.
pub(super) enum Credentials<'a> {
    Certificate(&'a Certificate),
    Token(&'a str),
}

/// A kubeconfig with one context. JSON is YAML, so every client reads it.
pub(super) fn kubeconfig(server: &str, authority: &str, credentials: &Credentials<'_>, namespace: &str) -> String {
    let user = match credentials {
        Credentials::Certificate(Certificate { certificate, key }) => json!({
            "client-certificate-data": base64(certificate),
            "client-key-data": base64(key),
        }),
        Credentials::Token(token) => json!({"token": token}),
    };
    let cluster = json!({"server": server, "certificate-authority-data": base64(authority)});
    let context = json!({"cluster": "catamaran", "user": "user", "namespace": namespace});
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "catamaran", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "catamaran", "context": context}],
        "current-context": "catamaran",
    });
    format!("{config:#}\n")
}

/// Kubernetes' byte strings are base64 in JSON.
fn base64(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}
