//! What a simulation comes to: counts, unserved demand, cost.

use serde::Serialize;

use super::{
    plant::{Outcome, Step},
    workload::Workload,
};

const MILLISECONDS_IN_HOUR: f64 = 3_600_000.0;
const GIB: f64 = (1_u64 << 30) as f64;

/// What a core and a GiB of memory cost for an hour, as requested.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// Of a core.
    pub core_hour: Option<f64>,
    /// Of a GiB.
    pub gib_hour: Option<f64>,
    /// What they are in.
    pub currency: Option<String>,
}

/// The figures of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// How long the trace is.
    pub seconds: f64,
    /// The fewest replicas.
    pub replicas_min: i32,
    /// On average over time.
    pub replicas_mean: f64,
    /// The most.
    pub replicas_max: i32,
    /// How often the count changed.
    pub changes: usize,
    /// Replicas, ready or not, times hours.
    pub replica_hours: f64,
    /// Of the requests; `None` without a request.
    pub cpu_core_hours: Option<f64>,
    /// Of the requests; `None` without a request.
    pub memory_gib_hours: Option<f64>,
    /// The demand.
    pub demand_core_hours: f64,
    /// The demand that was beyond what the ready replicas could do.
    pub unserved_core_seconds: f64,
    /// The same as a share of the demand.
    pub unserved_share: f64,
    /// The share of the time in which there was any.
    pub short_share: f64,
    /// Which share of the requested CPU was used; above 1 when replicas use more than they ask for. `None` without a
    /// request.
    pub cpu_used_share: Option<f64>,
    /// `None` without a price.
    pub cost: Option<f64>,
    /// What the cost is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}

/// A price for what a replica does not ask for.
#[derive(Debug, thiserror::Error)]
#[error("{workload}: {option} needs a {resource} request of every container; set spec.quota.{resource}.request")]
pub struct NoRequest {
    workload: String,
    option: &'static str,
    resource: &'static str,
}

impl Summary {
    /// Adds up.
    ///
    /// # Errors
    /// When there is a price for a resource that the replicas do not ask for.
    pub fn new(workload: &Workload, outcome: &Outcome, prices: &Prices) -> Result<Self, NoRequest> {
        let totals = &outcome.totals;
        let replica_hours = totals.replicas as f64 / MILLISECONDS_IN_HOUR;
        let requests = workload.replica.requests;
        let cpu_core_hours = requests.cpu.map(|milli| replica_hours * milli as f64 / 1000.0);
        let memory_gib_hours = requests.memory.map(|bytes| replica_hours * bytes as f64 / GIB);
        let priced = |price: Option<f64>, hours: Option<f64>, option, resource| match (price, hours) {
            (None, _) => Ok(None),
            (Some(price), Some(hours)) => Ok(Some(price * hours)),
            (Some(_), None) => Err(NoRequest { workload: workload.name.clone(), option, resource }),
        };
        let cpu = priced(prices.core_hour, cpu_core_hours, "--price-core-hour", "cpu")?;
        let memory = priced(prices.gib_hour, memory_gib_hours, "--price-gib-hour", "memory")?;
        let counts = || outcome.steps.iter().map(|step| step.replicas);
        let before = outcome.steps.iter().skip(1);
        let moved = |(step, next): &(&Step, &Step)| step.replicas != next.replicas;
        let first = outcome.steps.first().map_or(0, |step| i32::from(step.replicas != workload.replicas));
        let share = |part: i128, whole: i128| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let served_core_hours = totals.served as f64 / 1000.0 / MILLISECONDS_IN_HOUR;
        Ok(Self {
            seconds: totals.time as f64 / 1000.0,
            replicas_min: counts().min().unwrap_or(0),
            replicas_mean: share(totals.replicas, totals.time),
            replicas_max: counts().max().unwrap_or(0),
            changes: outcome.steps.iter().zip(before).filter(moved).count() + usize::try_from(first).unwrap_or(0),
            replica_hours,
            cpu_core_hours,
            memory_gib_hours,
            demand_core_hours: totals.offered as f64 / 1000.0 / MILLISECONDS_IN_HOUR,
            unserved_core_seconds: totals.unserved as f64 / 1_000_000.0,
            unserved_share: share(totals.unserved, totals.offered),
            short_share: share(totals.short, totals.time),
            cpu_used_share: cpu_core_hours.filter(|hours| *hours > 0.0).map(|hours| served_core_hours / hours),
            cost: (cpu.is_some() || memory.is_some()).then(|| cpu.unwrap_or(0.0) + memory.unwrap_or(0.0)),
            currency: prices.currency.clone(),
        })
    }
}
