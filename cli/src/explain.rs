//! `kubectl catamaran explain`: the plan and the last decision in words, as the operator tells them.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    connection::{ConnectionArguments, NamespaceArguments},
    operator::OperatorArguments,
    output::print,
};

/// The operator is asked, since it alone has usage, history and what it is about to write. The text is the one of its
/// log and of Events.
#[derive(Args)]
pub struct Arguments {
    /// The ElasticWorkload
    name: String,
    #[command(flatten)]
    namespace: NamespaceArguments,
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    operator: OperatorArguments,
}

/// Asks and prints.
///
/// # Errors
/// When there is no answer, or standard output fails.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (client, operator) = arguments.operator.connect(&arguments.connection).await?;
    let path = format!("/explain/{}/{}", segment(arguments.namespace.or_default(&client)), segment(&arguments.name));
    let text = operator.get(&path).await?;
    // Messages in it may hold what others wrote.
    let text: String = text.chars().filter(|character| *character == '\n' || !character.is_control()).collect();
    print(&text).context("standard output cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// A name as a segment of a path.
#[must_use]
pub fn segment(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}
