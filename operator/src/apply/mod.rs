//! Carries out a plan's actions. The only code that writes workload objects; it decides nothing.
//!
//! - `writer`: from actions to requests
//! - `course`: which of them are carried out in one pass, and what became of them
//! - `sets`: new replica sets
//! - `requests`, `workload`: the requests, for a workload's children and for the workload itself
//! - `failure`: why one did not succeed

mod course;
mod failure;
mod requests;
mod sets;
mod workload;
mod writer;

pub use course::Applied;
pub use failure::Failure;
pub use writer::Writer;
