//! `kubectl catamaran status`: workloads as a tree, read from the API server with the user's own rights.

mod tree;
mod view;

use std::{fmt::Debug, process::ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use catamaran_crds::{
    ElasticWorkload,
    kubevirt::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet},
    names::WORKLOAD_LABEL,
};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::ReplicaSet, core::v1::Pod},
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;

use crate::{
    connection::{ConnectionArguments, ScopeArguments, describe},
    output::{colours, print},
};
use view::{Children, Options};

/// Nothing but the API server is asked, as by `kubectl get`: ElasticWorkloads, ReplicaSets, Pods, and KubeVirt's kinds
/// where they exist.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    scope: ScopeArguments,
    /// Also show old revisions that have no replicas
    #[arg(long)]
    revisions: bool,
    #[command(flatten)]
    connection: ConnectionArguments,
}

/// Reads and prints.
///
/// # Errors
/// When the workload does not exist or may not be read, or standard output fails.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let client = arguments.connection.client().await?;
    let namespace = arguments.scope.namespace(&client);
    let workloads = workloads(&client, namespace, arguments.scope.name.as_deref()).await?;
    if workloads.is_empty() {
        let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        eprintln!("No ElasticWorkloads found{place}.");
        return Ok(ExitCode::SUCCESS);
    }
    let children = children(&client, namespace, arguments.scope.name.as_deref()).await;
    let options = Options { revisions: arguments.revisions, now: Timestamp::now() };
    let views = view::views(&workloads, &children, &options);
    print(&tree::render(&views, options.now, colours())).context("standard output cannot be written")?;
    for note in &children.notes {
        eprintln!("note: {note}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn workloads(client: &Client, namespace: Option<&str>, name: Option<&str>) -> Result<Vec<ElasticWorkload>> {
    let api: Api<ElasticWorkload> = api(client, namespace);
    let Some(name) = name else {
        let list = api.list(&ListParams::default()).await;
        return Ok(list.map_err(|error| unlisted(&error))?.items);
    };
    match api.get(name).await {
        Ok(workload) => Ok(vec![workload]),
        Err(kube::Error::Api(status))
            if status.code == 404 && status.details.as_ref().is_some_and(|d| !d.name.is_empty()) =>
        {
            bail!(
                "no ElasticWorkload {name} in namespace {}; see `kubectl get elasticworkloads --all-namespaces`",
                namespace.unwrap_or_default()
            )
        }
        Err(error) => Err(unlisted(&error)),
    }
}

/// Why there are no workloads.
fn unlisted(error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => anyhow!(
            "this cluster has no ElasticWorkloads: the API server does not know the kind; install Catamaran, or choose another --context"
        ),
        kube::Error::Api(_) => anyhow!("{}", describe(error)),
        other => anyhow!("the API server cannot be reached: {}", describe(other)),
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// What belongs to workloads. What may not be read is a note, and the rest is shown.
async fn children(client: &Client, namespace: Option<&str>, name: Option<&str>) -> Children {
    let label = name.map_or_else(|| WORKLOAD_LABEL.to_owned(), |name| format!("{WORKLOAD_LABEL}={name}"));
    let mut children = Children::default();
    children.replica_sets = list::<ReplicaSet>(client, namespace, &label, &mut children.notes).await;
    children.pods = list::<Pod>(client, namespace, &label, &mut children.notes).await;
    children.machine_sets =
        list::<VirtualMachineInstanceReplicaSet>(client, namespace, &label, &mut children.notes).await;
    children.instances = list::<VirtualMachineInstance>(client, namespace, &label, &mut children.notes).await;
    children
}

async fn list<K>(client: &Client, namespace: Option<&str>, label: &str, notes: &mut Vec<String>) -> Vec<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api::<K>(client, namespace).list(&ListParams::default().labels(label)).await {
        Ok(list) => list.items,
        // KubeVirt is not installed.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => {
            notes.push(format!("{} are not shown: {}", K::plural(&()), describe(&error)));
            Vec::new()
        }
    }
}
