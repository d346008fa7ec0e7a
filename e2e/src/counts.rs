//! The counts that replica sets were given, and when: what a reaction to load ends with.

use std::{collections::HashMap, time::Instant};

use anyhow::{Context, Result};
use catamaran_crds::names::WORKLOAD_LABEL;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{Config, watcher},
    },
};
use tokio::{sync::watch, task::AbortHandle};

/// The counts of some replica sets, as they are written. A set is known by its workload, or by its label `app`.
#[derive(Debug)]
pub struct Counts {
    by_name: HashMap<String, watch::Receiver<(i32, Instant)>>,
    watch: AbortHandle,
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Counts {
    /// Watches the sets of these names until it is dropped. Until a set is seen its count is 0.
    #[must_use]
    pub fn watch(client: &Client, namespace: &str, names: impl IntoIterator<Item = String>) -> Self {
        let (mut senders, mut by_name) = (HashMap::new(), HashMap::new());
        for name in names {
            let (sender, receiver) = watch::channel((0, Instant::now()));
            senders.insert(name.clone(), sender);
            by_name.insert(name, receiver);
        }
        let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
        let watch = tokio::spawn(async move {
            let mut sets = watcher(sets, Config::default()).default_backoff().touched_objects().boxed();
            while let Some(set) = sets.next().await {
                let at = Instant::now();
                let Ok(set) = set else { continue };
                let name = set.labels().get(WORKLOAD_LABEL).or_else(|| set.labels().get("app"));
                let Some(sender) = name.and_then(|name| senders.get(name)) else { continue };
                let count = set.spec.and_then(|spec| spec.replicas).unwrap_or(1);
                sender.send_if_modified(|known| {
                    let news = known.0 != count;
                    if news {
                        *known = (count, at);
                    }
                    news
                });
            }
        });
        Self { by_name, watch: watch.abort_handle() }
    }

    /// The count now.
    ///
    /// # Errors
    /// When this name is not watched.
    pub fn replicas(&self, name: &str) -> Result<i32> {
        Ok(self.receiver(name)?.borrow().0)
    }

    /// Waits, for ever, until the count is this one.
    ///
    /// # Errors
    /// When this name is not watched.
    pub async fn is(&self, name: &str, wanted: i32) -> Result<Instant> {
        Ok(self.receiver(name)?.wait_for(|(count, _)| *count == wanted).await?.1)
    }

    /// Waits, for ever, until the count is above `resting`, and tells when it was raised.
    ///
    /// # Errors
    /// When this name is not watched.
    pub async fn rises(&self, name: &str, resting: i32) -> Result<Instant> {
        Ok(self.receiver(name)?.wait_for(|(count, _)| *count > resting).await?.1)
    }

    fn receiver(&self, name: &str) -> Result<watch::Receiver<(i32, Instant)>> {
        self.by_name.get(name).cloned().with_context(|| format!("{name} is not watched"))
    }
}
