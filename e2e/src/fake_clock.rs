//! A wall clock of a process that can be set, by libfaketime. Its steady clock goes on as it is, as when an
//! administrator or NTP sets the time of a machine.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use tempfile::NamedTempFile;

/// A clock for the processes that get its environment.
pub struct FakeClock {
    file: NamedTempFile,
    library: String,
}

impl FakeClock {
    /// A clock that is right.
    ///
    /// # Errors
    /// When the program `faketime` is missing (Debian: apt-get install faketime).
    pub fn new() -> Result<Self> {
        let output = Command::new("faketime").args(["-m", "-f", "+0", "env"]).output();
        let output = output.context("faketime is missing; Debian: apt-get install faketime")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let library = text.lines().find_map(|line| line.strip_prefix("LD_PRELOAD="));
        let library = library.context("faketime names its library in LD_PRELOAD")?.trim().to_owned();
        let clock = Self { file: NamedTempFile::new()?, library };
        clock.set(SignedDuration::ZERO)?;
        Ok(clock)
    }

    /// What a process has to find in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let file = self.file.path().display().to_string();
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Sets the clock to so much before or after the true time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, offset: SignedDuration) -> Result<()> {
        fs::write(self.file.path(), format!("{:+}\n", offset.as_secs()))?;
        let seen = Command::new("date").arg("+%s").envs(self.environment()).output()?;
        let seen: i64 = String::from_utf8_lossy(&seen.stdout).trim().parse()?;
        let wanted = jiff::Timestamp::now().as_second().saturating_add(offset.as_secs());
        ensure!(seen.abs_diff(wanted) < 60, "the clock shows {seen} in place of {wanted}");
        Ok(())
    }
}
