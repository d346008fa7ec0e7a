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

use super::{
    Module, Tool, cache, cached,
    download::{self, Origins},
    version,
};
use crate::process;

/// How often a build that goes on says how far it has come.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// What is built by one `go build`: programs of one module with the same flags, so that all cores have work while the
/// slowest is linked.
struct Batch {
    folder: PathBuf,
    tags: &'static str,
    needs_c: bool,
    stamp: String,
    tools: Vec<(Tool, PathBuf)>,
}

/// Puts tools into the cache: those that are published are downloaded, the others are built.
pub(super) fn make(missing: &[Tool]) -> Result<BTreeMap<Tool, PathBuf>> {
    let _lock = lock()?;
    let left = downloaded(missing)?;
    if let Some((tool, _)) = left.first() {
        check_go(tool.module())?;
        let names: Vec<&str> = left.iter().map(|(tool, _)| tool.name()).collect();
        let seconds: u64 = left.iter().map(|(tool, _)| tool.cold_build().as_secs()).sum();
        eprintln!("building once: {}; about {} on two cores", names.join(", "), minutes(seconds));
    }
    for batch in batches(left) {
        build(&batch)?;
    }
    missing.iter().map(|&tool| Ok((tool, cached(tool)?))).collect()
}

/// Downloads those of the tools that are published. Gives the others.
pub(super) fn download(missing: &[Tool]) -> Result<Vec<Tool>> {
    let _lock = lock()?;
    Ok(downloaded(missing)?.into_iter().map(|(tool, _)| tool).collect())
}

/// Minutes in words.
fn minutes(seconds: u64) -> String {
    match seconds.div_ceil(60) {
        0 | 1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

/// Those of the tools that are not in the cache after what is published was downloaded, and where they belong.
fn downloaded(missing: &[Tool]) -> Result<Vec<(Tool, PathBuf)>> {
    let mut left: Vec<(Tool, PathBuf)> =
        missing.iter().map(|&tool| Ok((tool, cached(tool)?))).collect::<Result<_>>()?;
    // Another process may have made it while this one waited for the lock.
    left.retain(|(_, target)| !target.is_file());
    if let Some(origins) = Origins::published().filter(|_| !left.is_empty()) {
        let there = download::fetch(&left, &origins)?;
        left.retain(|(tool, _)| !there.contains(tool));
    }
    Ok(left)
}

/// Tools that are built together, in the order of the first of each.
fn batches(tools: Vec<(Tool, PathBuf)>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (tool, target) in tools {
        let module = tool.module();
        let new = Batch {
            folder: module.folder(),
            tags: tool.tags(),
            needs_c: tool.needs_c(),
            stamp: module.stamp(),
            tools: Vec::new(),
        };
        let flags = |batch: &Batch| (batch.folder.clone(), batch.tags, batch.needs_c, batch.stamp.clone());
        let position = batches.iter().position(|batch| flags(batch) == flags(&new));
        let position = position.unwrap_or_else(|| {
            batches.push(new);
            batches.len() - 1
        });
        batches[position].tools.push((tool, target));
    }
    batches
}

/// Held to the end of the file's life; the kernel releases it when the process is killed.
fn lock() -> Result<File> {
    let folder = cache()?.join("bin");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    lock_file(&folder.join(".lock"))
}

fn lock_file(path: &Path) -> Result<File> {
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

fn build(batch: &Batch) -> Result<()> {
    // Built beside their places and moved there when they are whole.
    let bin = cache()?.join("bin");
    let staging = tempfile::tempdir_in(&bin)?;
    let log_file = staging.path().join("log");
    let log = File::create(&log_file)?;
    let names = batch.tools.iter().map(|(tool, _)| tool.name()).collect::<Vec<_>>().join(", ");

    let packages: Vec<String> = batch.tools.iter().map(|(tool, _)| tool.package()).collect();
    let mut command = batch.go("build");
    command
        .args(["-v", "-buildvcs=false", "-trimpath", "-ldflags"])
        .arg(format!("-s -w {}", batch.stamp).trim())
        .arg("-o");
    match &*batch.tools {
        [(tool, _)] => command.arg(staging.path().join(tool.name())),
        _ => command.arg(staging.path()),
    };
    command.args(&packages);
    let mut command = process::bound(&command);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);

    let start = Instant::now();
    let all = batch.count();
    let mut child = process::spawn(command)?;
    let status = wait(&mut child, || {
        // It names each package that it compiles; those of an earlier build need not be.
        let compiled = fs::read_to_string(&log_file).unwrap_or_default().lines().count();
        eprintln!("  {names}: {compiled} of at most {all} packages compiled, {} s", start.elapsed().as_secs());
    })?;
    if !status.success() {
        bail!("cannot build {names}:\n{}", process::tail(&log_file, 30));
    }
    for (tool, target) in &batch.tools {
        let name = if batch.tools.len() == 1 { tool.name() } else { built_name(*tool) };
        fs::create_dir_all(target.parent().context("the cache has a folder for each version")?)?;
        fs::rename(staging.path().join(name), target)?;
    }
    eprintln!("built {names} in {} s", start.elapsed().as_secs());
    Ok(())
}

/// The file name that Go gives a program that is built beside others: the last part of its package's path that is no
/// version.
fn built_name(tool: Tool) -> &'static str {
    // The only one that is not named after its package.
    if matches!(tool, Tool::Etcd) { "server" } else { tool.name() }
}

impl Batch {
    /// A command of Go that looks at packages.
    fn go(&self, verb: &str) -> Command {
        let mut command = go(&self.folder);
        command.env("CGO_ENABLED", if self.needs_c { "1" } else { "0" });
        command.args([verb, "-mod=readonly", "-tags", self.tags]);
        command
    }

    /// How many packages are behind them all.
    fn count(&self) -> usize {
        let mut command = self.go("list");
        command.arg("-deps").args(self.tools.iter().map(|(tool, _)| tool.package()));
        // Only for the progress: what is wrong, the build says.
        command.output().map_or(0, |output| String::from_utf8_lossy(&output.stdout).lines().count())
    }
}

/// Waits for a build, with a sign of life now and then.
fn wait(child: &mut Child, sign: impl Fn()) -> Result<ExitStatus> {
    let mut last = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if last.elapsed() >= SIGN_OF_LIFE {
            last = Instant::now();
            sign();
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Whether there is a Go that can build the tools that are not here yet; it fetches a newer toolchain by itself where
/// one is needed.
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
    // From 1.21 on, Go fetches the toolchain that a module asks for, unless a distribution or the user has turned that
    // off.
    if env::var_os("GOTOOLCHAIN").is_none() {
        command.env("GOTOOLCHAIN", "auto");
    }
    // A go.work of the user must not replace our pinned versions.
    command.env("GOWORK", "off");
    command
}

/// Says what to do when there is no Go that can build the modules.
fn check_go(module: Module) -> Result<()> {
    const WAY_OUT: &str = "what is not published, or cannot be downloaded, is built once with Go 1.21 or later (which fetches the Go that it needs by itself). \
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_the_same_flags_are_built_together() {
        let all = Tool::GROUND.into_iter().chain([Tool::MetricsServer]).chain(Tool::NODE);
        let batches = batches(all.map(|tool| (tool, PathBuf::new())).collect());
        let names = batches.iter().map(|batch| batch.tools.iter().map(|(tool, _)| *tool).collect::<Vec<_>>());
        let expected: [&[Tool]; 8] = [
            &[Tool::Etcd, Tool::Kwok, Tool::CoreDns],
            &[
                Tool::KubeApiserver,
                Tool::KubeControllerManager,
                Tool::KubeScheduler,
                Tool::Kubectl,
                Tool::Kubelet,
                Tool::KubeProxy,
            ],
            &[Tool::Helm],
            &[Tool::MetricsServer],
            &[Tool::Containerd, Tool::ContainerdShim, Tool::Ctr],
            &[Tool::Runc],
            &[Tool::CniPtp, Tool::CniHostLocal, Tool::CniLoopback],
            &[Tool::GuestNode, Tool::GuestPause, Tool::GuestHello, Tool::GuestLoad],
        ];
        assert_eq!(names.collect::<Vec<_>>(), expected);
        assert_eq!(built_name(Tool::Etcd), "server", "the package is go.etcd.io/etcd/server/v3");
    }
}
