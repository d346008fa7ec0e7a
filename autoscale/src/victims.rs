//! Which replicas go when there are to be fewer.
//!
//! Whatever the choice, replicas that are not ready go first, the newest of them first: nothing is lost with them.
//! Then:
//!
//! | `victims` | who goes first | and among equals |
//! |---|---|---|
//! | `LeastBusy` | the lowest usage; unknown usage counts as the highest | the newest |
//! | `Newest` | the most recently created | |
//! | `Default` | the most recently ready, as a ReplicaSet has it | the newest |
//!
//! Unknown usage is the highest so that a sample that was lost never costs a busy replica. With no usage known at all,
//! `LeastBusy` is `Newest`. Only right after the operator's start is the choice put off for a while, until agents have
//! told it what it does not know yet. The name decides last, so the same replicas always give the same order.

use std::cmp::Reverse;

use jiff::Timestamp;

/// `scaling.victims`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Victims {
    /// The one with the least to do.
    LeastBusy,
    /// The one that was made last.
    Newest,
    /// What a ReplicaSet would take.
    #[default]
    Default,
}

/// A replica that could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it was created.
    pub created: Timestamp,
    /// Since when it is ready; `None` when it is not.
    pub ready_since: Option<Timestamp>,
    /// How busy it is, on any scale that is the same for all; `None` when that is not known, or out of date.
    pub usage: Option<i64>,
}

/// The candidates in the order in which they go.
#[must_use]
pub fn order<'a>(victims: Victims, candidates: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let mut order = candidates.to_vec();
    order.sort_by_key(|candidate| {
        let Candidate { name, created, ready_since, usage } = *candidate;
        let newest = Reverse(created);
        let rank = match (ready_since, victims) {
            (None, Victims::LeastBusy | Victims::Newest | Victims::Default) | (Some(_), Victims::Newest) => {
                Rank::default()
            }
            (Some(_), Victims::LeastBusy) => Rank { unknown: usage.is_none(), usage, ready_since: None },
            (Some(since), Victims::Default) => Rank { ready_since: Some(Reverse(since)), ..Rank::default() },
        };
        (ready_since.is_some(), rank, newest, name)
    });
    order
}

/// Whether the order may be another one once the usage that is missing is known.
#[must_use]
pub fn is_open(victims: Victims, candidates: &[Candidate<'_>]) -> bool {
    match victims {
        Victims::LeastBusy => candidates.iter().any(|one| one.ready_since.is_some() && one.usage.is_none()),
        Victims::Newest | Victims::Default => false,
    }
}

/// What tells ready replicas apart, besides their age. The lowest goes first.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    unknown: bool,
    usage: Option<i64>,
    ready_since: Option<Reverse<Timestamp>>,
}
