//! Command line and environment.

use std::{net::SocketAddr, path::PathBuf};

use catamaran_controller::logs::LogSettings;
use clap::{Parser, ValueEnum};

/// Samples the cgroups of this node's pods, pushes usage to the operator, and holds pods to their quota.
///
/// The API server is found as kubectl finds it (KUBECONFIG, ~/.kube/config), or through the ServiceAccount in a pod.
#[derive(Clone, Debug, Parser)]
#[command(name = "catamaran-agent", version)]
pub struct Settings {
    /// The name of this node; in a pod, from spec.nodeName.
    #[arg(long, env = "CATAMARAN_NODE")]
    pub node: String,
    /// Where the node's cgroup v2 tree is mounted, or a part of it that has all pods.
    #[arg(long, env = "CATAMARAN_CGROUP_ROOT", default_value = "/sys/fs/cgroup")]
    pub cgroup_root: PathBuf,
    /// Where the node's disks are listed.
    #[arg(long, env = "CATAMARAN_SYS_BLOCK", default_value = "/sys/block")]
    pub sys_block: PathBuf,
    /// The headless Service of the operator's usage intake, as HOST:PORT.
    #[arg(long, env = "CATAMARAN_USAGE_SERVICE", default_value = "catamaran-usage.catamaran-system.svc:9443")]
    #[arg(value_parser = service)]
    pub usage_service: Service,
    /// The name that the intake's certificate has to be for; the Service's host when empty.
    #[arg(long, env = "CATAMARAN_USAGE_SERVER_NAME", default_value = "")]
    pub usage_server_name: String,
    /// The certificate authorities of the intake (PEM), read for each connection.
    #[arg(long, env = "CATAMARAN_USAGE_CA", default_value = "/etc/catamaran/usage-ca/ca.crt")]
    pub usage_ca: PathBuf,
    /// The token for the intake: of a ServiceAccount, bound to this pod, with the intake's audience. Read for each
    /// stream.
    #[arg(long, env = "CATAMARAN_USAGE_TOKEN", default_value = "/var/run/secrets/catamaran/token")]
    pub usage_token: PathBuf,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "CATAMARAN_LISTEN", default_value = "0.0.0.0:8081")]
    pub listen: SocketAddr,
    /// What happens to pods' quotas when the agent is asked to stop.
    #[arg(long, env = "CATAMARAN_ON_STOP", value_enum, default_value_t = OnStop::Auto)]
    pub on_stop: OnStop,
    /// The DaemonSet that this agent is of, as NAMESPACE/NAME: --on-stop=auto asks whether it is still there.
    #[arg(long, env = "CATAMARAN_DAEMON_SET", value_parser = daemon_set)]
    pub daemon_set: Option<DaemonSetName>,
    /// How and which logs are written.
    #[command(flatten)]
    pub log: LogSettings,
}

/// A name and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The DNS name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSetName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What happens to pods' quotas when the agent is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// Set back when the agent's DaemonSet is deleted, as at an uninstall, and kept when another agent follows. Without
    /// --daemon-set it is kept.
    Auto,
    /// What it set is set back: nothing is left behind when the agent is uninstalled. The next agent sets it again.
    Undo,
    /// It stays as it is, and nobody holds it until the next agent comes.
    Keep,
}

fn service(text: &str) -> Result<Service, String> {
    let wrong = || format!("{text:?} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 { Err(wrong()) } else { Ok(Service { host: host.to_owned(), port }) }
}

fn daemon_set(text: &str) -> Result<DaemonSetName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(DaemonSetName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        Some(_) | None => Err(format!("{text:?} is not NAMESPACE/NAME")),
    }
}

impl Settings {
    /// The name that the intake's certificate has to be for.
    #[must_use]
    pub fn server_name(&self) -> &str {
        if self.usage_server_name.is_empty() { &self.usage_service.host } else { &self.usage_server_name }
    }
}
