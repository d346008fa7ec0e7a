//! Child processes that cannot outlive this one.
//!
//! The kernel ends them (`PR_SET_PDEATHSIG`) when this process goes, also by SIGKILL. The setting follows the *thread*
//! that made the child, so every child is made by one thread that lives as long as the process; `setpriv` (util-linux)
//! makes it, because this project forbids `unsafe`.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::wait::eventually;

/// A running child process; killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in the file `log` (appended to), no input, in a process group of its own, so
    /// that Ctrl-C in a terminal reaches only this process.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open the log {}", log.display()))?;
        let mut command = bound(command);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        command.process_group(0);
        Ok(Self {
            name: name.to_owned(),
            child: spawn(command).with_context(|| format!("cannot start {name}"))?,
            log: log.to_owned(),
        })
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that receives standard output and standard error.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status, once the process has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends the process at once (SIGKILL) and reaps it.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Asks the process to end (SIGTERM) and waits for it.
    ///
    /// Errors: the process still runs after `within`.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(within).await
    }

    /// Sends a signal by name, such as `TERM`, `STOP` or `CONT`.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        if self.exited()?.is_none() {
            self::signal(self.child.id(), signal)?;
        }
        Ok(())
    }

    /// Waits until the process ends by itself.
    ///
    /// Errors: the process still runs after `within`.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let child = &mut self.child;
        eventually(&what, within, || {
            let exited = child.try_wait().map_err(anyhow::Error::from);
            async move { exited }
        })
        .await
    }

    /// The last lines of the log, at most `lines` of them.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command, started so that it ends with this process. Only program, arguments, environment and working
/// directory are taken over.
pub(crate) fn bound(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

/// Starts a command on the thread that lives as long as the process.
pub(crate) fn spawn(command: Command) -> Result<Child> {
    struct Order {
        command: Command,
        answer: mpsc::Sender<std::io::Result<Child>>,
    }
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();

    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for mut order in inbox {
                // The receiver waits below, so this does not fail.
                let _ = order.answer.send(order.command.spawn());
            }
        });
        orders
    });
    let program = command.get_program().to_owned();
    let (answer, receiver) = mpsc::channel();
    spawner.send(Order { command, answer }).map_err(|_| anyhow!("the thread that starts children is gone"))?;
    receiver
        .recv()
        .context("the thread that starts children is gone")?
        .with_context(|| format!("cannot run {} (it is part of util-linux)", program.display()))
}

/// Sends a signal by name to a process.
pub fn signal(pid: u32, signal: &str) -> Result<()> {
    let status = Command::new("kill")
        .args(["-s", signal, "--", &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .context("cannot run kill")?;
    ensure!(status.success(), "cannot send {signal} to process {pid}");
    Ok(())
}

/// The last lines of a file; empty when it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    const ENOUGH: u64 = 64 * 1024;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
