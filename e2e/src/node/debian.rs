//! What the guest has from Debian: a kernel with its modules, busybox, and nft, which kube-proxy runs, with its
//! libraries. Packages come by the host's own apt, so they are verified by it; they are unpacked, not installed, which
//! needs no rights.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Depends on the newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// One program that is all the tools of a small system.
const BUSYBOX: &str = "busybox-static";

/// The command line of the kernel's packet filter.
const NFT: &str = "nftables";

/// The modules that the guest loads; what they depend on comes along. A kernel may have some of them built in.
const MODULES: [&str; 21] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "overlay",
    "veth",
    // Of the packet filter what kube-proxy uses.
    "nf_tables",
    "nf_conntrack_netlink",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_numgen",
    "nft_fib_ipv4",
    "nft_fib_inet",
    "nft_reject_ipv4",
    "nft_reject_inet",
    "nft_limit",
    "nft_hash",
    "nft_redir",
];

/// Unpacked packages.
#[derive(Debug)]
pub(super) struct Packages {
    /// The kernel and busybox.
    folder: PathBuf,
    /// nft, with all that it needs.
    libraries: PathBuf,
    names: Vec<String>,
}

/// A kernel module, and its place in the order in which modules load.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) file_name: String,
    pub(super) content: Vec<u8>,
}

impl Packages {
    /// Downloads and unpacks into a folder. Blocks.
    pub(super) fn fetch(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let kernel = match kernel_package() {
            Ok(kernel) => kernel,
            // A fresh machine has no lists of packages yet.
            Err(_) => {
                run(Command::new("apt-get").args(["--quiet", "update"]), folder)?;
                kernel_package()?
            }
        };
        let (system, libraries) = (folder.join("system"), folder.join("libraries"));
        let tools = dependencies_of(NFT)?;
        fetch(&folder.join("system.debs"), &[kernel.clone(), BUSYBOX.to_owned()], &system)?;
        fetch(&folder.join("libraries.debs"), &tools, &libraries)?;
        Ok(Self { folder: system, libraries, names: [vec![kernel, BUSYBOX.to_owned()], tools].concat() })
    }

    /// The names, with the version of the kernel in its.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The compressed image of the kernel.
    pub(super) fn kernel(&self) -> Result<PathBuf> {
        find(&self.folder.join("boot"), |name| name.starts_with("vmlinuz-"))?
            .into_iter()
            .next()
            .with_context(|| format!("{KERNEL} has no kernel"))
    }

    /// busybox, linked statically.
    pub(super) fn busybox(&self) -> Result<PathBuf> {
        let found = ["bin/busybox", "usr/bin/busybox"].map(|path| self.folder.join(path));
        found.into_iter().find(|path| path.is_file()).with_context(|| format!("{BUSYBOX} has no busybox"))
    }

    /// Puts nft and its libraries into a root folder.
    pub(super) fn libraries(&self, root: &Path) -> Result<()> {
        // Texts and translations.
        let share = self.libraries.join("usr/share");
        if share.is_dir() {
            fs::remove_dir_all(share)?;
        }
        let from = self.libraries.join(".");
        run(Command::new("cp").args(["--archive", "--no-preserve=ownership"]).arg(from).arg(root), root)?;
        // Where programs look for the loader, on releases that have it below /usr alone.
        if !root.join("lib64").exists() {
            symlink("usr/lib64", root.join("lib64"))?;
        }
        Ok(())
    }

    /// The modules that the guest needs, dependencies first.
    pub(super) fn modules(&self) -> Result<Vec<Module>> {
        let folders = ["lib/modules", "usr/lib/modules"].map(|path| self.folder.join(path));
        let folder = folders.iter().find(|path| path.is_dir()).context("the kernel has no modules")?;
        let files: BTreeMap<String, PathBuf> = find(folder, |name| name.ends_with(".ko"))?
            .into_iter()
            .map(|path| (module_name(&path.to_string_lossy()), path))
            .collect();
        let built_in = find(folder, |name| name == "modules.builtin")?;
        let built_in: BTreeSet<String> = match built_in.first() {
            Some(list) => fs::read_to_string(list)?.lines().map(module_name).collect(),
            None => BTreeSet::new(),
        };
        let mut ordered = Vec::new();
        let mut seen = built_in;
        for wanted in MODULES {
            load(wanted, &files, &mut seen, &mut ordered)?;
        }
        Ok(ordered)
    }
}

/// Adds a module after those that it depends on.
fn load(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    seen: &mut BTreeSet<String>,
    ordered: &mut Vec<Module>,
) -> Result<()> {
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let path = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let content = fs::read(path)?;
    for dependency in dependencies(&content) {
        load(&dependency, files, seen, ordered)?;
    }
    let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ordered.push(Module { file_name, content });
    Ok(())
}

/// What a module says about itself is in it as `name=value`, each ended by a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"depends=";
    let values = module.split(|byte| *byte == 0).filter_map(|text| text.strip_prefix(FIELD));
    values
        .flat_map(|value| value.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| module_name(&String::from_utf8_lossy(name)))
        .collect()
}

/// The name of a module by its path: the kernel takes `-` and `_` for the same.
fn module_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".ko").unwrap_or(name).replace('-', "_")
}

fn kernel_package() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", KERNEL])
        .output()
        .context("cannot run apt-cache: the kernel of the guest comes from a Debian archive")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    depends
        .map(str::to_owned)
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("apt-cache knows no {KERNEL}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A package and what it needs, in turn.
fn dependencies_of(package: &str) -> Result<Vec<String>> {
    let relations = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
    let output = Command::new("apt-cache")
        .args(["depends", "--recurse"])
        .args(relations.map(|relation| format!("--no-{relation}")))
        .arg(package)
        .output()?;
    // Names start their lines; what is said of each is indented. Those in brackets are provided by others.
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()));
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    ensure!(names.contains(package), "apt-cache knows no {package}");
    Ok(names.into_iter().collect())
}

/// Downloads packages into a folder, and unpacks them into another one.
fn fetch(folder: &Path, names: &[String], root: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    run(Command::new("apt-get").args(["--quiet", "download"]).args(names), folder)?;
    let packages = find(folder, |name| name.ends_with(".deb"))?;
    ensure!(packages.len() == names.len(), "apt-get download gave {packages:?} for {names:?}");
    for package in packages {
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(root), folder)?;
    }
    Ok(())
}

fn run(command: &mut Command, folder: &Path) -> Result<()> {
    let output = command.current_dir(folder).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// All files below a folder whose names fit, in order.
fn find(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if fits(&entry.file_name().to_string_lossy()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{dependencies, module_name};

    #[test]
    fn reads_what_a_module_depends_on() {
        let module = b"\x7fELF...\0license=GPL\0depends=virtio,virtio-ring\0intree=Y\0";
        assert_eq!(dependencies(module), ["virtio", "virtio_ring"]);
        assert_eq!(dependencies(b"depends=\0"), Vec::<String>::new());
        assert_eq!(module_name("kernel/drivers/char/hw_random/virtio-rng.ko"), "virtio_rng");
    }
}
