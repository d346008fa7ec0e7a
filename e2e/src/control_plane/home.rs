//! The folder of one control plane, and the removal of what killed processes left.

use std::{
    env,
    fs::{self, DirBuilder, File, TryLockError},
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result};

use crate::process::{Process, signal};

/// Its presence with a lock on it says that the owner lives.
const OWNER: &str = "owner.lock";
/// The ids of the processes that belong to it, one a line.
const PROCESSES: &str = "processes";
/// The folder of the log files.
const LOGS: &str = "log";
/// How the folders' names start.
const PREFIX: &str = "control-plane-";

/// A folder with data, keys and logs; removed on drop, except that `CATAMARAN_KEEP_LOGS` saves the logs.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// Holds the lock; the kernel lets go of it when this process ends, however it ends.
    _owner: File,
}

impl Home {
    /// Makes a folder, after removing those whose owner is dead.
    pub(super) fn create() -> Result<Self> {
        let root = root()?;
        // No sweep may see a folder between its making and its locking.
        let _exclusive = exclusive(&root)?;
        sweep_in(&root)?;
        let path = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", process::id())).tempdir_in(&root)?.keep();
        let owner = File::create(path.join(OWNER))?;
        owner.lock()?;
        fs::create_dir(path.join(LOGS))?;
        Ok(Self { path, _owner: owner })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join(LOGS).join(format!("{name}.log"))
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts a process that belongs here. It is noted for the sweep, should this process be killed in the very moment
    /// between the making of a child and its binding to us.
    pub(super) fn spawn(&self, name: &str, command: &Command) -> Result<Process> {
        let process = Process::spawn(name, command, &self.log(name))?;
        let mut noted = File::options().create(true).append(true).open(self.file(PROCESSES))?;
        writeln!(noted, "{}", process.id())?;
        Ok(process)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A sweep that met it half removed would stumble over it.
        let removed = root().and_then(|root| exclusive(&root)).and_then(|_exclusive| discard(&self.path));
        if let Err(error) = removed {
            eprintln!("cannot remove {}: {error:#}", self.path.display());
        }
    }
}

/// Removes what control planes of dead processes left: folders, and processes if any.
pub fn sweep() -> Result<()> {
    let root = root()?;
    let _exclusive = exclusive(&root)?;
    sweep_in(&root)
}

/// One folder for each user, closed to others: it holds keys.
fn root() -> Result<PathBuf> {
    let user = fs::metadata("/proc/self")?.uid();
    let root = env::temp_dir().join(format!("catamaran-{user}"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&root)
        .with_context(|| format!("cannot make {}", root.display()))?;
    Ok(root)
}

fn exclusive(root: &Path) -> Result<File> {
    let file = File::create(root.join("lock"))?;
    file.lock()?;
    Ok(file)
}

fn sweep_in(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        if !alive(&path)? {
            end_processes(&path);
            discard(&path)?;
        }
    }
    Ok(())
}

fn alive(home: &Path) -> Result<bool> {
    let Ok(owner) = File::open(home.join(OWNER)) else {
        return Ok(false);
    };
    match owner.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Ends processes that a folder notes, if they are still the ones that were noted: their command line names the folder.
fn end_processes(home: &Path) {
    let noted = fs::read_to_string(home.join(PROCESSES)).unwrap_or_default();
    for pid in noted.lines().filter_map(|line| line.parse::<u32>().ok()) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&*home.to_string_lossy()) {
            // It may end by itself in the meantime.
            let _ = signal(pid, "KILL");
        }
    }
}

/// Removes a folder; with `CATAMARAN_KEEP_LOGS` set, its logs stay beside it.
fn discard(home: &Path) -> Result<()> {
    if env::var_os("CATAMARAN_KEEP_LOGS").is_some_and(|value| !value.is_empty()) {
        let name = home.file_name().unwrap_or_default().to_string_lossy();
        let kept = home.with_file_name(format!("log-{name}"));
        fs::rename(home.join(LOGS), &kept).with_context(|| format!("cannot keep the logs of {name}"))?;
        eprintln!("logs: {}", kept.display());
    }
    fs::remove_dir_all(home).with_context(|| format!("cannot remove {}", home.display()))
}
