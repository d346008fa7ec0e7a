//! Waiting for a condition with a deadline, the only way in which tests wait.

use std::{future::Future, time::Duration};

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(50);

/// Asks `probe` until it gives a value, an error counting as "not yet".
///
/// Errors: no value `within` the time given; the message names `what` was waited for and the last error of the probe.
pub async fn eventually<T, Answer>(what: &str, within: Duration, mut probe: impl FnMut() -> Answer) -> Result<T>
where
    Answer: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    loop {
        let answer = probe().await;
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            let message = format!("{what}: not within {within:?}");
            return Err(match answer {
                Err(error) => error.context(message),
                Ok(_) => anyhow!(message),
            });
        }
        sleep(PERIOD).await;
    }
}
