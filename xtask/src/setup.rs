//! What the host has to have besides Rust and a C compiler, without which this program would not run: checked, and on
//! Debian installed.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use catamaran_e2e::tools::{Tool, Tools, go_found};

/// A program of the host, or another file by its whole path.
struct Need {
    program: &'static str,
    /// The Debian package that has it.
    package: &'static str,
    what_for: &'static str,
    elsewhere: &'static str,
}

const NEEDS: [Need; 4] = [
    Need {
        program: "setpriv",
        package: "util-linux",
        what_for: "ties every process of the control plane to the process that started it",
        elsewhere: "part of util-linux on every Linux distribution (Alpine: apk add setpriv)",
    },
    Need {
        program: "setsid",
        package: "util-linux",
        what_for: "detaches `cargo xtask control-plane up` from the terminal",
        elsewhere: "part of util-linux on every Linux distribution",
    },
    Need {
        program: "kill",
        package: "procps",
        what_for: "sends signals",
        elsewhere: "part of procps (procps-ng) or util-linux",
    },
    Need {
        program: "faketime",
        package: "faketime",
        what_for: "sets the operator's clock in a test",
        elsewhere: "libfaketime (https://github.com/wolfcw/libfaketime)",
    },
];

/// What a real node needs: a guest under QEMU with a disk of its own.
const NODE_NEEDS: [Need; 4] = [
    Need {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        what_for: "runs the guest that is a real node",
        elsewhere: "part of QEMU on every Linux distribution; but the guest's kernel comes from a Debian archive",
    },
    Need {
        program: "mkfs.ext4",
        package: "e2fsprogs",
        what_for: "makes the disks of the guest",
        elsewhere: "part of e2fsprogs on every Linux distribution",
    },
    Need {
        program: "pkg-config",
        package: "pkg-config",
        what_for: "finds libseccomp for the guest's runc",
        elsewhere: "part of pkgconf or pkg-config",
    },
    Need {
        program: "/usr/include/seccomp.h",
        package: "libseccomp-dev",
        what_for: "is linked into the guest's runc, statically",
        elsewhere: "libseccomp with headers and static library",
    },
];

const GO: Need = Need {
    program: "go",
    package: "golang-go",
    what_for: "builds etcd, Kubernetes, KWOK and Helm, once (1.21 or later; it fetches the Go they need by itself)",
    elsewhere: "https://go.dev/dl/, unpacked to /usr/local/go; or put etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, kwok and helm \
        on PATH or into the folder in KUBEBUILDER_ASSETS",
};

/// Checks what the control plane needs of the host; installs it on Debian and its relatives when this runs as root.
/// Blocks while it installs.
pub(crate) fn prepare() -> Result<()> {
    provide(|| missing(&NEEDS, &Tool::GROUND))
}

/// The same for real nodes, beside [`prepare`].
pub(crate) fn prepare_for_nodes() -> Result<()> {
    provide(|| missing(&NODE_NEEDS, &Tool::NODE))
}

fn provide(missing: impl Fn() -> Result<Vec<&'static Need>>) -> Result<()> {
    let needed = &missing;
    let missing = needed()?;
    if missing.is_empty() {
        return Ok(());
    }
    let trouble = if root()? && on_path("apt-get") { install(&missing).err() } else { None };
    let missing = needed()?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut told = String::from("this machine lacks:");
    for Need { program, package, what_for, elsewhere } in missing {
        told += &format!("\n- {program}: {what_for}\n  Debian: apt-get install {package}; other systems: {elsewhere}");
    }
    match trouble {
        Some(trouble) => Err(trouble.context(told)),
        None => bail!(told),
    }
}

fn missing(needs: &'static [Need], tools: &[Tool]) -> Result<Vec<&'static Need>> {
    let mut missing: Vec<&Need> = needs.iter().filter(|need| !on_path(need.program)).collect();
    // Not needed where everything can be downloaded.
    if !go_found() && !Tools::download(tools)?.is_empty() {
        missing.push(&GO);
    }
    Ok(missing)
}

fn on_path(program: &str) -> bool {
    // Joining a whole path gives that path.
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}

fn root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

fn install(missing: &[&Need]) -> Result<()> {
    eprintln!("installing what this machine lacks ...");
    apt_get(&["update"])?;
    for need in missing {
        if need.program == GO.program {
            let versions = Command::new("apt-cache").args(["madison", GO.package]).output()?;
            let suite = suite_with_go(&String::from_utf8_lossy(&versions.stdout))
                .context("no configured Debian archive has Go 1.21 or later (Debian 12: bookworm-backports has)")?;
            apt_get(&["install", "--yes", "--no-install-recommends", "--target-release", &suite, GO.package])?;
        } else {
            apt_get(&["install", "--yes", "--no-install-recommends", need.package])?;
        }
    }
    Ok(())
}

/// apt-get with its output on our standard error: standard output is for results.
fn apt_get(arguments: &[&str]) -> Result<()> {
    eprintln!("apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=120", "--quiet"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot run apt-get")?;
    if status.success() { Ok(()) } else { bail!("apt-get {} failed ({status})", arguments.join(" ")) }
}

/// The suite of the first Go that is new enough, in the lines of `apt-cache madison golang-go`.
fn suite_with_go(madison: &str) -> Option<String> {
    madison.lines().find_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (_, version, archive) = (columns.next()?, columns.next()?, columns.next()?);
        // `2:1.24~2~bpo12+1`: an epoch, and the version of Go.
        let version = version.split_once(':').map_or(version, |(_, version)| version);
        let mut numbers = version.split(|c: char| !c.is_ascii_digit());
        let (major, minor): (u32, u32) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let suite = archive.split_whitespace().nth(1)?.split('/').next()?;
        ((major, minor) >= (1, 21)).then(|| suite.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::suite_with_go;

    #[test]
    fn finds_the_archive_that_has_a_go_with_toolchains() {
        let old = " golang-go |   2:1.19~1 | http://deb.debian.org/debian bookworm/main amd64 Packages\n";
        let new =
            " golang-go | 2:1.24~2~bpo12+1 | http://deb.debian.org/debian bookworm-backports/main amd64 Packages\n";
        assert_eq!(suite_with_go(old), None);
        assert_eq!(suite_with_go(&format!("{old}{new}")).as_deref(), Some("bookworm-backports"));
        assert_eq!(suite_with_go("N: Unable to locate package golang-go\n"), None);
    }
}
