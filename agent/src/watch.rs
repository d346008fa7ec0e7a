//! The pods of this node, from the API server.

use std::{collections::HashSet, pin::pin, time::Duration};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client, ResourceExt,
    api::ApiResource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::watch;

use crate::{
    metrics::Metrics,
    pods::{Pod, PodObject, Pods},
};

/// Pods of one answer when they are listed: what is decoded at once bounds the memory of the process.
const PAGE: u32 = 50;

/// Keeps `pods` as the API server has them, until it is dropped. `listed` becomes true when they are complete for the
/// first time. While the API server cannot be reached, the pods known so far are sampled and held on.
pub async fn keep(client: Client, node: String, pods: Pods, listed: watch::Sender<bool>, metrics: Metrics) {
    let api: Api<PodObject> = Api::all_with(client, &ApiResource::erase::<v1::Pod>(&()));
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}")).page_size(PAGE);
    let mut stream = pin!(watcher(api, config).default_backoff());
    let mut seen = HashSet::new();
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => enter(event, &pods, &mut seen, &listed),
            // The stream of a watcher does not end; it is asked again all the same.
            Ok(None) => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(error) => {
                metrics.watch_failed();
                tracing::warn!(%error, "the watch of this node's pods failed and is started again");
            }
        }
    }
}

fn enter(event: Event<PodObject>, pods: &Pods, seen: &mut HashSet<Box<str>>, listed: &watch::Sender<bool>) {
    match event {
        Event::Init => seen.clear(),
        Event::InitApply(object) => {
            seen.extend(object.uid().map(String::into_boxed_str));
            set(&object, pods);
        }
        Event::InitDone => {
            pods.keep(seen);
            seen.clear();
            listed.send_replace(true);
        }
        Event::Apply(object) => set(&object, pods),
        Event::Delete(object) => {
            if let Some(uid) = object.uid() {
                pods.remove(&uid);
            }
        }
    }
}

fn set(object: &PodObject, pods: &Pods) {
    match (Pod::from_object(object), object.uid()) {
        (Some(pod), _) => pods.set(pod),
        (None, Some(uid)) => pods.remove(&uid),
        (None, None) => {}
    }
}
