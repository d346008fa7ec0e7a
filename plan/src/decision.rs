//! What scaling decided, as a plan carries it out.

use catamaran_autoscale::{Decision, History};

/// A decision of scaling, and what has to be remembered if it is carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// The decision.
    pub decision: Decision,
    /// The history with it.
    pub history: History,
}
