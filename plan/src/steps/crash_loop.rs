//! The crash-loop backoff of virtual machines.
//!
//! A VirtualMachineInstanceReplicaSet replaces an ended guest at once and for ever. Here a guest that ends young pauses its set,
//! for 10 s, then 20 s, up to 5 minutes; kubelet's rules for containers (`MaxContainerBackOff`, reset after 10 minutes).
//! After each pause the set may make its replacements once and is paused again while they prove themselves, so that one round
//! of failures costs one round of guests.

use jiff::Timestamp;

use crate::facts::{Crash, CrashLoop, InstanceSet, after};

/// The first pause, in seconds; doubled with each round.
const FIRST_PAUSE: u32 = 10;
/// The longest pause, in seconds.
const LONGEST_PAUSE: u32 = 300;
/// A guest that lived longer did not crash young; and after so long without a crash the count starts again, in seconds.
const RESET: u32 = 600;

impl Crash {
    fn is_young(&self) -> bool {
        self.ended < after(self.created, RESET)
    }
}

impl CrashLoop {
    fn pause_seconds(rounds: u32) -> u32 {
        let doublings = rounds.saturating_sub(1).min(16);
        FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
    }

    /// Until when replacements are on probation.
    fn probation_end(&self) -> Timestamp {
        after(self.until, Self::pause_seconds(self.rounds.saturating_add(1)))
    }
}

/// What the backoff asks of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state to note.
    pub state: Option<CrashLoop>,
    /// Whether the set has to be paused.
    pub pause: bool,
    /// True while replacements are held back: the condition says so.
    pub holding: bool,
    /// When to look again.
    pub look_again: Option<Timestamp>,
}

/// Decides from the noted state and the crashes seen since.
#[must_use]
pub fn judge(set: &InstanceSet, wanted: u32, now: Timestamp) -> Verdict {
    let nothing = Verdict { state: None, pause: false, holding: false, look_again: None };
    // A set on its way to nothing replaces nothing either; its note goes with the write that lowers it.
    if wanted == 0 {
        return nothing;
    }
    let state =
        set.crashes.iter().filter(|crash| crash.is_young()).fold(set.crash_loop, |state, crash| note(state, *crash));
    let Some(state) = state.filter(|state| now < after(state.last, RESET).max(state.probation_end())) else {
        return nothing;
    };
    let missing = set.live_count() < wanted;
    let (pause, next) = if now < state.until {
        (true, state.until)
    } else if now < state.probation_end() {
        (!missing, state.probation_end())
    } else {
        (false, after(state.last, RESET).max(state.probation_end()))
    };
    Verdict { state: Some(state), pause, holding: missing && now < state.until, look_again: Some(next) }
}

/// Adds a crash. Guests of the same round (created before the last crash) do not count again: two that die together are one round.
fn note(state: Option<CrashLoop>, crash: Crash) -> Option<CrashLoop> {
    let next = |rounds: u32| CrashLoop {
        rounds,
        last: crash.ended,
        until: after(crash.ended, CrashLoop::pause_seconds(rounds)),
    };
    Some(match state {
        None => next(1),
        Some(state) if crash.ended <= state.last => state,
        Some(state) if crash.ended >= after(state.last, RESET) => next(1),
        Some(state) if crash.created <= state.last => state,
        Some(state) => next(state.rounds.saturating_add(1)),
    })
}
