//! Reads files each second, as plainly as can be: what `cargo xtask bench agent` compares the agent with.
//!
//! Paths come on standard input, one a line. Each file is read by one call each second into a buffer that all share;
//! what was read is not looked at.
//!
//! Each is opened once: this is the least that anybody who reads them pays, so the hardest to be compared with. With
//! the argument `anew` each is opened and closed again for each reading, as a script or a program without care for that
//! would.

use std::{
    env,
    fs::File,
    io,
    os::unix::fs::FileExt,
    thread::sleep,
    time::{Duration, Instant},
};

/// As the agent.
const EVERY: Duration = Duration::from_secs(1);

fn main() -> io::Result<()> {
    let paths = io::stdin().lines().collect::<io::Result<Vec<_>>>()?;
    let anew = env::args().nth(1).is_some_and(|argument| argument == "anew");
    let files = if anew { Vec::new() } else { paths.iter().map(File::open).collect::<io::Result<Vec<_>>>()? };
    let mut buffer = vec![0; 8 * 1024];
    let mut due = Instant::now();
    loop {
        for file in &files {
            file.read_at(&mut buffer, 0)?;
        }
        if anew {
            for path in &paths {
                File::open(path)?.read_at(&mut buffer, 0)?;
            }
        }
        due += EVERY;
        sleep(due.saturating_duration_since(Instant::now()));
    }
}
