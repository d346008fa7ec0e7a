//! What the guest has from Debian: a kernel with its modules, and busybox. Packages come by the host's own apt, so they are verified by it; they are unpacked,
//! not installed, which needs no rights.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Depends on the newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// One program that is all the tools of a small system.
const BUSYBOX: &str = "busybox-static";

/// The modules that the guest loads; what they depend on comes along. A kernel may have some of them built in.
const MODULES: [&str; 8] =
    ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "overlay", "veth", "dummy"];

/// Unpacked packages.
#[derive(Debug)]
pub(super) struct Packages {
    folder: PathBuf,
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
        let names = vec![kernel, BUSYBOX.to_owned()];
        run(Command::new("apt-get").args(["--quiet", "download"]).args(&names), folder)?;
        let root = folder.join("root");
        let mut unpacked = 0;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&root), folder)?;
                unpacked += 1;
            }
        }
        ensure!(unpacked == names.len(), "apt-get download gave {unpacked} packages of {names:?}");
        Ok(Self { folder: root, names })
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
