//! What every guest starts from, made once and kept in the cache: kernel, initial RAM disk, and a disk on which
//! containerd has its images already.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::{
    accelerator::Accelerator,
    debian::Packages,
    files,
    image::Image,
    images,
    machine::{Machine, Parts, QEMU, empty_disk},
    ramdisk::Archive,
};
use crate::{
    process::Process,
    tools::{Tool, Tools, cache},
};

/// Changed when what this file makes changes in a way that its inputs do not show.
const FORMAT: u32 = 3;
/// MiB of the root file system: sparse, so it is only a bound.
const SIZE: u64 = 4096;
/// The host's program that makes file systems.
const MKFS: &str = "mkfs.ext4";
/// How long one image may take to import.
const IMPORT_WITHIN: Duration = Duration::from_secs(300);

/// What is needed to boot a guest.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) kernel: PathBuf,
    /// To be followed by the archive with the files of one node.
    pub(super) ramdisk: PathBuf,
    pub(super) disk: PathBuf,
    pub(super) accelerator: Accelerator,
}

/// Makes what is missing: minutes the first time, milliseconds later. Progress goes to standard error.
///
/// # Errors
/// When this host cannot run guests, or something cannot be built; the message says what to do.
pub async fn prepare() -> Result<()> {
    prepared().await.map(|_| ())
}

/// What keeps this host from running guests; nothing when all is there.
#[must_use]
pub fn lacks() -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    [QEMU, MKFS].into_iter().filter(|program| !found(program)).collect()
}

pub(super) async fn prepared() -> Result<Prepared> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the tests on a real node need an x86_64 host: the guest's kernel and programs are for that alone"
    );
    let lacks = lacks();
    ensure!(
        lacks.is_empty(),
        "the tests on a real node need {} (Debian: apt-get install qemu-system-x86 e2fsprogs); `cargo xtask test` installs them when it runs as root",
        lacks.join(" and ")
    );
    let tools = spawn_blocking(|| Tools::prepare(&Tool::NODE)).await??;
    let folder = cache()?.join("node").join(key(&tools)?);
    if !folder.is_dir() {
        make(&tools, &folder).await?;
    }
    let file = |name: &str| folder.join(name);
    let (kernel, ramdisk, disk) = (file("kernel"), file("ramdisk"), file("disk"));
    let accelerator = Accelerator::choose(&kernel, &ramdisk).await?;
    Ok(Prepared { kernel, ramdisk, disk, accelerator })
}

/// Names the content by what it is made of: the versions of the programs, and our own files. Newer packages of Debian
/// do not make a new one.
fn key(tools: &Tools) -> Result<String> {
    let mut sha = Sha256::new();
    sha.update(FORMAT.to_le_bytes());
    for tool in Tool::NODE {
        // Versions are in the names of the folders.
        sha.update(tools.path(tool)?.as_os_str().as_encoded_bytes());
        sha.update([0]);
    }
    for text in [files::CONTAINERD, files::SERVICES, include_str!("images.rs"), include_str!("debian.rs")] {
        sha.update(text);
        sha.update([0]);
    }
    Ok(sha.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

async fn make(tools: &Tools, target: &Path) -> Result<()> {
    let parent = target.parent().context("the cache has a folder for disks")?;
    fs::create_dir_all(parent)?;
    // Held to the end; the kernel lets go of it when the process is killed.
    let lock = File::create(parent.join(".lock"))?;
    spawn_blocking({
        let lock = lock.try_clone()?;
        move || lock.lock()
    })
    .await??;
    if target.is_dir() {
        return Ok(());
    }
    let start = Instant::now();
    eprintln!("making the disk of the real node (about 2 min cold) ...");
    // Those before it are of no more use: each takes half a gigabyte.
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    // Made beside its place and moved there when it is whole.
    let staging = tempfile::tempdir_in(parent)?;
    let images = spawn_blocking({
        let (tools, staging) = (tools.clone(), staging.path().to_owned());
        move || lay_out(&tools, &staging)
    })
    .await??;
    import(staging.path(), &images).await.context("cannot import images into the disk of the real node")?;
    fs::rename(staging.path().join("out"), target)?;
    eprintln!("made the disk of the real node in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Everything but the images, which containerd itself takes in. Gives those.
fn lay_out(tools: &Tools, staging: &Path) -> Result<Vec<Image>> {
    let packages = Packages::fetch(&staging.join("packages"))?;
    let out = staging.join("out");
    fs::create_dir(&out)?;
    fs::write(out.join("packages"), packages.names().join("\n"))?;
    fs::copy(packages.kernel()?, out.join("kernel"))?;
    fs::write(out.join("ramdisk"), ramdisk(tools, &packages)?)?;
    let root = staging.join("root");
    root_tree(tools, &packages.busybox()?, &root)?;
    packages.libraries(&root)?;
    file_system(&root, &out.join("disk"))?;
    images::all(tools, &packages.busybox()?)
}

fn ramdisk(tools: &Tools, packages: &Packages) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "newroot", "modules", "seed"] {
        archive.folder(folder)?;
    }
    archive.program("init", &fs::read(tools.path(Tool::GuestNode)?)?)?;
    let mut order = String::new();
    for module in packages.modules()? {
        archive.file(&format!("modules/{}", module.file_name), &module.content)?;
        order += &module.file_name;
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes())?;
    archive.finish()
}

fn root_tree(tools: &Tools, busybox: &Path, root: &Path) -> Result<()> {
    let folders = [
        "bin",
        "sbin",
        "dev",
        "etc/containerd",
        "etc/node",
        "opt/cni/bin",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/local/bin",
        "data",
        "var/lib",
        "var/log",
    ];
    for folder in folders {
        fs::create_dir_all(root.join(folder))?;
    }
    let program = |from: &Path, to: &str| -> Result<()> {
        let to = root.join(to);
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
    };
    program(busybox, "bin/busybox")?;
    for applet in images::applets(busybox)? {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    program(tools.path(Tool::GuestNode)?, "sbin/node")?;
    for tool in [Tool::Kubelet, Tool::KubeProxy, Tool::Containerd, Tool::ContainerdShim, Tool::Ctr, Tool::Runc] {
        program(tools.path(tool)?, &format!("usr/local/bin/{}", tool.name()))?;
    }
    for tool in [Tool::CniPtp, Tool::CniHostLocal, Tool::CniLoopback] {
        program(tools.path(tool)?, &format!("opt/cni/bin/{}", tool.name()))?;
    }
    for (path, content) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/resolv.conf", ""),
        ("etc/containerd/config.toml", files::CONTAINERD),
        ("etc/node/services", files::SERVICES),
    ] {
        fs::write(root.join(path), content)?;
    }
    Ok(())
}

/// An ext4 file system with the content of a folder.
fn file_system(root: &Path, disk: &Path) -> Result<()> {
    empty_disk(disk, SIZE)?;
    let output = Command::new(MKFS)
        .args(["-q", "-F", "-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1", "-d"])
        .arg(root)
        .arg(disk)
        .output()
        .with_context(|| format!("cannot run {MKFS}"))?;
    if !output.status.success() {
        bail!("{MKFS} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Boots the new disk once, and lets containerd take the images in.
async fn import(staging: &Path, images: &[Image]) -> Result<()> {
    let out = staging.join("out");
    let (kernel, ramdisk, disk) = (out.join("kernel"), out.join("ramdisk"), out.join("disk"));
    let parts = Parts {
        name: "first-boot",
        accelerator: Accelerator::choose(&kernel, &ramdisk).await?,
        cpus: 2,
        memory: 1024,
        kernel: &kernel,
        ramdisk: &ramdisk,
        disk: &disk,
        keep: true,
        disks: &[],
        forwarded: None,
        folder: staging,
    };
    let machine = parts.start(|command| Process::spawn("first-boot", command, &staging.join("qemu.log"))).await?;
    for image in images {
        import_into(&machine, &image.archive()?).await.with_context(|| image.name().to_owned())?;
    }
    machine.power_off().await
}

/// Gives an image to containerd, which has to have unpacked it before a container can start quickly.
pub(super) async fn import_into(machine: &Machine, archive: &[u8]) -> Result<()> {
    // containerd may be on its way up.
    let command = "until ctr version >/dev/null 2>&1; do sleep 0.1; done; ctr -n k8s.io images import -";
    let output = machine.shell().run(command, archive, IMPORT_WITHIN).await?;
    ensure!(output.code == 0, "ctr images import ended with {}:\n{}{}", output.code, output.stdout, output.stderr);
    Ok(())
}
