//! What happens when no metric answers any more.
//!
//! Until `after` seconds have passed since the last answer, the count is held. Then the fallback count takes the place
//! of the recommendation: it is stabilized, limited and bounded like one, but not remembered as one.
//! `CurrentReplicasIfHigher` never removes a replica and `CurrentReplicasIfLower` never adds one; `Static` may do both,
//! since that is what was asked for.
//!
//! When a metric answers again, the count of that moment is noted as a recommendation, as after a start: nothing is
//! removed before the metrics have been seen for a whole window.
//!
//! One metric that answers is enough for the fallback not to apply. Then the rules of the HPA for failed metrics do:
//! more replicas may be asked for, fewer not. The names are those of KEDA.

use jiff::{SignedDuration, Timestamp};

use super::arithmetic::later;

/// `scaling.fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// How long no metric may have answered, in seconds.
    pub after: u32,
    /// The fallback count.
    pub replicas: i32,
    /// How it is combined with the count there is.
    pub behavior: FallbackBehavior,
}

/// How the fallback count is combined with the count there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FallbackBehavior {
    /// The fallback count.
    #[default]
    Static,
    /// The count there is, whatever the fallback count.
    CurrentReplicas,
    /// The higher of the two.
    CurrentReplicasIfHigher,
    /// The lower of the two.
    CurrentReplicasIfLower,
}

impl Fallback {
    /// From when on it applies.
    #[must_use]
    pub fn due(&self, lost_since: Timestamp) -> Timestamp {
        later(lost_since, SignedDuration::from_secs(i64::from(self.after)))
    }

    /// The count it asks for.
    #[must_use]
    pub fn count(&self, current: i32) -> i32 {
        match self.behavior {
            FallbackBehavior::Static => self.replicas,
            FallbackBehavior::CurrentReplicas => current,
            FallbackBehavior::CurrentReplicasIfHigher => current.max(self.replicas),
            FallbackBehavior::CurrentReplicasIfLower => current.min(self.replicas),
        }
    }
}
