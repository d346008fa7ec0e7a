//! The Go modules that pin the programs' versions.

use std::path::{Path, PathBuf};

use super::version::{self, Version};

/// A project whose programs are built, and the Go module of ours that pins it. Those that are made of the same
/// libraries share one (`e2e/tools/cluster`): with one version of each library, most of what they compile is compiled
/// once. The others have one each, so that their dependencies do not fight.
#[derive(Clone, Copy, Debug)]
pub(super) enum Module {
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
    pub(super) fn folder_name(self) -> &'static str {
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

    pub(super) fn folder(self) -> PathBuf {
        let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::Kubernetes | Self::Etcd | Self::Kwok | Self::Helm | Self::MetricsServer | Self::CoreDns => {
                e2e.join("tools/cluster")
            }
            Self::Prometheus | Self::Containerd | Self::Runc | Self::Cni => e2e.join("tools").join(self.folder_name()),
            Self::Oracle | Self::Guest => e2e.join(self.folder_name()),
        }
    }

    /// Where code of our own is that its programs are made of, so that its version alone does not say what they are.
    pub(super) fn own_code(self) -> Option<PathBuf> {
        match self {
            Self::CoreDns => Some(self.folder().join(self.folder_name())),
            Self::Oracle | Self::Guest => Some(self.folder()),
            Self::Kubernetes
            | Self::Etcd
            | Self::Kwok
            | Self::Helm
            | Self::MetricsServer
            | Self::Prometheus
            | Self::Containerd
            | Self::Runc
            | Self::Cni => None,
        }
    }

    /// The module path of the project; of our own, that of what gives it its version.
    pub(super) fn path(self) -> &'static str {
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

    pub(super) fn go_mod(self) -> &'static str {
        match self {
            Self::Kubernetes | Self::Etcd | Self::Kwok | Self::Helm | Self::MetricsServer | Self::CoreDns => {
                include_str!("../../tools/cluster/go.mod")
            }
            Self::Prometheus => include_str!("../../tools/prometheus/go.mod"),
            Self::Containerd => include_str!("../../tools/containerd/go.mod"),
            Self::Runc => include_str!("../../tools/runc/go.mod"),
            Self::Cni => include_str!("../../tools/cni/go.mod"),
            Self::Oracle => include_str!("../../oracle/go.mod"),
            Self::Guest => include_str!("../../guest/go.mod"),
        }
    }

    /// The version of the project.
    pub(super) fn version(self) -> Version {
        version::required(self.go_mod(), self.path()).expect("every go.mod requires its project")
    }

    /// The oldest Go that builds it.
    pub(super) fn go_version(self) -> Version {
        version::required(self.go_mod(), "go").expect("every go.mod names its Go")
    }

    /// Whether a program that somebody else installed can stand in for ours.
    pub(super) fn accepts(self, found: Version) -> bool {
        let ours = self.version();
        match self {
            // The API server must not be older than its clients, and the stages are written for one minor version of
            // KWOK.
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
    pub(super) fn stamp(self) -> String {
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
