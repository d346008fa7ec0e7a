//! `kubectl catamaran restart`: a new replica for each one, by a rollout, as `kubectl rollout restart` does for a
//! Deployment.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use catamaran_crds::{ElasticWorkload, names::RESTARTED_AT_ANNOTATION};
use clap::Args;
use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    connection::{ConnectionArguments, NamespaceArguments, describe},
    output::print,
};

/// The annotation is written with the user's own rights: `patch` on elasticworkloads.
#[derive(Args)]
pub struct Arguments {
    /// The ElasticWorkload
    name: String,
    #[command(flatten)]
    namespace: NamespaceArguments,
    #[command(flatten)]
    connection: ConnectionArguments,
}

/// Asks for the restart.
///
/// # Errors
/// When the API server refuses, or standard output fails.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let client = arguments.connection.client().await?;
    let api: Api<ElasticWorkload> = Api::namespaced(client.clone(), arguments.namespace.or_default(&client));
    let now = Timestamp::from_second(Timestamp::now().as_second())?.to_string();
    let patch = json!({ "metadata": { "annotations": { RESTARTED_AT_ANNOTATION: now } } });
    let parameters = PatchParams { field_manager: Some("kubectl-catamaran".to_owned()), ..PatchParams::default() };
    let answer = api.patch_metadata(&arguments.name, &parameters, &Patch::Merge(patch)).await;
    answer.map_err(|error| anyhow!(describe(&error)))?;
    let text = format!("elasticworkload.catamaran.dev/{} restarted\n", arguments.name);
    print(&text).context("standard output cannot be written")?;
    Ok(ExitCode::SUCCESS)
}
