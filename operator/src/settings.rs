//! Command line and environment.

use std::net::{IpAddr, SocketAddr};

use catamaran_controller::{lease::Endpoint, logs::LogSettings};
use clap::Parser;

use crate::{intake::settings::UsageSettings, sources::prometheus::PrometheusSettings};

/// Runs ElasticWorkloads as containers or as KubeVirt virtual machines.
///
/// The API server is found as kubectl finds it (KUBECONFIG, ~/.kube/config), or through the ServiceAccount in a pod.
#[derive(Clone, Debug, Parser)]
#[command(name = "catamaran-operator", version)]
pub struct Settings {
    /// Watch one namespace only; all when empty.
    #[arg(long, env = "CATAMARAN_WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,
    /// The namespace of the leader lease; the operator's own.
    #[arg(long, env = "CATAMARAN_LEASE_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// The name of the leader lease.
    #[arg(long, env = "CATAMARAN_LEASE_NAME", default_value = "catamaran-operator")]
    pub lease_name: String,
    /// For how many seconds a lease that is not renewed still holds; a standby takes over after it.
    #[arg(long, env = "CATAMARAN_LEASE_DURATION_SECONDS", default_value_t = 15)]
    #[arg(value_parser = clap::value_parser!(u64).range(3..=3600))]
    pub lease_duration_seconds: u64,
    /// Who holds the lease; unique for each process. The host name (in a pod, the pod's name) when empty.
    #[arg(long, env = "CATAMARAN_IDENTITY", default_value = "")]
    pub identity: String,
    /// Where other replicas see whether this process lives: a standby then takes over at once after a crash of the
    /// leader. None when not given.
    #[arg(long, env = "CATAMARAN_LIFELINE_LISTEN")]
    pub lifeline_listen: Option<SocketAddr>,
    /// The address that other replicas reach --lifeline-listen at, when that is any address of the host.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Where /healthz, /readyz and /metrics are served, and /explain, /usage and /accounts for the kubectl plugin.
    #[arg(long, env = "CATAMARAN_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How many workloads are reconciled at once.
    #[arg(long, env = "CATAMARAN_WORKERS", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub workers: u16,
    /// The usage intake.
    #[command(flatten)]
    pub usage: UsageSettings,
    /// Queries of Prometheus.
    #[command(flatten)]
    pub prometheus: PrometheusSettings,
    /// How and which logs are written.
    #[command(flatten)]
    pub log: LogSettings,
}

impl Settings {
    /// The watched namespace, if it is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        (!self.watch_namespace.is_empty()).then_some(self.watch_namespace.as_str())
    }

    /// Where other replicas see whether this process lives, if they can know.
    #[must_use]
    pub fn lifeline(&self) -> Option<Endpoint> {
        let listen = self.lifeline_listen?;
        let address = if listen.ip().is_unspecified() { self.pod_ip? } else { listen.ip() };
        Some(Endpoint { listen, advertised: SocketAddr::new(address, listen.port()) })
    }

    /// Who holds the lease: the given name or the host's, and the process, since a host may run several.
    #[must_use]
    pub fn lease_identity(&self) -> String {
        let name = if self.identity.is_empty() {
            std::env::var("HOSTNAME").unwrap_or_else(|_| "catamaran-operator".to_owned())
        } else {
            self.identity.clone()
        };
        let started = jiff::Timestamp::now().as_nanosecond();
        format!("{name}_{}_{started}", std::process::id())
    }
}
