//! From goal and facts to steps: one pass a file, in the order of [`planner`](crate::planner).

pub mod counts;
pub mod crash_loop;
mod depart;
pub(crate) mod freeze;
pub(crate) mod held;
pub(crate) mod history;
pub(crate) mod in_place;
mod machine_sets;
mod replica_sets;
pub(crate) mod service;
pub(crate) mod sets;
pub(crate) mod target;
pub(crate) mod unseen;
mod victims;
