//! The operator: watch -> observe -> plan -> apply. It decides nothing by itself; that is the `plan` crate's.
//!
//! - [`stores`]: what is known of the cluster, kept by watches, with the operator's own writes seen at once
//! - [`observe`]: the part of it that one workload's plan may look at
//! - [`apply`]: carries out a plan's actions; the only code that writes workload objects
//! - [`orphans`]: what is done for replicas whose workload was deleted without them
//! - [`pace`]: how often that may be done for one tenant
//! - [`reconcile`]: one pass for one workload, and the loop around it
//! - [`autoscaler`]: keeps the counts up to date, with what usage and metrics say
//! - [`explain`]: the plan and the last decision in words, for people who ask
//! - [`usage_report`]: what workloads use now, for people who ask
//! - [`accounting`]: what workloads used and had reserved, for bills
//! - [`intake`]: what containers use, as node agents stream it
//! - [`sources`]: metrics for scaling that are asked for, beside those that agents push

pub mod accounting;
pub mod apply;
pub mod autoscaler;
pub mod events;
pub mod explain;
pub mod findings;
#[cfg(test)]
mod fixtures;
pub mod http;
pub mod intake;
pub mod metrics;
pub mod observe;
pub mod orphans;
pub mod pace;
pub mod reconcile;
pub mod run;
pub mod settings;
pub mod sources;
pub mod stores;
pub mod usage_report;
