//! One QEMU process.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{Instant, sleep};

use super::{
    accelerator::Accelerator,
    network::{DHCP, DNS, GATEWAY, NETWORK},
    shell::Shell,
};
use crate::process::{Process, tail};

/// The program that everything here is about.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// How long a guest may take until it answers; on a busy machine without KVM it takes 10 s.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// What the kernel says of processors that do not come further, after some 20 s.
const LOCKED_UP: [&str; 2] = ["rcu: INFO: rcu_preempt detected stalls", "watchdog: BUG: soft lockup"];
/// How many lines of the console an error shows.
const CONSOLE_LINES: usize = 30;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    pub(super) accelerator: Accelerator,
    pub(super) cpus: u32,
    /// In MiB.
    pub(super) memory: u32,
    pub(super) kernel: &'a Path,
    pub(super) ramdisk: &'a Path,
    /// The root file system.
    pub(super) disk: &'a Path,
    /// Whether what is written to it stays.
    pub(super) keep: bool,
    /// More disks, `/dev/vdb` and so on.
    pub(super) disks: &'a [PathBuf],
    /// An address of the guest and its ports that the host's loopback address has, too, under the same numbers.
    pub(super) forwarded: Option<(Ipv4Addr, &'a [u16])>,
    /// Where the console, the socket and what is written to the disk are.
    pub(super) folder: &'a Path,
}

/// A running machine; it ends when it is dropped, and with this process.
#[derive(Debug)]
pub(super) struct Machine {
    process: Process,
    shell: Shell,
    console: PathBuf,
}

impl Parts<'_> {
    /// Where the guest's console is kept.
    pub(super) fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("shell.sock")
    }

    /// The command line.
    pub(super) fn command(&self) -> Command {
        let path = |path: &Path| path.display().to_string();
        let mut command = Command::new(QEMU);
        // What is written to a disk whose changes do not stay goes to a temporary file.
        command.env("TMPDIR", self.folder);
        command.args([
            "-name",
            self.name,
            "-no-user-config",
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ]);
        command.args(self.accelerator.arguments());
        command.args(["-smp", &self.cpus.to_string(), "-m", &self.memory.to_string()]);
        command.args(["-kernel", &path(self.kernel), "-initrd", &path(self.ramdisk)]);
        // psi: off in Debian's kernels unless asked for. The mitigations guard against nobody here, and cost time.
        command.args(["-append", "console=ttyS0 quiet psi=1 panic=-1 mitigations=off tsc=reliable"]);
        command.args(["-serial", &format!("file:{}", path(&self.console()))]);
        // What is lost with the host is lost: no flush has to reach its disk.
        let drive = |file: &Path, snapshot: bool| {
            let snapshot = if snapshot { "on" } else { "off" };
            format!("file={},format=raw,if=virtio,cache=unsafe,discard=unmap,snapshot={snapshot}", path(file))
        };
        command.args(["-drive", &drive(self.disk, !self.keep)]);
        for disk in self.disks {
            command.args(["-drive", &drive(disk, false)]);
        }
        let (guest, ports) = self.forwarded.unwrap_or((DHCP, &[]));
        let forwards: String =
            ports.iter().map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-{guest}:{port}")).collect();
        command.args([
            "-netdev",
            &format!("user,id=net,net={NETWORK},host={GATEWAY},dns={DNS},dhcpstart={DHCP}{forwards}"),
        ]);
        command.args(["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]);
        command.args(["-device", "virtio-serial-pci", "-chardev"]);
        command.arg(format!("socket,id=shell,path={},server=on,wait=off", path(&self.socket())));
        command.args(["-device", "virtserialport,chardev=shell,name=shell"]);
        command
    }

    /// Starts it by `spawn`, and waits until its shell answers.
    ///
    /// Errors: QEMU ends, or the guest does not answer; the message shows the end of its console.
    pub(super) async fn start(&self, spawn: impl FnOnce(&Command) -> Result<Process>) -> Result<Machine> {
        fs::create_dir_all(self.folder)?;
        let mut process = spawn(&self.command())?;
        let console = self.console();
        let deadline = Instant::now() + ANSWERS_WITHIN;
        let shell = loop {
            if let Some(status) = process.exited()? {
                bail!(
                    "{QEMU} has ended ({status}):\n{}\n{}",
                    process.log_tail(CONSOLE_LINES),
                    tail(&console, CONSOLE_LINES)
                );
            }
            match Shell::connect(&self.socket()).await {
                Ok(shell) => break shell,
                Err(error) if Instant::now() >= deadline => return Err(error.context("QEMU serves no socket")),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = tokio::select! {
            answer = shell.run("true", &[], left) => answer.map(|_| ()),
            () = locked_up(&console) => Err(anyhow!("its processors have locked up")),
        };
        answer.with_context(|| {
            format!(
                "the guest {} does not answer; the end of its console:\n{}",
                self.name,
                tail(&console, CONSOLE_LINES)
            )
        })?;
        Ok(Machine { process, shell, console })
    }
}

impl Machine {
    pub(super) fn shell(&self) -> &Shell {
        &self.shell
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The end of the console.
    pub(super) fn console(&self) -> String {
        tail(&self.console, CONSOLE_LINES)
    }

    /// Lets the guest end in order, so that its disk is whole.
    pub(super) async fn power_off(mut self) -> Result<()> {
        self.shell.run("poweroff", &[], Duration::from_secs(30)).await?;
        let status = self.process.wait(Duration::from_secs(60)).await?;
        anyhow::ensure!(status.success(), "{QEMU} ended with {status}:\n{}", self.console());
        Ok(())
    }
}

/// Waits until the kernel says that its processors do not come further, as those that are emulated do in a few of a
/// hundred starts.
async fn locked_up(console: &Path) {
    loop {
        let said = tail(console, CONSOLE_LINES);
        if LOCKED_UP.iter().any(|words| said.contains(words)) {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// A disk without content, which takes no room until it is written to.
pub(super) fn empty_disk(path: &Path, mebibytes: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.set_len(mebibytes << 20)?;
    Ok(())
}
