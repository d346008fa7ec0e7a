//! That nothing stays: of the workloads in the cluster, and of the demo on this host.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use catamaran_crds::{ElasticWorkload, WorkloadClass};
use catamaran_e2e::{wait::eventually, workloads::workloads};
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{Api, Client, Resource, api::DeleteParams, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

/// Deletes the workloads of a namespace and the classes, and waits until their containers are gone with them.
pub(super) async fn delete_all(client: &Client, namespace: &str) -> Result<()> {
    workloads(client, namespace).delete_collection(&DeleteParams::default(), &Default::default()).await?;
    Api::<WorkloadClass>::all(client.clone()).delete_collection(&DeleteParams::default(), &Default::default()).await?;
    gone::<ElasticWorkload>(client, namespace).await?;
    gone::<ReplicaSet>(client, namespace).await?;
    gone::<Pod>(client, namespace).await
}

/// Waits until a namespace has no object of a kind.
pub(super) async fn gone<K>(client: &Client, namespace: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    eventually(&format!("the end of every {}", K::kind(&())), Duration::from_secs(60), || async {
        Ok(api.list_metadata(&Default::default()).await?.items.is_empty().then_some(()))
    })
    .await
}

/// Checks that the folder of the control plane and every process that names it are gone.
pub(super) async fn left(folder: &Path) -> Result<()> {
    ensure!(!folder.exists(), "{} is left", folder.display());
    let text = folder.to_string_lossy();
    eventually("the end of every process", Duration::from_secs(5), || async {
        for process in fs::read_dir("/proc")? {
            let command = fs::read(process?.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&*text) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}
