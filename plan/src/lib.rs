//! All that Catamaran decides, as pure functions: no client, no clock, no I/O. Time is an argument.
//!
//! ```text
//! ElasticWorkload + WorkloadClass -> desired::resolve -> Desired --+
//! replica sets, instances, Service -> Observed --------------------+-> plan() -> Plan {steps, waits, status, requeue_at}
//! ```
//!
//! Laws, checked by tests: `plan` is total and deterministic; once its steps are applied and seen, planning again gives no step;
//! and every plan keeps the bounds of the rollout ([`invariants`]).

pub mod action;
pub mod crash_loop;
pub mod decided;
pub mod desired;
pub mod enforced;
pub mod frozen;
pub mod in_place;
pub mod invariants;
pub mod knobs;
pub mod machines;
pub mod objects;
pub mod observed;
pub mod out_of_memory;
pub mod planner;
mod pods;
pub mod quantity;
pub mod quota;
pub mod render;
pub mod report;
pub mod revision;
pub mod rollout;
pub mod scaling;
pub mod status;

pub use action::{Action, SetReference, SetUpdate};
pub use desired::{Desired, Invalid, resolve};
pub use observed::Observed;
pub use planner::{Plan, Step, plan, plan_invalid};
