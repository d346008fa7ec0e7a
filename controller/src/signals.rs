//! Signals that ask a process to stop.

use std::io;

use tokio::signal::unix::{self, SignalKind};
use tokio_util::sync::CancellationToken;

/// SIGTERM (Kubernetes) and SIGINT (a terminal) stop the process gracefully: the token is cancelled by the first of
/// them.
///
/// # Errors
/// When signals cannot be received.
pub fn stop() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let (mut terminate, mut interrupt) =
        (unix::signal(SignalKind::terminate())?, unix::signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; finishing what runs");
        token.cancel();
    });
    Ok(stop)
}
