//! What this operator noted on its sets, and the guests that ended: what outlives a process.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A guest that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crash {
    /// When the instance was created, in whole seconds of the API server's clock.
    pub created: Timestamp,
    /// When it was seen to have ended.
    pub ended: Timestamp,
    /// When the newest instance that was there then was created; this one or another.
    pub newest: Timestamp,
}

/// The state of the backoff, kept as an annotation of the set: it survives the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CrashLoop {
    /// Rounds of crashes without a quiet time between them.
    pub rounds: u32,
    /// Guests created up to then belong to the present round.
    pub newest: Timestamp,
    /// When the last crash was seen.
    pub last: Timestamp,
    /// Until when nothing is replaced.
    pub until: Timestamp,
    /// The longest that one of the crashed guests lived, in seconds.
    pub longest: u32,
}

/// What is noted on a set of virtual machines; the text is the annotation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrozenNote {
    /// Its instances are to be paused.
    Frozen,
    /// They are unpaused, since then.
    Thawing(Timestamp),
}

impl fmt::Display for FrozenNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => f.write_str("true"),
            Self::Thawing(since) => write!(f, "{since}"),
        }
    }
}

impl FrozenNote {
    /// Reads the annotation. A text that nobody here wrote counts as frozen: then guests are unpaused at least.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or(Self::Frozen, Self::Thawing)
    }
}
