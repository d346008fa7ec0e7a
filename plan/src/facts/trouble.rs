//! Replicas that do not become ready, and why.

use std::fmt;

/// What keeps a replica from becoming ready.
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
    /// Whether it is a fault at once, or only if it lasts.
    pub fault: bool,
}
