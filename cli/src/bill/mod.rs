//! `kubectl catamaran bill`: what workloads used or had reserved in a period, at the price of their class.
//!
//! - [`period`]: which hours
//! - [`ledger`]: what the operator says of them
//! - [`prometheus`]: what a Prometheus that scrapes it says of them
//! - [`price`]: what classes cost
//! - [`charge`]: amounts and prices make charges
//! - [`table`], [`focus`]: how they are shown

mod charge;
mod focus;
mod ledger;
mod period;
mod price;
mod prometheus;
mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};
use catamaran_protocol::accounts::HourOfAccount;
use clap::{Args, ValueEnum};
use http::Uri;
use jiff::Timestamp;

use crate::{
    connection::{ConnectionArguments, ScopeArguments},
    operator::OperatorArguments,
    output::{colours, print},
};
use charge::Basis;
use focus::{FocusArguments, focus};
use period::{Period, PeriodArguments};

/// Whole hours of UTC are charged, at the price that a class has now. What has no price is metered and costs nothing.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    scope: ScopeArguments,
    #[command(flatten)]
    period: PeriodArguments,
    /// What is charged
    #[arg(long, value_enum, default_value_t = Basis::Usage)]
    by: Basis,
    /// How it is shown
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Take figures from this Prometheus, which scrapes the operator, in place of the operator's own ledger
    #[arg(long, value_name = "URL")]
    prometheus: Option<Uri>,
    #[command(flatten)]
    focus: FocusArguments,
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    operator: OperatorArguments,
}

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line for each workload, for people
    Table,
    /// One line for each hour and workload
    Csv,
    /// The same as JSON
    Json,
    /// The columns of FOCUS 1.2, one line for each hour, workload and resource
    Focus,
}

/// Asks, charges and prints.
///
/// # Errors
/// When the period is none, there is no answer, or standard output fails.
pub async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let period = Period::from_arguments(&arguments.period, Timestamp::now())?;
    let client = arguments.connection.client().await?;
    let namespace = arguments.scope.namespace(&client);
    let mut hours = match &arguments.prometheus {
        Some(url) => prometheus::hours(url, &period, namespace).await?,
        None => {
            let operator = arguments.operator.find(&client).await?;
            ledger::hours(&operator, &period, namespace).await?
        }
    };
    if let Some(name) = &arguments.scope.name {
        hours.retain(|hour| hour.workload == *name);
    }
    let prices = price::of_classes(&client).await?;
    let charged: Vec<_> = hours.iter().map(|hour| charge::charge(hour, arguments.by, &prices)).collect();
    warn(&hours, arguments.by);
    if charged.is_empty() {
        let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        eprintln!("Nothing was metered{place} from {} to {}.", period.from, period.to);
    }
    let text = match arguments.output {
        Output::Table if charged.is_empty() => return Ok(ExitCode::SUCCESS),
        Output::Table => table::table(&charged, namespace.is_none(), colours()),
        Output::Csv => table::csv(&charged)?,
        Output::Json => table::json(&charged)?,
        Output::Focus => {
            let without = charged.iter().filter(|charged| charged.charges.is_empty()).count();
            if without > 0 {
                eprintln!("{without} hours of workloads have nothing to charge: no price, or nothing of what has one.");
            }
            focus(&charged, &arguments.focus)?
        }
    };
    print(&text).context("standard output cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// Tells of time over which nothing was measured: a bill by usage is too low by that.
fn warn(hours: &[HourOfAccount], by: Basis) {
    let sum = |pick: fn(&HourOfAccount) -> u64| hours.iter().map(pick).fold(0, u64::saturating_add);
    let replicas = sum(|hour| hour.amounts.replica_usec);
    let missing = replicas.saturating_sub(sum(|hour| hour.amounts.metered_usec));
    // Below a hundredth it is the seconds before the first reading and after the last one.
    if by == Basis::Usage && missing > replicas / 100 {
        eprintln!(
            "No agent read memory for {} s of {} s that replicas existed: memory is charged for the rest alone.",
            missing / 1_000_000,
            replicas / 1_000_000
        );
    }
}
