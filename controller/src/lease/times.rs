//! The times of a lease.

use std::time::Duration;

/// The longest pause between two looks at a lease, or two renewals.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// The times of a lease: client-go's 15 s and 10 s, and renewals twice as often as there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For how long a lease that is not renewed still holds.
    pub(super) duration: Duration,
    /// A leader that could not renew for so long gives up, well before anybody else may take over.
    pub(super) renew_deadline: Duration,
    /// How often the lease is renewed, or looked at.
    pub(super) retry: Duration,
}

impl Times {
    pub(super) fn from_duration(duration: Duration) -> Self {
        Self { duration, renew_deadline: duration * 2 / 3, retry: (duration / 15).min(LONGEST_RETRY) }
    }

    /// A holder that lives and reaches the API server renews the lease within this time.
    pub(super) fn surely_renewed(self) -> Duration {
        self.retry * 3 / 2
    }

    /// How long one attempt may take when there is so much time left: two more must fit in after it.
    pub(super) fn attempt(left: Duration) -> Duration {
        left / 3
    }

    /// The pause after an attempt that failed when there is so much time left.
    pub(super) fn pause(self, left: Duration) -> Duration {
        (left / 8).min(self.retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many attempts fit in between a renewal and the end when each hangs.
    fn attempts(duration: Duration) -> usize {
        let times = Times::from_duration(duration);
        let mut left = times.renew_deadline - times.retry;
        let attempts = std::iter::from_fn(|| {
            let attempt = Times::attempt(left);
            left -= attempt;
            left -= times.pause(left);
            Some(attempt)
        });
        // What is shorter is no chance for a new connection.
        attempts.take_while(|attempt| *attempt >= duration / 60).count()
    }

    #[test]
    fn a_renewal_that_hangs_leaves_time_for_several_more() {
        for seconds in [3, 15, 60, 3600] {
            let duration = Duration::from_secs(seconds);
            assert!(attempts(duration) >= 4, "{seconds} s: {}", attempts(duration));
        }
    }

    #[test]
    fn a_leader_gives_up_before_another_may_take_over() {
        for seconds in [3, 15, 60, 3600] {
            let Times { duration, renew_deadline, retry } = Times::from_duration(Duration::from_secs(seconds));
            assert!(retry * 5 <= renew_deadline && renew_deadline + duration / 4 < duration, "{seconds} s");
        }
    }
}
