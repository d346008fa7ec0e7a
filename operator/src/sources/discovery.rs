//! Which version of the custom metrics API is served, and what the resources of kinds are called.

use std::{
    collections::HashMap,
    sync::{Mutex as StdMutex, PoisonError},
    time::Duration,
};

use http::{Request, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::{Client, client::Body, discovery};
use tokio::{sync::Mutex, time::Instant};

use super::{
    api::exchange,
    failure::{Failure, chain, shorten},
};

/// The group of the API.
pub(super) const GROUP: &str = "custom.metrics.k8s.io";
/// What has been learned is not doubted for so long: a metric that does not exist must not cause a discovery at every poll.
const SURE_FOR: Duration = Duration::from_secs(60);

/// A version that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1Beta2,
    V1Beta1,
}

impl Version {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::V1Beta2 => "v1beta2",
            Self::V1Beta1 => "v1beta1",
        }
    }
}

/// What was learned, and when.
struct Learned<T> {
    at: Instant,
    what: T,
}

/// What the API server serves, asked once and again after a doubt.
pub(super) struct Discovery {
    client: Client,
    /// Held while asking, so that many questions at once ask but once.
    version: Mutex<Option<Learned<Version>>>,
    /// Resource names by group and kind.
    resources: Mutex<HashMap<(String, String), Learned<String>>>,
    /// What was learned before that is no longer used.
    good_since: StdMutex<Option<Instant>>,
}

impl Discovery {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            version: Mutex::new(None),
            resources: Mutex::new(HashMap::new()),
            good_since: StdMutex::new(None),
        }
    }

    /// Something was not found: what was learned longer ago than a minute is learned again when it is next needed.
    pub(super) fn doubt(&self) {
        self.learn_again(Instant::now().checked_sub(SURE_FOR));
    }

    /// The version is not served: everything is learned again.
    pub(super) fn forget(&self) {
        self.learn_again(Some(Instant::now()));
    }

    fn learn_again(&self, before: Option<Instant>) {
        let mut since = self.good_since.lock().unwrap_or_else(PoisonError::into_inner);
        // No moment comes before every other.
        *since = (*since).max(before);
    }

    fn good<T>(&self, learned: &Learned<T>) -> bool {
        let since = *self.good_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|since| learned.at >= since)
    }

    /// The served version of the custom metrics API: v1beta2, else v1beta1.
    pub(super) async fn version(&self) -> Result<Version, Failure> {
        let mut known = self.version.lock().await;
        if let Some(learned) = known.as_ref().filter(|learned| self.good(learned)) {
            return Ok(learned.what);
        }
        let version = self.ask_version().await?;
        *known = Some(Learned { at: Instant::now(), what: version });
        Ok(version)
    }

    async fn ask_version(&self) -> Result<Version, Failure> {
        let request = Request::get(format!("/apis/{GROUP}"))
            .body(Body::empty())
            .map_err(|error| Failure::Answered(error.to_string()))?;
        let (status, body) = exchange(&self.client, request).await?;
        match status {
            StatusCode::OK => {
                let group: APIGroup = serde_json::from_slice(&body)
                    .map_err(|error| Failure::Unavailable(format!("cannot read the API group {GROUP}: {error}")))?;
                let serves = |version: Version| group.versions.iter().any(|served| served.version == version.as_str());
                [Version::V1Beta2, Version::V1Beta1]
                    .into_iter()
                    .find(|version| serves(*version))
                    .ok_or_else(|| Failure::Unavailable("no known available metric versions found".to_owned()))
            }
            StatusCode::NOT_FOUND => Err(Failure::Unavailable(format!("no custom metrics API ({GROUP}) registered"))),
            other => Err(Failure::Unavailable(format!("cannot discover the API group {GROUP}: {other}"))),
        }
    }

    /// The name under which adapters know the resource of a kind: `services`, `ingresses.networking.k8s.io`.
    ///
    /// Errors: no such kind is served.
    pub(super) async fn resource(&self, group: &str, kind: &str) -> Result<String, Failure> {
        let key = (group.to_owned(), kind.to_owned());
        let mut known = self.resources.lock().await;
        if let Some(learned) = known.get(&key).filter(|learned| self.good(learned)) {
            return Ok(learned.what.clone());
        }
        let unmapped = |why: String| {
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            Failure::Answered(format!("unable to map kind {} to resource: {why}", shorten(&kind)))
        };
        let served = discovery::group(&self.client, group).await.map_err(|error| unmapped(chain(&error)))?;
        let plural = served
            .resources_by_stability()
            .into_iter()
            .map(|(resource, _)| resource)
            .find(|resource| resource.kind == kind)
            .map(|resource| resource.plural)
            .ok_or_else(|| unmapped("no such kind is served".to_owned()))?;
        let name = if group.is_empty() { plural } else { format!("{plural}.{group}") };
        known.insert(key, Learned { at: Instant::now(), what: name.clone() });
        Ok(name)
    }
}
