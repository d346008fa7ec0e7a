//! Leaving a source alone that is absent or down.
//!
//! Thousands of workloads may ask one source. While it does not answer, one question at a time finds out whether it is
//! back, after pauses that grow; the others get the same words without asking. It is logged once when a source goes,
//! and once when it is back.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{backend::Backend, failure::Failure};

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the one that finds out may take before another may.
const PROBE: Duration = Duration::from_secs(15);

/// The sources that are down.
#[derive(Default)]
pub(super) struct Breakers {
    down: Mutex<HashMap<Backend, Down>>,
}

struct Down {
    why: String,
    /// How often somebody found out that it is down.
    failures: u32,
    /// When the next question may be sent.
    until: Instant,
    /// Whether one is finding out.
    probing: bool,
}

impl Breakers {
    /// Whether a question may be sent now; if not, its answer.
    pub(super) fn check(&self, backend: &Backend, now: Instant) -> Result<(), Failure> {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match down.get_mut(backend) {
            Some(down) if now < down.until => Err(Failure::Unavailable(down.why.clone())),
            Some(down) => {
                // This one finds out; the others wait for it.
                down.until = now + PROBE;
                down.probing = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Notes what became of a question that was sent.
    pub(super) fn note<T>(&self, backend: &Backend, outcome: &Result<T, Failure>, now: Instant) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Err(Failure::Unavailable(why)) => {
                let down = down.entry(backend.clone()).or_insert_with(|| {
                    tracing::info!(source = %backend, %why, "a source of metrics does not answer");
                    Down { why: String::new(), failures: 0, until: now, probing: true }
                });
                // Failures of questions that were under way when it went down count once.
                if down.probing {
                    down.probing = false;
                    down.until = now + pause(down.failures);
                    down.failures = down.failures.saturating_add(1);
                }
                down.why.clone_from(why);
            }
            Ok(_) | Err(Failure::Answered(_)) => {
                if down.remove(backend).is_some() {
                    tracing::info!(source = %backend, "a source of metrics answers again");
                }
            }
        }
    }

    /// Forgets sources that nobody asks any more.
    pub(super) fn retain(&self, wanted: impl Fn(&Backend) -> bool) {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).retain(|backend, _| wanted(backend));
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breakers: &Breakers, now: Instant) {
        breakers.note::<()>(&Backend::Resource, &Err(Failure::Unavailable("absent".to_owned())), now);
    }

    #[test]
    fn one_at_a_time_finds_out_after_growing_pauses() {
        let (breakers, start) = (Breakers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let asks = |seconds| breakers.check(&Backend::Resource, at(seconds)).is_ok();
        assert!(asks(0) && asks(0), "both go while nothing is known");
        fail(&breakers, at(0));
        fail(&breakers, at(1));
        assert!(!asks(4), "the second failure does not count");
        assert_eq!(breakers.check(&Backend::Resource, at(4)), Err(Failure::Unavailable("absent".to_owned())));
        assert!(breakers.check(&Backend::Custom, at(4)).is_ok(), "another source");
        assert!(asks(5));
        assert!(!asks(5), "one finds out");
        fail(&breakers, at(6));
        assert!(!asks(15) && asks(16), "10 s later");
        // That one never comes back: the next may try after a while.
        assert!(!asks(30) && asks(31));
        for _ in 0..100 {
            fail(&breakers, at(40));
            let _ = breakers.check(&Backend::Resource, at(40 + 3600));
        }
        fail(&breakers, at(5000));
        assert!(!asks(5059) && asks(5060), "at most a minute");
        breakers.note(&Backend::Resource, &Ok(()), at(5061));
        assert!(asks(5061) && asks(5061));
    }

    #[test]
    fn an_answer_without_samples_is_an_answer() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        fail(&breakers, now);
        breakers.note::<()>(&Backend::Resource, &Err(Failure::Answered("no metrics returned".to_owned())), now);
        assert!(breakers.check(&Backend::Resource, now).is_ok());
        fail(&breakers, now);
        breakers.retain(|backend| *backend != Backend::Resource);
        assert!(breakers.check(&Backend::Resource, now).is_ok());
    }
}
