//! `kubectl catamaran top`: what workloads use now, as the operator knows it.

mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};
use catamaran_protocol::usage::UsageList;
use clap::Args;

use crate::{
    connection::{ConnectionArguments, ScopeArguments},
    explain::segment,
    operator::{Operator, OperatorArguments},
    output::{colours, print},
};

/// CPU and memory are sums over the replicas; pressure (PSI some) and throttling are means of each replica's busiest
/// container.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    scope: ScopeArguments,
    /// A line for each replica as well
    #[arg(long)]
    replicas: bool,
    /// Print the operator's answer as JSON
    #[arg(long)]
    json: bool,
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
    let namespace = arguments.scope.namespace(&client);
    let segments = [namespace, arguments.scope.name.as_deref()];
    let path: String = segments.into_iter().flatten().map(|name| format!("/{}", segment(name))).collect();
    let list = all(&operator, &format!("/usage{path}?replicas={}", arguments.replicas)).await?;
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&list)? + "\n",
        false if list.items.is_empty() => {
            let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
            eprintln!("No ElasticWorkloads found{place}.");
            return Ok(ExitCode::SUCCESS);
        }
        false => table::table(&list.items, namespace.is_none(), colours()),
    };
    print(&text).context("standard output cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// All pages of an answer.
async fn all(operator: &Operator, path: &str) -> Result<UsageList> {
    let mut list = UsageList::default();
    loop {
        let after = list.continue_.take().map(|after| format!("&continue={}", segment(&after)));
        let page = operator.get(&format!("{path}{}", after.unwrap_or_default())).await?;
        let page: UsageList = serde_json::from_str(&page).context("the operator's answer cannot be read")?;
        let empty = page.items.is_empty();
        list.items.extend(page.items);
        list.continue_ = page.continue_.filter(|_| !empty);
        if list.continue_.is_none() {
            return Ok(list);
        }
    }
}
