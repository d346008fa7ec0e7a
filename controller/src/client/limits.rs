//! How long what a client does may take.

use std::time::Duration;

/// The limits of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A connection stands within this time, TLS included.
    pub connect: Duration,
    /// An answer is complete within this time; of a watch, its head.
    pub answer: Duration,
    /// A watch brings something at least so often. The API server sends a bookmark every 60 s.
    pub silence: Duration,
    /// The pause before a read is repeated.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(70),
            pause: Duration::from_millis(200),
        }
    }
}
