//! Keys of Secrets, kept for a minute.
//!
//! They are read one by one by name, never listed or watched, so the operator needs `get` alone, and holds in memory
//! only what queries use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use tokio::time::Instant;

use super::failure::{Failure, chain, shorten};

/// How long a value is used before it is read again: a rotated token is in use that much later.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StoredKey {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) key: String,
}

impl StoredKey {
    fn failure(&self, why: &str) -> Failure {
        Failure::Answered(format!("the Secret {}/{}: {why}", shorten(&self.namespace), shorten(&self.name)))
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
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await.map_err(|error| key.failure(&chain(&error)))?;
        let mut secret = found.ok_or_else(|| key.failure("there is none"))?;
        Ok(secret.data.as_mut().and_then(|data| data.remove(&key.key)).map(|bytes| bytes.0))
    }
}
