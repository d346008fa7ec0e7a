//! What crosses processes, and is written down nowhere else.
//!
//! - [`node_quota`]: the annotation by which the operator tells a node agent what to hold a pod to
//! - [`usage`], [`accounts`]: the JSON that the operator answers to the kubectl plugin
//! - `stream` (a feature, as it does I/O): the usage stream from node agents to the operator

pub mod accounts;
pub mod node_quota;
#[cfg(feature = "stream")]
pub mod stream;
pub mod usage;
