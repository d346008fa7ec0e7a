//! Which version of the custom metrics API is served, and what the resources of kinds are called.

use std::{
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Request, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::{Client, client::Body, discovery};
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::{
    api::exchange,
    failure::{Failure, chain, shorten},
};

/// The group of the API.
pub(super) const GROUP: &str = "custom.metrics.k8s.io";
/// What has been learned is not doubted for so long: a metric that does not exist must not cause a discovery at every
/// poll.
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

/// How many kinds are remembered at once; users name them.
const REMEMBERED: usize = 1000;

/// What was learned, and when. That there is nothing of the kind is learned as well: it is not asked for at every poll.
#[derive(Clone)]
struct Learned<T> {
    at: Instant,
    what: Result<T, Failure>,
}

/// What was learned about each of some topics. Nothing is locked while somebody asks; others with the same topic wait
/// for that answer.
struct Memory<K, T> {
    learned: Cache<K, Learned<T>>,
    /// What was learned before that is no longer used.
    good_since: Mutex<Option<Instant>>,
}

impl<K: Eq + Hash + Clone, T: Clone> Memory<K, T> {
    fn new(capacity: usize) -> Self {
        Self { learned: Cache::new(capacity), good_since: Mutex::new(None) }
    }

    /// What was learned before that moment is learned again when it is next needed.
    fn doubt(&self, before: Option<Instant>) {
        let mut since = self.good_since.lock().unwrap_or_else(PoisonError::into_inner);
        // No moment comes before every other.
        *since = (*since).max(before);
    }

    fn good(&self, learned: &Learned<T>) -> bool {
        let since = *self.good_since.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not there may come at any time.
        let fresh = learned.what.is_ok() || learned.at.elapsed() < SURE_FOR;
        fresh && since.is_none_or(|since| learned.at >= since)
    }

    /// What is known, else what `ask` says. [`Asked::Unclear`] is not remembered.
    async fn get(&self, topic: &K, ask: impl Future<Output = Asked<T>>) -> Result<T, Failure> {
        if self.learned.get(topic).is_some_and(|learned| !self.good(&learned)) {
            self.learned.remove(topic);
        }
        let asked = async {
            match ask.await {
                Asked::Found(what) => Ok(Learned { at: Instant::now(), what: Ok(what) }),
                Asked::Absent(why) => Ok(Learned { at: Instant::now(), what: Err(why) }),
                Asked::Unclear(why) => Err(why),
            }
        };
        self.learned.get_or_insert_async(topic, asked).await?.what
    }
}

/// How a question about a topic ended.
enum Asked<T> {
    Found(T),
    /// It is certain that there is none.
    Absent(Failure),
    /// It could not be found out.
    Unclear(Failure),
}

/// What the API server serves, asked once and again after a doubt.
pub(super) struct Discovery {
    client: Client,
    version: Memory<(), Version>,
    /// Resource names by group and kind.
    resources: Memory<(String, String), String>,
}

impl Discovery {
    pub(super) fn new(client: Client) -> Self {
        Self { client, version: Memory::new(1), resources: Memory::new(REMEMBERED) }
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
        self.version.doubt(before);
        self.resources.doubt(before);
    }

    /// The served version of the custom metrics API: v1beta2, else v1beta1.
    pub(super) async fn version(&self) -> Result<Version, Failure> {
        // A failure makes the breaker leave the API alone: nothing more has to be remembered.
        let ask = async { self.ask_version().await.map_or_else(Asked::Unclear, Asked::Found) };
        self.version.get(&(), ask).await
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
        let topic = (group.to_owned(), kind.to_owned());
        self.resources.get(&topic, self.ask_resource(group, kind)).await
    }

    async fn ask_resource(&self, group: &str, kind: &str) -> Asked<String> {
        let unmapped = |why: String| {
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            Failure::Answered(format!("unable to map kind {} to resource: {why}", shorten(&kind)))
        };
        let served = match discovery::group(&self.client, group).await {
            Ok(served) => served,
            Err(error @ kube::Error::Discovery(_)) => return Asked::Absent(unmapped(chain(&error))),
            Err(error) => return Asked::Unclear(unmapped(chain(&error))),
        };
        let found = served.resources_by_stability().into_iter().find(|(resource, _)| resource.kind == kind);
        match found {
            Some((resource, _)) if group.is_empty() => Asked::Found(resource.plural),
            Some((resource, _)) => Asked::Found(format!("{}.{group}", resource.plural)),
            None => Asked::Absent(unmapped("no such kind is served".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::future::join_all;
    use serde_json::json;

    use super::*;

    /// An API server that serves the group `apps` with Deployments, counts its requests, and answers each after 50 ms.
    fn counting() -> (Discovery, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            let body = match request.uri().path() {
                "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [{
                    "name": "apps",
                    "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
                    "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
                }]}),
                _ => json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "apps/v1", "resources": [{
                    "name": "deployments", "singularName": "deployment", "namespaced": true, "kind": "Deployment", "verbs": [],
                }]}),
            };
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                http::Response::builder().status(200).body(body.to_string())
            }
        });
        (Discovery::new(Client::new(service, "default")), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_asked_for_once_a_minute() {
        let (discovery, asked) = counting();
        let discovery = &discovery;
        let ask = async |group, kind| join_all((0..20).map(|_| discovery.resource(group, kind))).await;
        let requests = || asked.swap(0, Ordering::SeqCst);
        for (group, kind) in [("absent.example", "Thing"), ("apps", "Absent")] {
            assert!(ask(group, kind).await.iter().all(Result::is_err));
            let once = requests();
            assert!((1..=2).contains(&once), "{once} requests for {kind}.{group}, twenty times at once");
            tokio::time::advance(SURE_FOR - Duration::from_secs(1)).await;
            assert!(ask(group, kind).await.iter().all(Result::is_err));
            assert_eq!(requests(), 0, "it is remembered");
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(ask(group, kind).await.iter().all(Result::is_err));
            assert_eq!(requests(), once, "it may have come");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_is_asked_for_after_a_doubt_alone() {
        let (discovery, asked) = counting();
        let requests = || asked.swap(0, Ordering::SeqCst);
        assert_eq!(discovery.resource("apps", "Deployment").await.as_deref(), Ok("deployments.apps"));
        assert_eq!(requests(), 2);
        tokio::time::advance(10 * SURE_FOR).await;
        assert!(discovery.resource("apps", "Deployment").await.is_ok());
        assert_eq!(requests(), 0);
        discovery.doubt();
        assert!(discovery.resource("apps", "Deployment").await.is_ok());
        assert_eq!(requests(), 2);
        discovery.doubt();
        assert!(discovery.resource("apps", "Deployment").await.is_ok());
        assert_eq!(requests(), 0, "a moment ago is no doubt");
        discovery.forget();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(discovery.resource("apps", "Deployment").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_keeps_nobody_waiting() {
        let (discovery, _) = counting();
        let hasty = tokio::time::timeout(Duration::from_millis(10), discovery.resource("apps", "Deployment"));
        let (hasty, patient) = tokio::join!(hasty, discovery.resource("apps", "Deployment"));
        assert!(hasty.is_err());
        assert_eq!(patient.as_deref(), Ok("deployments.apps"));
    }
}
