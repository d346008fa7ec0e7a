//! Replicas that do not become ready, and why.

use std::fmt;

/// What keeps a replica from becoming ready. Of each set one is known, the worst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The uid of its replica set.
    pub set: String,
    /// Which replica, as `Pod web-1-x`.
    pub replica: String,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set: _, replica, cause } = self;
        write!(f, "{replica}: {}: {}", cause.reason, cause.message)
    }
}

/// A cause, as those say it who see to the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One word, as `ImagePullBackOff`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// How bad that is.
    pub severity: Severity,
}

/// How bad it is that a replica is not ready, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A fault at once.
    Fault,
    /// A fault if it lasts.
    IfItLasts,
    /// What every start goes through: only of interest once a deadline is missed.
    Start,
}
