//! What the endpoints look at.

use std::sync::Arc;

use catamaran_controller::liveness::Checks;

use crate::{
    accounting::Accounts,
    autoscaler::Autoscaler,
    findings::Findings,
    metrics::Metrics,
    stores::{Queue, Stores},
};

/// What the endpoints look at.
#[derive(Clone)]
pub struct Probes {
    /// What must be so for this process to be ready.
    pub checks: Checks,
    /// What waits.
    pub queue: Queue,
    /// What is counted.
    pub metrics: Metrics,
    /// What is known.
    pub stores: Stores,
    /// What decides on counts, and knows usage.
    pub autoscaler: Autoscaler,
    /// What agents found at pods.
    pub findings: Findings,
    /// What was used and reserved.
    pub accounts: Accounts,
    /// The name of this process.
    pub identity: Arc<str>,
}
