//! The identity of a node's agent: a token of a ServiceAccount, bound to a pod on the node.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::sleep;

/// How long a token is good: as the kubelet asks for, unless told otherwise.
const LIFETIME: Duration = Duration::from_secs(3600);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// Makes tokens for agents.
#[derive(Clone)]
pub struct Tokens {
    /// A client that may make pods and tokens.
    pub client: Client,
    /// The namespace of the agents' ServiceAccount, which must exist.
    pub namespace: String,
    /// The name of the agents' ServiceAccount.
    pub account: String,
    /// For whom the tokens are.
    pub audience: String,
    /// Where they are written to.
    pub folder: PathBuf,
}

impl Tokens {
    /// The file with the token of a node's agent.
    #[must_use]
    pub fn file(&self, node: &str) -> PathBuf {
        self.folder.join(node)
    }

    /// Makes a pod on the node, as a DaemonSet would, and a token bound to it.
    ///
    /// # Errors
    /// What the API server answers, or when the file cannot be written.
    pub async fn issue(&self, node: &str) -> Result<()> {
        let pod = self.pod(node).await.with_context(|| format!("no agent pod on {node}"))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = TokenRequestSpec {
            audiences: vec![self.audience.clone()],
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.uid(),
            }),
            expiration_seconds: Some(i64::try_from(LIFETIME.as_secs())?),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts
            .create_token_request(&self.account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for the agent on {node}"))?;
        let token = answer.status.context("the API server gave no token")?.token;
        replace(&self.file(node), token.as_bytes()).await
    }

    /// Issues a new token in time, as the kubelet does: when a fifth of the life of the last one is left.
    pub(super) async fn keep(self, node: String) {
        loop {
            sleep(LIFETIME * 4 / 5).await;
            while let Err(error) = self.issue(&node).await {
                tracing::warn!(error = format!("{error:#}"), "a token is not renewed");
                sleep(PAUSE).await;
            }
        }
    }

    async fn pod(&self, node: &str) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("{}-{node}", self.account);
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "serviceAccountName": self.account,
                "automountServiceAccountToken": false,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "agent", "image": "usage-simulator"}],
            },
        });
        Ok(pods.patch(&name, &PatchParams::apply("usage-simulator").force(), &Patch::Apply(pod)).await?)
    }
}

/// Writes a file so that nobody reads half of it.
async fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    tokio::fs::write(&new, contents).await?;
    tokio::fs::rename(&new, path).await?;
    Ok(())
}
