//! Waiting until nobody writes any more, and who wrote what until then.

use std::time::Duration;

use anyhow::{Result, bail};
use catamaran_e2e::audit::{Audit, Mark, Write};
use tokio::time::{Instant, sleep};

/// So long without a write means that nothing is going on.
const QUIET: Duration = Duration::from_secs(2);
/// How often the audit log is read.
const PERIOD: Duration = Duration::from_millis(200);
/// When to give up.
const WITHIN: Duration = Duration::from_secs(600);

/// The writes since a mark that took effect and that `of_interest` accepts, once no further one came for a while.
pub(super) async fn settled(audit: &Audit, mark: Mark, of_interest: impl Fn(&Write) -> bool) -> Result<Vec<Write>> {
    let deadline = Instant::now() + WITHIN;
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let mut writes = audit.writes_since(mark)?;
        writes.retain(|write| write.took_effect() && of_interest(write));
        if writes.len() != seen {
            (seen, since) = (writes.len(), Instant::now());
        } else if since.elapsed() >= QUIET {
            return Ok(writes);
        }
        if Instant::now() > deadline {
            bail!("after {WITHIN:?} there are still writes ({seen} so far)");
        }
        sleep(PERIOD).await;
    }
}
