//! The programs of the control plane: found where they are already, else downloaded from their projects
//! (`download.rs`), else built from the Go modules in `e2e/tools`; the oracle of the autoscaler, built from
//! `e2e/oracle`; and the programs of a real node and of its cluster's DNS, built from `e2e/tools` and `e2e/guest`.
//!
//! Looked for in this order: the folder in `KUBEBUILDER_ASSETS`, the cache (`$CATAMARAN_CACHE/bin`, by default
//! `~/.cache/catamaran/bin`), `PATH`; what is found outside the cache counts only when its version fits. The `go.mod`
//! files own the versions.

mod build;
mod download;
mod module;
mod tool;
mod version;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub use build::go_found;
use module::Module;
use sha2::{Digest, Sha256};
pub use tool::Tool;

/// The folder that keeps what takes long to make: `$CATAMARAN_CACHE`, else `$XDG_CACHE_HOME/catamaran`, else
/// `~/.cache/catamaran`.
pub fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CATAMARAN_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("catamaran")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/catamaran")))
        .context("no folder for the cache: set CATAMARAN_CACHE or HOME")
}

/// Where each tool is.
#[derive(Clone, Debug)]
pub struct Tools(BTreeMap<Tool, PathBuf>);

impl Tools {
    /// Finds the tools, and downloads or builds those that are nowhere; progress goes to standard error. Blocks for
    /// minutes at the first start.
    ///
    /// Errors: a download is not what was published, Go is missing or too old, or a build fails.
    pub fn prepare(wanted: &[Tool]) -> Result<Self> {
        let (mut found, missing) = locate(wanted)?;
        if !missing.is_empty() {
            found.extend(build::make(&missing)?);
        }
        Ok(Self(found))
    }

    /// Downloads those of the tools that are nowhere, and are published. Gives those that have to be built.
    ///
    /// Errors: a download is not what was published.
    pub fn download(wanted: &[Tool]) -> Result<Vec<Tool>> {
        let (_, missing) = locate(wanted)?;
        if missing.is_empty() { Ok(missing) } else { build::download(&missing) }
    }

    /// Those of the tools that are nowhere, so that [`Self::prepare`] would build them.
    pub fn missing(wanted: &[Tool]) -> Result<Vec<Tool>> {
        Ok(locate(wanted)?.1)
    }

    /// The path of a tool.
    ///
    /// Errors: it was not among those prepared.
    pub fn path(&self, tool: Tool) -> Result<&Path> {
        self.0.get(&tool).map(PathBuf::as_path).with_context(|| format!("{} was not prepared", tool.name()))
    }
}

/// Where a tool of the pinned version is, or would be, in the cache. The version is in the folder's name, so an upgrade
/// builds anew; where the code is our own, so is its digest.
fn cached(tool: Tool) -> Result<PathBuf> {
    let module = tool.module();
    let mut folder = format!("{}-{}", module.folder_name(), module.version());
    if let Some(own) = module.own_code() {
        folder = format!("{folder}-{}", digest(&own)?);
    }
    Ok(cache()?.join("bin").join(folder).join(tool.name()))
}

/// A digest over the files of a folder and of those in it, short enough for a name.
fn digest(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut sha = Sha256::new();
    for file in &files {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(folder).unwrap_or(file);
        // Lengths keep apart what would otherwise run together.
        for part in [name.as_os_str().as_encoded_bytes(), &content] {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part);
        }
    }
    Ok(sha.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// What is there, and what is nowhere.
fn locate(wanted: &[Tool]) -> Result<(BTreeMap<Tool, PathBuf>, Vec<Tool>)> {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for &tool in wanted {
        match find(tool)? {
            Some(path) => {
                found.insert(tool, path);
            }
            None => missing.push(tool),
        }
    }
    Ok((found, missing))
}

fn find(tool: Tool) -> Result<Option<PathBuf>> {
    if tool.of_the_guest() {
        let cached = cached(tool)?;
        return Ok(cached.is_file().then_some(cached));
    }
    if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()) {
        let path = Path::new(&assets).join(tool.name());
        if path.is_file() {
            if fits(tool, &path) {
                return Ok(Some(path));
            }
            eprintln!(
                "{} is not used: its version does not fit {} {}",
                path.display(),
                tool.module().folder_name(),
                tool.module().version()
            );
        }
    }
    let cached = cached(tool)?;
    if cached.is_file() {
        return Ok(Some(cached));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path).map(|folder| folder.join(tool.name())).find(|path| path.is_file() && fits(tool, path)))
}

fn fits(tool: Tool, path: &Path) -> bool {
    version::of_program(path, tool.version_arguments()).is_some_and(|version| tool.module().accepts(version))
}
