//! Keys of Secrets and ConfigMaps, kept for a minute.
//!
//! They are read one by one by name, never listed or watched, so the operator needs `get` alone, and holds in memory only what queries use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use tokio::time::Instant;

use super::failure::{Failure, chain, shorten};

/// How long a value is used before it is read again: a rotated token is in use that much later.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// One key of a Secret or of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StoredKey {
    pub(super) kind: StoredKind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) key: String,
}

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StoredKind {
    Secret,
    ConfigMap,
}

impl StoredKey {
    fn failure(&self, why: &str) -> Failure {
        let kind = match self.kind {
            StoredKind::Secret => "Secret",
            StoredKind::ConfigMap => "ConfigMap",
        };
        Failure::Answered(format!("the {kind} {}/{}: {why}", shorten(&self.namespace), shorten(&self.name)))
    }
}

/// The bytes of a key. Equal bytes of different readings need not be the same allocation.
type Bytes = Arc<SecretBox<[u8]>>;

/// Reads keys.
pub(super) struct Secrets {
    client: Client,
    known: Mutex<HashMap<StoredKey, (Instant, Bytes)>>,
}

impl Secrets {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::new(HashMap::new()) }
    }

    /// The text of a key.
    ///
    /// Errors: it cannot be read, or is not UTF-8; the value is in no error.
    pub(super) async fn text(&self, key: &StoredKey) -> Result<SecretString, Failure> {
        let bytes = self.read(key).await?;
        let text = std::str::from_utf8(bytes.expose_secret());
        text.map(SecretString::from).map_err(|_| key.failure(&format!("the key {:?} is no text", shorten(&key.key))))
    }

    /// The bytes of a key that is no secret, such as a CA bundle.
    ///
    /// Errors: it cannot be read.
    pub(super) async fn bytes(&self, key: &StoredKey) -> Result<Arc<[u8]>, Failure> {
        Ok(Arc::from(self.read(key).await?.expose_secret()))
    }

    /// Reads a key anew when it is next needed: its value turned out to be of no use.
    pub(super) fn forget(&self, key: &StoredKey) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    async fn read(&self, key: &StoredKey) -> Result<Bytes, Failure> {
        let now = Instant::now();
        if let Some((at, bytes)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key)
            && now.duration_since(*at) < FRESH_FOR
        {
            return Ok(bytes.clone());
        }
        let bytes =
            self.ask(key).await?.ok_or_else(|| key.failure(&format!("it has no key {:?}", shorten(&key.key))))?;
        let bytes: Bytes = Arc::new(SecretBox::new(bytes.into_boxed_slice()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody asks for any more is dropped.
        known.retain(|_, (at, _)| now.duration_since(*at) < FRESH_FOR);
        known.insert(key.clone(), (now, bytes.clone()));
        Ok(bytes)
    }

    /// `None`: there is no such key in it.
    async fn ask(&self, key: &StoredKey) -> Result<Option<Vec<u8>>, Failure> {
        let (client, absent) = (self.client.clone(), || key.failure("there is none"));
        let failed = |error: kube::Error| key.failure(&chain(&error));
        match key.kind {
            StoredKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client, &key.namespace);
                let mut secret = api.get_opt(&key.name).await.map_err(failed)?.ok_or_else(absent)?;
                Ok(secret.data.as_mut().and_then(|data| data.remove(&key.key)).map(|bytes| bytes.0))
            }
            StoredKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client, &key.namespace);
                let mut map = api.get_opt(&key.name).await.map_err(failed)?.ok_or_else(absent)?;
                let text = map.data.as_mut().and_then(|data| data.remove(&key.key)).map(String::into_bytes);
                Ok(text.or_else(|| map.binary_data.as_mut()?.remove(&key.key).map(|bytes| bytes.0)))
            }
        }
    }
}
