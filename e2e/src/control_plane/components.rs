//! The command lines of the control plane's programs.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Command,
};

use anyhow::Result;

use super::home::Home;
use crate::tools::{Tool, Tools};

/// The first address of the range of Services: the API server's own Service.
pub(super) const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The address of the Service of the cluster's DNS, where there is one.
pub(crate) const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The addresses of Services.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Addresses of simulated pods; more than any test has pods.
const POD_RANGE: &str = "10.128.0.1/10";
/// The user that KWOK acts as; it stands for the kubelets.
pub const KWOK_USER: &str = "kwok";

/// Which writes are logged: all that change something, once, when they are done. Reviews only ask.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived", "ResponseStarted"],
  "rules": [
    {"level": "None", "verbs": ["get", "list", "watch"]},
    {"level": "None", "nonResourceURLs": ["*"]},
    {"level": "None", "resources": [{"group": "authentication.k8s.io"}, {"group": "authorization.k8s.io"}]},
    {"level": "Metadata"}
  ]
}
"#;

/// Ports on the loopback address that were free a moment ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) api_server: u16,
    etcd_client: u16,
    etcd_peer: u16,
    /// Where KWOK serves what kubelets would: the usage of pods.
    pub(super) kubelet: u16,
    pub(super) metrics_server: u16,
}

impl Ports {
    pub(super) fn choose() -> Result<Self> {
        // All are bound before any is given back, so they differ.
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listeners = [bind()?, bind()?, bind()?, bind()?, bind()?];
        let port = |of: usize| listeners[of].local_addr().map(|address| address.port());
        Ok(Self {
            api_server: port(0)?,
            etcd_client: port(1)?,
            etcd_peer: port(2)?,
            kubelet: port(3)?,
            metrics_server: port(4)?,
        })
    }
}

/// Everything that the command lines are made of.
pub(super) struct Components<'a> {
    pub(super) home: &'a Home,
    pub(super) tools: &'a Tools,
    pub(super) ports: Ports,
    /// Whether KWOK serves usage.
    pub(super) usage: bool,
    /// Arguments that come last, so that they win.
    pub(super) extra: &'a [(Tool, String)],
}

impl Components<'_> {
    pub(super) fn command(&self, tool: Tool) -> Result<Command> {
        let mut command = Command::new(self.tools.path(tool)?);
        command.args(match tool {
            Tool::Etcd => self.etcd(),
            Tool::KubeApiserver => self.api_server()?,
            Tool::KubeControllerManager => self.controller_manager(),
            Tool::KubeScheduler => self.scheduler(),
            Tool::Kwok => self.kwok()?,
            Tool::MetricsServer => self.metrics_server(),
            // Nothing of these is a component; the arguments of the guest's programs are in its services.
            Tool::Kubectl
            | Tool::Helm
            | Tool::Prometheus
            | Tool::Promtool
            | Tool::HpaOracle
            | Tool::Kubelet
            | Tool::KubeProxy
            | Tool::Containerd
            | Tool::ContainerdShim
            | Tool::Ctr
            | Tool::Runc
            | Tool::CniPtp
            | Tool::CniHostLocal
            | Tool::CniLoopback
            | Tool::GuestNode
            | Tool::GuestPause
            | Tool::GuestHello
            | Tool::CoreDns
            | Tool::GuestLoad => Vec::new(),
        });
        command.args(self.extra.iter().filter(|(to, _)| *to == tool).map(|(_, argument)| argument));
        Ok(command)
    }

    fn path(&self, name: &str) -> String {
        self.home.file(name).display().to_string()
    }

    fn etcd(&self) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd_client);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        vec![
            "--name=e2e".to_owned(),
            format!("--data-dir={}", self.path("etcd")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=e2e={peer}"),
            // The data need not survive the machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]
    }

    fn api_server(&self) -> Result<Vec<String>> {
        self.home.write("audit-policy.json", AUDIT_POLICY)?;
        Ok(vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd_client),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.ports.api_server),
            format!("--tls-cert-file={}", self.path("apiserver.crt")),
            format!("--tls-private-key-file={}", self.path("apiserver.key")),
            format!("--client-ca-file={}", self.path("ca.crt")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Endpoints may not hold the loopback address.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", self.path("sa.pub")),
            format!("--service-account-signing-key-file={}", self.path("sa.key")),
            format!("--requestheader-client-ca-file={}", self.path("ca.crt")),
            "--requestheader-allowed-names=front-proxy".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            format!("--proxy-client-cert-file={}", self.path("front-proxy.crt")),
            format!("--proxy-client-key-file={}", self.path("front-proxy.key")),
            // Logs and exec of real nodes. The kubelets of all nodes, real and simulated, are reached at ports of the
            // loopback address.
            "--kubelet-preferred-address-types=ExternalIP,InternalIP,Hostname".to_owned(),
            format!("--kubelet-certificate-authority={}", self.path("ca.crt")),
            format!("--kubelet-client-certificate={}", self.path("kubelet-client.crt")),
            format!("--kubelet-client-key={}", self.path("kubelet-client.key")),
            format!("--audit-policy-file={}", self.path("audit-policy.json")),
            format!("--audit-log-path={}", self.path("audit.log")),
            // Megabytes; unset it would be rotated away under the reader at 100.
            "--audit-log-maxsize=100000".to_owned(),
        ])
    }

    fn controller_manager(&self) -> Vec<String> {
        let ca = self.path("ca.crt");
        let ca_key = self.path("ca.key");
        vec![
            format!("--kubeconfig={}", self.path("controller-manager.kubeconfig")),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            format!("--root-ca-file={ca}"),
            format!("--service-account-private-key-file={}", self.path("sa.key")),
            format!("--cluster-signing-cert-file={ca}"),
            format!("--cluster-signing-key-file={ca_key}"),
            // By default 20 requests a second (burst 30) for each controller: 4 s at every start for the accounts of
            // the controllers alone.
            "--kube-api-qps=200".to_owned(),
            "--kube-api-burst=400".to_owned(),
            // A lost node is seen sooner than by default (5 s, 50 s), yet late enough for a busy machine.
            "--node-monitor-period=1s".to_owned(),
            "--node-monitor-grace-period=25s".to_owned(),
        ]
    }

    fn scheduler(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.path("scheduler.kubeconfig")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]
    }

    fn metrics_server(&self) -> Vec<String> {
        let kubeconfig = self.path("metrics-server.kubeconfig");
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.ports.metrics_server),
            format!("--tls-cert-file={}", self.path("metrics-server.crt")),
            format!("--tls-private-key-file={}", self.path("metrics-server.key")),
            // All nodes are KWOK: see `nodes.rs`.
            "--kubelet-use-node-status-port".to_owned(),
            "--kubelet-preferred-address-types=ExternalIP".to_owned(),
            format!("--kubelet-certificate-authority={}", self.path("ca.crt")),
            // Its default since v0.7, and what the HPA is measured with.
            "--metric-resolution=15s".to_owned(),
        ]
    }

    fn kwok(&self) -> Result<Vec<String>> {
        let mut configurations: Vec<PathBuf> = vec![
            self.home.write("stages-node.yaml", include_str!("../../kwok/node.yaml"))?,
            self.home.write("stages-pod.yaml", include_str!("../../kwok/pod.yaml"))?,
        ];
        let mut arguments = vec![
            format!("--kubeconfig={}", self.path("kwok.kubeconfig")),
            "--manage-all-nodes=false".to_owned(),
            format!("--manage-nodes-with-label-selector={}", crate::nodes::SIMULATED_SELECTOR),
            // Renewed every quarter of that.
            "--node-lease-duration-seconds=20".to_owned(),
            format!("--cidr={POD_RANGE}"),
        ];
        if self.usage {
            configurations.push(self.home.write("usage.yaml", include_str!("../../kwok/usage.yaml"))?);
            arguments.push(format!("--server-address=127.0.0.1:{}", self.ports.kubelet));
            arguments.push(format!("--tls-cert-file={}", self.path("apiserver.crt")));
            arguments.push(format!("--tls-private-key-file={}", self.path("apiserver.key")));
        } else {
            arguments.push("--server-address=".to_owned());
        }
        arguments.extend(configurations.iter().map(|path| format!("--config={}", path.display())));
        Ok(arguments)
    }
}
