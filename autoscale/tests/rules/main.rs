//! How the autoscaling of a workload decides: the rules of the HPA, what goes beyond them, and what must hold in any
//! case.

mod activation;
mod check;
mod extremes;
mod fallback;
mod history;
mod hpa;
mod kit;
mod metrics;
mod modes;
mod plant;
mod properties;
mod schedules;
mod stories;
mod victims;
