//! The programs of the control plane: found where they are already, else built from the Go modules in `e2e/tools`; the oracle of the autoscaler, built from
//! `e2e/oracle`; and the programs of a real node and of its cluster's DNS, built from `e2e/tools` and `e2e/guest`.
//!
//! Looked for in this order: the folder in `KUBEBUILDER_ASSETS`, the cache (`$CATAMARAN_CACHE/bin`, by default `~/.cache/catamaran/bin`), `PATH`; what is found
//! outside the cache counts only when its version fits. The `go.mod` files own the versions.

mod build;
mod version;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub use build::go_found;
use sha2::{Digest, Sha256};
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
    /// Serves metrics.k8s.io.
    MetricsServer,
    /// Stores metrics and answers queries for them.
    Prometheus,
    /// Checks and tests alert rules.
    Promtool,
    /// Tells what the HPA of Kubernetes decides: its controller over cases in the conformance format. Our own program (`e2e/oracle`).
    HpaOracle,
    /// Runs the pods of a node, in the guest.
    Kubelet,
    /// Leads what is sent to a Service to its pods, in the guest.
    KubeProxy,
    /// Runs containers, in the guest.
    Containerd,
    /// Stays with the containers of one pod, in the guest.
    ContainerdShim,
    /// The command line of containerd, in the guest.
    Ctr,
    /// Starts one container, in the guest.
    Runc,
    /// The CNI plugin that ties each pod to the node, in the guest.
    CniPtp,
    /// The CNI plugin that gives pods their addresses, in the guest.
    CniHostLocal,
    /// The CNI plugin of the loopback interface, in the guest.
    CniLoopback,
    /// Answers for the names of Services, in a pod. Put together of CoreDNS's own parts (`e2e/tools/coredns`).
    CoreDns,
    /// Process 1 of the guest. Our own program (`e2e/guest`), as are the next ones.
    GuestNode,
    /// The container that holds the namespaces of a pod.
    GuestPause,
    /// Prints a greeting.
    GuestHello,
    /// Puts a known load on CPU, memory, disk or processes.
    GuestLoad,
}

impl Tool {
    /// What every ground needs, in the order in which they are built.
    pub const GROUND: [Self; 7] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubectl,
        Self::Kwok,
        Self::Helm,
    ];

    /// Every tool, in the order in which they are built.
    pub const ALL: [Self; 10] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::Kubectl,
        Self::Kwok,
        Self::Helm,
        Self::MetricsServer,
        Self::Prometheus,
        Self::Promtool,
    ];

    /// What a real node needs, in the order in which they are built.
    pub const NODE: [Self; 14] = [
        Self::Kubelet,
        Self::KubeProxy,
        Self::Containerd,
        Self::ContainerdShim,
        Self::Ctr,
        Self::Runc,
        Self::CniPtp,
        Self::CniHostLocal,
        Self::CniLoopback,
        Self::CoreDns,
        Self::GuestNode,
        Self::GuestPause,
        Self::GuestHello,
        Self::GuestLoad,
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
            Self::MetricsServer => "metrics-server",
            Self::Prometheus => "prometheus",
            Self::Promtool => "promtool",
            Self::HpaOracle => "hpa-oracle",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Containerd => "containerd",
            Self::ContainerdShim => "containerd-shim-runc-v2",
            Self::Ctr => "ctr",
            Self::Runc => "runc",
            Self::CniPtp => "ptp",
            Self::CniHostLocal => "host-local",
            Self::CniLoopback => "loopback",
            Self::CoreDns => "coredns",
            Self::GuestNode => "node",
            Self::GuestPause => "pause",
            Self::GuestHello => "hello",
            Self::GuestLoad => "load",
        }
    }

    fn module(self) -> Module {
        match self {
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubectl
            | Self::Kubelet
            | Self::KubeProxy => Module::Kubernetes,
            Self::Containerd | Self::ContainerdShim | Self::Ctr => Module::Containerd,
            Self::Runc => Module::Runc,
            Self::CniPtp | Self::CniHostLocal | Self::CniLoopback => Module::Cni,
            Self::CoreDns => Module::CoreDns,
            Self::GuestNode | Self::GuestPause | Self::GuestHello | Self::GuestLoad => Module::Guest,
            Self::Etcd => Module::Etcd,
            Self::Kwok => Module::Kwok,
            Self::Helm => Module::Helm,
            Self::MetricsServer => Module::MetricsServer,
            Self::Prometheus | Self::Promtool => Module::Prometheus,
            Self::HpaOracle => Module::Oracle,
        }
    }

    /// The import path of its main package.
    fn package(self) -> String {
        match self.module() {
            Module::Kubernetes => format!("k8s.io/kubernetes/cmd/{}", self.name()),
            module @ (Module::Etcd | Module::Runc) => module.path().to_owned(),
            module
            @ (Module::Kwok | Module::Helm | Module::MetricsServer | Module::Prometheus | Module::Containerd) => {
                format!("{}/cmd/{}", module.path(), self.name())
            }
            Module::Cni if matches!(self, Self::CniHostLocal) => {
                format!("{}/plugins/ipam/{}", Module::Cni.path(), self.name())
            }
            Module::Cni => format!("{}/plugins/main/{}", Module::Cni.path(), self.name()),
            Module::Guest => format!("./{}", self.name()),
            Module::Oracle | Module::CoreDns => ".".to_owned(),
        }
    }

    /// Build tags: what is left out.
    fn tags(self) -> &'static str {
        match self {
            // Service discovery needs the client libraries of all clouds: two thirds of the build.
            Self::Prometheus | Self::Promtool => "remove_all_sd",
            // Snapshotters that need libraries, or file systems that the guest does not have.
            Self::Containerd | Self::ContainerdShim | Self::Ctr => "no_btrfs no_devmapper no_zfs no_aufs",
            // Without the name services of a C library, which cannot be linked statically; with filters of system calls, which every pod has.
            Self::Runc => "netgo osusergo seccomp",
            _ => "",
        }
    }

    /// Whether it runs in the guest alone, on its disk or in an image: then it has to be linked statically, and what the host has of that name does not count.
    fn of_the_guest(self) -> bool {
        Self::NODE.contains(&self)
    }

    /// Whether it is built with a C compiler, which it needs where it enters namespaces before Go starts; with libseccomp (static, with its headers) and pkg-config.
    fn needs_c(self) -> bool {
        matches!(self, Self::Runc)
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
            Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Kubectl
            | Self::Etcd
            | Self::Kwok
            | Self::Promtool => "about 1 min cold",
            Self::Prometheus => "about 2 min cold",
            Self::Helm | Self::MetricsServer => "about 3 min cold",
            Self::HpaOracle | Self::Containerd | Self::CoreDns => "about 2 min cold",
            Self::Kubelet | Self::KubeProxy => "about 1 min cold",
            Self::ContainerdShim | Self::Ctr | Self::Runc => "about 15 s",
            Self::CniPtp | Self::CniHostLocal | Self::CniLoopback => "a few seconds",
            Self::GuestNode | Self::GuestPause | Self::GuestHello | Self::GuestLoad => "a few seconds",
        }
    }
}

/// A Go module of ours that pins one project; one each, so that their dependencies do not fight. Those of the oracle and of CoreDNS have code of their
/// own as well.
#[derive(Clone, Copy, Debug)]
enum Module {
    Kubernetes,
    Etcd,
    Kwok,
    Helm,
    MetricsServer,
    Prometheus,
    Oracle,
    Containerd,
    Runc,
    Cni,
    CoreDns,
    Guest,
}

impl Module {
    fn folder_name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::Kwok => "kwok",
            Self::Helm => "helm",
            Self::MetricsServer => "metrics-server",
            Self::Prometheus => "prometheus",
            Self::Oracle => "oracle",
            Self::Containerd => "containerd",
            Self::Runc => "runc",
            Self::Cni => "cni",
            Self::CoreDns => "coredns",
            Self::Guest => "guest",
        }
    }

    fn folder(self) -> PathBuf {
        let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::Kubernetes
            | Self::Etcd
            | Self::Kwok
            | Self::Helm
            | Self::MetricsServer
            | Self::Prometheus
            | Self::Containerd
            | Self::Runc
            | Self::Cni
            | Self::CoreDns => e2e.join("tools").join(self.folder_name()),
            Self::Oracle | Self::Guest => e2e.join(self.folder_name()),
        }
    }

    /// The module path of the project; of our own, that of what gives it its version.
    fn path(self) -> &'static str {
        match self {
            Self::Kubernetes | Self::Oracle => "k8s.io/kubernetes",
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::Kwok => "sigs.k8s.io/kwok",
            Self::Helm => "helm.sh/helm/v4",
            Self::MetricsServer => "sigs.k8s.io/metrics-server",
            Self::Prometheus => "github.com/prometheus/prometheus",
            Self::Containerd => "github.com/containerd/containerd/v2",
            Self::Runc => "github.com/opencontainers/runc",
            Self::Cni => "github.com/containernetworking/plugins",
            Self::CoreDns => "github.com/coredns/coredns",
            Self::Guest => "golang.org/x/sys",
        }
    }

    fn go_mod(self) -> &'static str {
        match self {
            Self::Kubernetes => include_str!("../../tools/kubernetes/go.mod"),
            Self::Etcd => include_str!("../../tools/etcd/go.mod"),
            Self::Kwok => include_str!("../../tools/kwok/go.mod"),
            Self::Helm => include_str!("../../tools/helm/go.mod"),
            Self::MetricsServer => include_str!("../../tools/metrics-server/go.mod"),
            Self::Prometheus => include_str!("../../tools/prometheus/go.mod"),
            Self::Oracle => include_str!("../../oracle/go.mod"),
            Self::Containerd => include_str!("../../tools/containerd/go.mod"),
            Self::Runc => include_str!("../../tools/runc/go.mod"),
            Self::Cni => include_str!("../../tools/cni/go.mod"),
            Self::CoreDns => include_str!("../../tools/coredns/go.mod"),
            Self::Guest => include_str!("../../guest/go.mod"),
        }
    }

    /// The version of the project.
    fn version(self) -> Version {
        version::required(self.go_mod(), self.path()).expect("every go.mod requires its project")
    }

    /// The oldest Go that builds it.
    fn go_version(self) -> Version {
        version::required(self.go_mod(), "go").expect("every go.mod names its Go")
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
            Self::MetricsServer => (found.major, found.minor) == (ours.major, ours.minor),
            // Release 3.x of Prometheus is version 0.30x of its Go module.
            Self::Prometheus => found.major == 3,
            // Nobody else makes them, or nobody's are looked for.
            Self::Oracle | Self::Guest | Self::Containerd | Self::Runc | Self::Cni | Self::CoreDns => false,
        }
    }

    /// The linker's settings: above all those that stamp the version into its programs.
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
            Self::MetricsServer => format!("-X k8s.io/client-go/pkg/version.gitVersion={version}"),
            Self::Prometheus => {
                let (major, minor) = (version.minor / 100, version.minor % 100);
                format!("-X github.com/prometheus/common/version.Version={major}.{minor}.{}", version.patch)
            }
            Self::Containerd => format!("-X {}/version.Version={version}", self.path()),
            // Linked by the C linker, with the C library in it.
            Self::Runc => "-linkmode external -extldflags -static".to_owned(),
            // The first have their version in the source, and nobody asks the others for one.
            Self::Etcd | Self::Kwok | Self::Oracle | Self::Cni | Self::CoreDns | Self::Guest => String::new(),
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

/// Where a tool of the pinned version is, or would be, in the cache. The version is in the folder's name, so an upgrade builds anew; where the code is our own, so is
/// its digest.
fn cached(tool: Tool) -> Result<PathBuf> {
    let module = tool.module();
    let mut folder = format!("{}-{}", module.folder_name(), module.version());
    if matches!(module, Module::Oracle | Module::CoreDns | Module::Guest) {
        folder = format!("{folder}-{}", digest(&module.folder())?);
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
