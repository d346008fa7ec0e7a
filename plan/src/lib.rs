//! All that Catamaran decides, as pure functions: no client, no clock, no I/O. Time is an argument.
//!
//! ```text
//! ElasticWorkload + WorkloadClass -> goal::resolve -> Goal --+
//! replica sets, instances, Service -> Facts -----------------+-> plan() -> Plan {steps, waits, status, requeue_at}
//! autoscale::decide -> Scaled -------------------------------+
//! ```
//!
//! `plan` is a list of passes over a draft ([`planner`]): the replica count is in [`Goal::count`], the share of each
//! revision in [`steps::counts`].
//!
//! Laws, checked by tests: `plan` is total and deterministic; once its steps are applied and seen, planning again gives
//! no step; and every plan keeps the bounds of the rollout ([`check`]).

pub mod check;
mod decision;
mod draft;
pub mod facts;
pub mod goal;
pub mod objects;
pub mod plan;
pub mod planner;
pub mod status;
pub mod steps;

pub use catamaran_autoscale::quantity;
pub use decision::Scaled;
pub use facts::Facts;
pub use goal::{Goal, Invalid, resolve};
pub use plan::{Action, Plan, Problem, SetReference, SetUpdate, Step};
pub use planner::{plan, plan_invalid};
