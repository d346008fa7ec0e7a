//! The status that goes with a plan, and what is worth an Event.

mod announcements;
mod conditions;
mod enforced;
mod out_of_memory;
mod problem;
mod quota;
mod rollout;
pub mod scaling;
mod sets;

pub(crate) use announcements::announce;
pub use announcements::announcements;
pub use conditions::{Counted, FOREIGN_CHANGE, OUT_OF_MEMORY, Progress, QUOTA_ENFORCED, conditions};
pub use problem::{undecided, with_invalid, with_problem};
pub(crate) use quota::of_quota;
pub use rollout::selector;
pub(crate) use rollout::{of_frozen, of_rollout, progress_since};
pub(crate) use scaling::of_scaling;
pub(crate) use sets::of_sets;
