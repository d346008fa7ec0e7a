//! All that Catamaran decides, as pure functions: no client, no clock, no I/O. Time is an argument.
//!
//! ```text
//! ElasticWorkload + WorkloadClass -> desired::resolve -> Goal --+
//! replica sets, instances, Service -> Facts --------------------+-> plan() -> Plan {steps, waits, status, requeue_at}
//! ```
//!
//! Laws, checked by tests: `plan` is total and deterministic; once its steps are applied and seen, planning again gives no step;
//! and every plan keeps the bounds of the rollout ([`invariants`]).

pub mod check;
pub mod facts;
pub mod goal;
pub mod objects;
pub mod plan;
pub mod planner;
pub mod status;
pub mod steps;

pub use catamaran_autoscale::quantity;
pub use facts::Facts;
pub use goal::{Goal, Invalid, resolve};
pub use plan::{Action, Plan, Problem, SetReference, SetUpdate, Step};
pub use planner::{plan, plan_invalid};
