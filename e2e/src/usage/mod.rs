//! A simulator of usage: what node agents would report for the simulated pods, over the same protocol, by a model of
//! load.
//!
//! - [`demand`]: how much work arrives, over time
//! - [`world`]: what the pods then use; pure
//! - `pods`: which pods there are, by a watch
//! - [`tokens`]: the identity of each node's agent
//! - [`simulator`]: one agent for each node, with faults on demand

pub mod demand;
mod pods;
pub mod simulator;
pub mod tokens;
pub mod world;
