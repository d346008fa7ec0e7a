//! The programs, and how each is built.

use std::time::Duration;

use super::module::Module;

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
    /// Tells what the HPA of Kubernetes decides: its controller over cases in the conformance format. Our own program
    /// (`e2e/oracle`).
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
    /// Answers for the names of Services, in a pod. Put together of CoreDNS's own parts (`e2e/tools/cluster/coredns`).
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

    pub(super) fn module(self) -> Module {
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
    pub(super) fn package(self) -> String {
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
            Module::CoreDns => "./coredns".to_owned(),
            Module::Oracle => ".".to_owned(),
        }
    }

    /// Build tags: what is left out.
    pub(super) fn tags(self) -> &'static str {
        match self {
            // Service discovery needs the client libraries of all clouds: two thirds of the build.
            Self::Prometheus | Self::Promtool => "remove_all_sd",
            // Snapshotters that need libraries, or file systems that the guest does not have.
            Self::Containerd | Self::ContainerdShim | Self::Ctr => "no_btrfs no_devmapper no_zfs no_aufs",
            // Without the name services of a C library, which cannot be linked statically; with filters of system
            // calls, which every pod has.
            Self::Runc => "netgo osusergo seccomp",
            _ => "",
        }
    }

    /// Whether it runs in the guest alone, on its disk or in an image: then it has to be linked statically, and what
    /// the host has of that name does not count.
    pub(super) fn of_the_guest(self) -> bool {
        Self::NODE.contains(&self)
    }

    /// Whether it is built with a C compiler, which it needs where it enters namespaces before Go starts; with
    /// libseccomp (static, with its headers) and pkg-config.
    pub(super) fn needs_c(self) -> bool {
        matches!(self, Self::Runc)
    }

    /// The arguments that make it print its version.
    pub(super) fn version_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kubectl => &["version", "--client"],
            Self::Helm => &["version", "--short"],
            _ => &["--version"],
        }
    }

    /// How long a cold build takes on two cores, for the progress line: what the tools before it in [`Self::GROUND`]
    /// and [`Self::NODE`] have compiled counts to those.
    pub(super) fn cold_build(self) -> Duration {
        Duration::from_secs(match self {
            Self::KubeApiserver => 190,
            Self::KubeControllerManager => 60,
            Self::Etcd | Self::Prometheus => 60,
            Self::Kubelet | Self::HpaOracle | Self::Containerd | Self::Promtool => 40,
            Self::Kwok | Self::Helm | Self::Kubectl | Self::MetricsServer | Self::CoreDns | Self::KubeProxy => 20,
            Self::KubeScheduler | Self::ContainerdShim | Self::Ctr | Self::Runc => 10,
            Self::CniPtp | Self::CniHostLocal | Self::CniLoopback => 3,
            Self::GuestNode | Self::GuestPause | Self::GuestHello | Self::GuestLoad => 2,
        })
    }
}
