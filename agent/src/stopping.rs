//! Whether an agent that is asked to stop goes for good: with its DaemonSet, as at an uninstall, or to be replaced by
//! another one.
//!
//! An update of the DaemonSet must not thaw a frozen workload or lift a quota, not for a second; an uninstall must
//! leave nothing behind. So the agent asks for its DaemonSet when it is asked to stop.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, core::PartialObjectMeta};
use tokio::time::timeout;

/// How long to wait for an answer: a pod has 30 s to end, and quotas are to be set back in them.
const WITHIN: Duration = Duration::from_secs(5);

/// The DaemonSet that an agent is of.
#[derive(Clone, Debug)]
pub struct OwnSet {
    api: Api<DaemonSet>,
    name: String,
    /// It was there when the agent started, and might be read.
    seen: bool,
}

/// Why an agent is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    /// Its DaemonSet is gone or going.
    ForGood,
    /// The DaemonSet stays: another agent follows.
    ToBeReplaced,
    /// It cannot be said. Taken as if another agent followed: to thaw what is frozen is worse than to leave a limit
    /// behind.
    Unknown,
}

impl OwnSet {
    /// Looks at the DaemonSet of this name, to know later whether it may be read at all.
    pub async fn look(client: Client, namespace: &str, name: &str) -> Self {
        let mut own = Self { api: Api::namespaced(client, namespace), name: name.to_owned(), seen: false };
        own.seen = matches!(own.ask().await, Some(Ok(Some(_))));
        own
    }

    /// Why this agent is asked to stop.
    pub async fn stopping(&self) -> Stopping {
        self.ask().await.map_or(Stopping::Unknown, |answer| stopping(&answer, self.seen))
    }

    /// `None` when no answer comes in time.
    async fn ask(&self) -> Option<Answer> {
        timeout(WITHIN, self.api.get_metadata_opt(&self.name)).await.ok()
    }
}

type Answer = Result<Option<PartialObjectMeta<DaemonSet>>, kube::Error>;

fn stopping(answer: &Answer, seen: bool) -> Stopping {
    match answer {
        Ok(None) => Stopping::ForGood,
        Ok(Some(set)) if set.metadata.deletion_timestamp.is_some() => Stopping::ForGood,
        Ok(Some(_)) => Stopping::ToBeReplaced,
        // The account or its rights went with the release.
        Err(kube::Error::Api(status)) if seen && matches!(status.code, 401 | 403) => Stopping::ForGood,
        Err(_) => Stopping::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use kube::core::{ObjectMeta, Status};

    use super::*;

    fn set(deleted: bool) -> Answer {
        let deletion_timestamp = deleted.then_some(Time(Timestamp::UNIX_EPOCH));
        Ok(Some(PartialObjectMeta {
            metadata: ObjectMeta { deletion_timestamp, ..ObjectMeta::default() },
            ..PartialObjectMeta::default()
        }))
    }

    fn error(code: u16) -> Answer {
        Err(kube::Error::Api(Box::new(Status { code, ..Status::default() })))
    }

    #[test]
    fn only_an_uninstall_is_for_good() {
        for (answer, seen, expected) in [
            (set(false), true, Stopping::ToBeReplaced),
            (set(true), true, Stopping::ForGood),
            (Ok(None), true, Stopping::ForGood),
            (error(403), true, Stopping::ForGood),
            (error(401), true, Stopping::ForGood),
            (error(403), false, Stopping::Unknown),
            (error(500), true, Stopping::Unknown),
        ] {
            assert_eq!(stopping(&answer, seen), expected, "{answer:?}, seen: {seen}");
        }
    }
}
