//! `go build` of what is missing, into the cache.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Module, Tool, cache, cached, version};
use crate::process;

/// How often a build that goes on says so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Builds tools into the cache, one after the other: they share most of what is compiled, so one beside the other would not be quicker.
pub(super) fn build(missing: &[Tool]) -> Result<BTreeMap<Tool, PathBuf>> {
    let cache = cache()?.join("bin");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // Held to the end of this function; the kernel lets go of it when the process is killed.
    let _lock = lock(&cache.join(".lock"))?;

    let mut built = BTreeMap::new();
    let mut checked = false;
    for (number, &tool) in missing.iter().enumerate() {
        let target = cached(tool)?;
        // Another process may have built it while this one waited for the lock.
        if !target.is_file() {
            if !checked {
                check_go(tool.module())?;
                checked = true;
            }
            eprintln!(
                "building {} {} ({} of {}, {}) ...",
                tool.name(),
                tool.module().version(),
                number + 1,
                missing.len(),
                tool.cold_build()
            );
            build_one(tool, &target)?;
        }
        built.insert(tool, target);
    }
    Ok(built)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("another process is building the control plane; waiting for it ...");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).context(format!("cannot lock {}", path.display()));
        }
    }
    Ok(file)
}

fn build_one(tool: Tool, target: &Path) -> Result<()> {
    let folder = target.parent().context("the cache has a folder for each version")?;
    fs::create_dir_all(folder)?;
    // Built beside its place and moved there when it is whole.
    let staging = tempfile::tempdir_in(folder)?;
    let unfinished = staging.path().join(tool.name());
    let log = File::create(staging.path().join("log"))?;

    let mut command = go(&tool.module().folder());
    command
        .env("CGO_ENABLED", if tool.needs_c() { "1" } else { "0" })
        .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", tool.tags(), "-ldflags"])
        .arg(format!("-s -w {}", tool.module().stamp()).trim())
        .arg("-o")
        .arg(&unfinished)
        .arg(tool.package());
    let mut command = process::bound(&command);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);

    let start = Instant::now();
    let mut child = process::spawn(command)?;
    let status = wait(&mut child, tool, start)?;
    if !status.success() {
        bail!("cannot build {}:\n{}", tool.name(), process::tail(&staging.path().join("log"), 30));
    }
    fs::rename(&unfinished, target)?;
    eprintln!("built {} in {} s", tool.name(), start.elapsed().as_secs());
    Ok(())
}

/// Waits for a build, with a sign of life now and then.
fn wait(child: &mut Child, tool: Tool, start: Instant) -> Result<ExitStatus> {
    let mut told = start;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if told.elapsed() >= SIGN_OF_LIFE {
            told = Instant::now();
            eprintln!("  still building {}, {} s", tool.name(), start.elapsed().as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Whether there is a Go that can build the tools that are not here yet; it fetches a newer toolchain by itself where one is needed.
pub fn go_found() -> bool {
    let output = Command::new(go_program()).arg("version").output();
    output.is_ok_and(|output| {
        version::first_in(&String::from_utf8_lossy(&output.stdout)).is_some_and(|found| found >= SWITCHES_TOOLCHAIN)
    })
}

/// The first Go that replaces itself by the toolchain that a module asks for.
const SWITCHES_TOOLCHAIN: version::Version = version::Version { major: 1, minor: 21, patch: 0 };

/// `go` on PATH, else where the archive of go.dev is unpacked to.
fn go_program() -> PathBuf {
    const UNPACKED: &str = "/usr/local/go/bin/go";
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).any(|folder| folder.join("go").is_file());
    PathBuf::from(if on_path { "go" } else { UNPACKED })
}

fn go(folder: &Path) -> Command {
    let mut command = Command::new(go_program());
    command.current_dir(folder);
    // From 1.21 on, Go fetches the toolchain that a module asks for, unless a distribution or the user has turned that off.
    if env::var_os("GOTOOLCHAIN").is_none() {
        command.env("GOTOOLCHAIN", "auto");
    }
    // A go.work of the user must not replace our pinned versions.
    command.env("GOWORK", "off");
    command
}

/// Says what to do when there is no Go that can build the modules.
fn check_go(module: Module) -> Result<()> {
    const WAY_OUT: &str = "the control plane is built once with Go 1.21 or later (which fetches the Go that it needs by itself). \
        Install it from https://go.dev/dl/, or on Debian with `apt-get install golang-go` (Debian 12: `apt-get install -t bookworm-backports golang-go`); \
        or put the programs of the right version on PATH or into the folder in KUBEBUILDER_ASSETS";

    ensure!(
        module.folder().is_dir(),
        "{} is gone: this program was built from sources that are no longer there",
        module.folder().display()
    );
    let output = go(&module.folder())
        .args(["env", "GOVERSION"])
        .output()
        .with_context(|| format!("Go is missing: {WAY_OUT}"))?;
    // With a toolchain that switches, this is the version after the switch.
    let version = version::first_in(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        output.status.success() && version >= Some(module.go_version()),
        "Go is too old, {} is needed: {WAY_OUT}\n{}",
        module.go_version(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
