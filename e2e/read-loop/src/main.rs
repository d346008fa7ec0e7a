//! Reads files each second, as plainly as can be: what `cargo xtask bench agent` compares the agent with.
//!
//! Paths come on standard input, one a line. Each file is opened once, and read by one call each second into a buffer that all share; what was read is not
//! looked at. Opened anew each time they would cost more: this is the least that anybody who reads them pays, so the hardest to be compared with.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    thread::sleep,
    time::{Duration, Instant},
};

/// As the agent.
const EVERY: Duration = Duration::from_secs(1);

fn main() -> io::Result<()> {
    let files = io::stdin().lines().map(|path| File::open(path?)).collect::<io::Result<Vec<_>>>()?;
    let mut buffer = vec![0; 8 * 1024];
    let mut due = Instant::now();
    loop {
        for file in &files {
            file.read_at(&mut buffer, 0)?;
        }
        due += EVERY;
        sleep(due.saturating_duration_since(Instant::now()));
    }
}
