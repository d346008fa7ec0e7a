//! What all proposals of one decision look at.

use jiff::Timestamp;

use super::{
    pods::Pod,
    policy::{Settings, Tolerance},
};

/// What a proposal depends on besides the metric and its samples.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// `spec.replicas` of the target.
    pub replicas: i32,
    /// `status.replicas` of the target.
    pub status_replicas: i32,
    pub pods: &'a [&'a Pod],
    pub tolerance: Tolerance,
    pub settings: &'a Settings,
    pub now: Timestamp,
}
