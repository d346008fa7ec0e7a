//! From goal and facts to steps: one pass a file.

pub mod counts;
pub mod crash_loop;
pub mod freeze;
pub mod in_place;
pub(crate) mod machine_sets;
pub(crate) mod replica_sets;
