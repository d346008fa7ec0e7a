//! How QEMU runs the guest's code: by the hardware (KVM) where that works, else in software (TCG).
//!
//! That `/dev/kvm` can be opened says little: on hosts that are virtual themselves a guest may still not run. So the
//! guest's own kernel is started once, and what came of it is kept until the host starts anew.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::Path,
    sync::Once,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::time::sleep;

use super::machine::{Parts, empty_disk};
use crate::{
    process::{Process, tail},
    tools::cache,
};

/// With KVM the kernel starts process 1 in less than a second.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// The first words of process 1.
const STARTED: &str = "node: ";

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    pub(super) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // The buffer of translated code is large enough for the kernel, containerd and the kubelet together.
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The better one that works here, with a warning where it is the slow one.
    pub(super) async fn choose(kernel: &Path, ramdisk: &Path) -> Result<Self> {
        let known = cache()?.join("accelerator");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let remembered = fs::read_to_string(&known).unwrap_or_default();
        let chosen = match remembered.strip_prefix(&boot).map(str::trim) {
            Some("kvm") => Self::Kvm,
            Some("tcg") => Self::Tcg,
            _ => {
                let found = try_kvm(kernel, ramdisk).await?;
                fs::write(&known, format!("{boot}{}\n", found.name()))?;
                found
            }
        };
        if chosen == Self::Tcg {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                eprintln!("warning: KVM does not work here, so the guest runs in software, some ten times as slow");
            });
        }
        Ok(chosen)
    }
}

async fn try_kvm(kernel: &Path, ramdisk: &Path) -> Result<Accelerator> {
    if !fs::metadata("/dev/kvm").is_ok_and(|device| device.file_type().is_char_device()) {
        return Ok(Accelerator::Tcg);
    }
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    empty_disk(&disk, 1)?;
    let parts = Parts {
        name: "try-kvm",
        accelerator: Accelerator::Kvm,
        cpus: 1,
        memory: 256,
        kernel,
        ramdisk,
        disk: &disk,
        keep: true,
        disks: &[],
        forwarded: None,
        folder: folder.path(),
    };
    let mut process = Process::spawn("try-kvm", &parts.command(), &folder.path().join("log"))?;
    let start = Instant::now();
    while start.elapsed() < STARTS_WITHIN {
        if tail(&parts.console(), 5).contains(STARTED) {
            return Ok(Accelerator::Kvm);
        }
        if process.exited()?.is_some() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(Accelerator::Tcg)
}
