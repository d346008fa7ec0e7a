//! The programs of the control plane: found where they are already, else built from the Go modules in `e2e/tools`.
//!
//! Looked for in this order: the folder in `KUBEBUILDER_ASSETS`, the cache (`$CATAMARAN_CACHE/bin`, by default `~/.cache/catamaran/bin`), `PATH`; what is found
//! outside the cache counts only when its version fits. The `go.mod` files own the versions.

mod build;
mod version;

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub use build::go_found;
use version::Version;

/// A program that the ground needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// Serves the Kubernetes API.
    KubeApiserver,
    /// Runs the controllers of Kubernetes (ReplicaSet, Deployment, garbage collection ...).
    KubeControllerManager,
    /// Places pods on nodes.
    KubeScheduler,
    /// The command line of Kubernetes.
    Kubectl,
    /// The database under the API server.
    Etcd,
    /// Simulates nodes and what kubelets do.
    Kwok,
    /// Installs charts.
    Helm,
}

impl Tool {
    /// Every tool, in the order in which they are built.
    pub const ALL: [Self; 7] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubectl,
        Self::Kwok,
        Self::Helm,
    ];

    /// The file name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubectl => "kubectl",
            Self::Etcd => "etcd",
            Self::Kwok => "kwok",
            Self::Helm => "helm",
        }
    }

    fn module(self) -> Module {
        match self {
            Self::KubeApiserver | Self::KubeControllerManager | Self::KubeScheduler | Self::Kubectl => {
                Module::Kubernetes
            }
            Self::Etcd => Module::Etcd,
            Self::Kwok => Module::Kwok,
            Self::Helm => Module::Helm,
        }
    }

    /// The import path of its main package.
    fn package(self) -> String {
        match self.module() {
            Module::Kubernetes => format!("k8s.io/kubernetes/cmd/{}", self.name()),
            Module::Etcd => Module::Etcd.path().to_owned(),
            Module::Kwok => format!("{}/cmd/kwok", Module::Kwok.path()),
            Module::Helm => format!("{}/cmd/helm", Module::Helm.path()),
        }
    }

    /// The arguments that make it print its version.
    fn version_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kubectl => &["version", "--client"],
            Self::Helm => &["version", "--short"],
            _ => &["--version"],
        }
    }

    /// Minutes of a cold build on two cores, for the progress line; the first of Kubernetes compiles what the others share.
    fn cold_build(self) -> &'static str {
        match self {
            Self::KubeApiserver => "about 4 min cold",
            Self::KubeControllerManager | Self::KubeScheduler | Self::Kubectl | Self::Etcd | Self::Kwok => {
                "about 1 min cold"
            }
            Self::Helm => "about 3 min cold",
        }
    }
}

/// A Go module of ours that pins one project; one each, so that their dependencies do not fight.
#[derive(Clone, Copy, Debug)]
enum Module {
    Kubernetes,
    Etcd,
    Kwok,
    Helm,
}

impl Module {
    fn folder_name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::Kwok => "kwok",
            Self::Helm => "helm",
        }
    }

    fn folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(self.folder_name())
    }

    /// The module path of the project.
    fn path(self) -> &'static str {
        match self {
            Self::Kubernetes => "k8s.io/kubernetes",
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::Kwok => "sigs.k8s.io/kwok",
            Self::Helm => "helm.sh/helm/v4",
        }
    }

    fn go_mod(self) -> &'static str {
        match self {
            Self::Kubernetes => include_str!("../../tools/kubernetes/go.mod"),
            Self::Etcd => include_str!("../../tools/etcd/go.mod"),
            Self::Kwok => include_str!("../../tools/kwok/go.mod"),
            Self::Helm => include_str!("../../tools/helm/go.mod"),
        }
    }

    /// The version of the project.
    fn version(self) -> Version {
        version::required(self.go_mod(), self.path()).expect("every go.mod in e2e/tools requires its project")
    }

    /// The oldest Go that builds it.
    fn go_version(self) -> Version {
        version::required(self.go_mod(), "go").expect("every go.mod in e2e/tools names its Go")
    }

    /// Whether a program that somebody else installed can stand in for ours.
    fn accepts(self, found: Version) -> bool {
        let ours = self.version();
        match self {
            // The API server must not be older than its clients, and the stages are written for one minor version of KWOK.
            Self::Kubernetes | Self::Kwok => (found.major, found.minor) == (ours.major, ours.minor),
            // Kubernetes 1.36 asks for etcd 3.5 or later.
            Self::Etcd => found.major == 3 && found.minor >= 5,
            Self::Helm => found.major == ours.major && found.minor >= ours.minor,
        }
    }

    /// The linker's settings that stamp the version into its programs.
    fn stamp(self) -> String {
        let version = self.version();
        match self {
            Self::Kubernetes => {
                let package = "k8s.io/component-base/version";
                format!(
                    "-X {package}.gitVersion={version} -X {package}.gitMajor={} -X {package}.gitMinor={}",
                    version.major, version.minor
                )
            }
            Self::Helm => format!("-X helm.sh/helm/v4/internal/version.version={version}"),
            // These two have their version in the source.
            Self::Etcd | Self::Kwok => String::new(),
        }
    }
}

/// The folder that keeps what takes long to make: `$CATAMARAN_CACHE`, else `$XDG_CACHE_HOME/catamaran`, else `~/.cache/catamaran`.
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
    /// Finds the tools, and builds those that are nowhere; progress goes to standard error. Blocks for minutes at the first start.
    ///
    /// Errors: Go is missing or too old, or a build fails.
    pub fn prepare(wanted: &[Tool]) -> Result<Self> {
        let (mut found, missing) = locate(wanted)?;
        if !missing.is_empty() {
            found.extend(build::build(&missing)?);
        }
        Ok(Self(found))
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

/// Where a tool of the pinned version is, or would be, in the cache. The version is in the folder's name, so an upgrade builds anew.
fn cached(tool: Tool) -> Result<PathBuf> {
    let module = tool.module();
    Ok(cache()?.join("bin").join(format!("{}-{}", module.folder_name(), module.version())).join(tool.name()))
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
