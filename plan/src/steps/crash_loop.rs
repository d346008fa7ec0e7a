//! The crash-loop backoff of virtual machines.
//!
//! A VirtualMachineInstanceReplicaSet replaces an ended guest at once and for ever. Here the first guest that ends
//! young is replaced at once, as a kubelet restarts a container at once the first time. From then on the set is on
//! guard: paused, but for the moments in which it makes up what is missing. A guest that ends while its set is paused
//! waits for the backoff: 20 s, 40 s, up to 5 minutes, kubelet's numbers (`MaxContainerBackOff`); a pause that began
//! with each end would come too late, since virt-controller replaces within a tenth of a second.
//!
//! Ends are counted in rounds: guests that were there together when a round began belong to it, and the next one begins
//! with the end of a guest that was made later. So two guests that die one after the other do not wait for four.
//!
//! Who was there is decided by creation times alone, which one clock gives (the API server's).

use jiff::Timestamp;

use crate::facts::{Crash, CrashLoop, InstanceSet, after};

/// The pause that belongs to the first round, in seconds; doubled with each one. Its replacement is there already.
const FIRST_PAUSE: u32 = 10;
/// The longest pause, in seconds.
const LONGEST_PAUSE: u32 = 300;
/// A guest that lived longer did not crash young; and after so long without an end the count starts again, in seconds.
const RESET: u32 = 600;
/// The least time for which guests have to stay up before the workload is taken to be well again, in seconds.
const SHORTEST_PROOF: u32 = 60;

impl Crash {
    fn is_young(&self) -> bool {
        self.ended < after(self.created, RESET)
    }

    /// How long it lived, in whole seconds.
    fn lived(&self) -> u32 {
        u32::try_from(self.ended.duration_since(self.created).as_secs()).unwrap_or(0)
    }
}

impl CrashLoop {
    fn pause_seconds(rounds: u32) -> u32 {
        let doublings = rounds.saturating_sub(1).min(16);
        FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
    }

    /// When it is forgotten, if nothing ends until then.
    fn reset(&self) -> Timestamp {
        after(self.last.max(self.until), RESET)
    }

    /// When guests have stayed up for long enough to call the workload well, if nothing ends until then: for twice as
    /// long as those that ended, and as the last pause.
    fn proven(&self) -> Timestamp {
        let longest = self.longest.max(Self::pause_seconds(self.rounds));
        let proof = longest.saturating_mul(2).clamp(SHORTEST_PROOF, RESET);
        after(self.last.max(self.until), proof)
    }

    /// The state with one more crash.
    fn with(self, crash: Crash) -> Self {
        let (last, longest) = (self.last.max(crash.ended), self.longest.max(crash.lived()));
        if crash.created <= self.newest {
            return Self { last, longest, ..self };
        }
        Self { longest, ..Self::begin(self.rounds.saturating_add(1), crash) }
    }

    fn begin(rounds: u32, crash: Crash) -> Self {
        Self {
            rounds,
            newest: crash.newest,
            last: crash.ended,
            until: after(crash.ended, Self::pause_seconds(rounds)),
            longest: crash.lived(),
        }
    }
}

/// What the backoff asks of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state to note.
    pub state: Option<CrashLoop>,
    /// Whether the set has to be paused.
    pub pause: bool,
    /// True from the second round on, until guests have stayed up: the condition says so, whether they are there or
    /// not.
    pub backing_off: bool,
    /// When to look again.
    pub look_again: Option<Timestamp>,
}

/// Decides from the noted state and the crashes seen since.
#[must_use]
pub fn judge(set: &InstanceSet, wanted: u32, now: Timestamp) -> Verdict {
    let nothing = Verdict { state: None, pause: false, backing_off: false, look_again: None };
    // A set on its way to nothing replaces nothing either; its note goes with the write that lowers it.
    if wanted == 0 {
        return nothing;
    }
    let state = set.crashes.iter().filter(|crash| crash.is_young()).fold(set.crash_loop, |state, crash| match state {
        Some(state) if crash.ended < state.reset() => Some(state.with(*crash)),
        Some(_) | None => Some(CrashLoop::begin(1, *crash)),
    });
    let Some(state) = state.filter(|state| now < state.reset()) else {
        return nothing;
    };
    let missing = set.live_count() < wanted;
    let held = now < state.until;
    // What is missing may be a crash that is not known as one yet.
    let unexplained = set.unexplained_until.filter(|until| now < *until);
    let proven = state.proven();
    let moments = [Some(state.until), unexplained, Some(proven), Some(state.reset())];
    Verdict {
        state: Some(state),
        pause: held || unexplained.is_some() || !missing,
        backing_off: state.rounds > 1 && now < proven,
        look_again: moments.into_iter().flatten().filter(|at| *at > now).min(),
    }
}
