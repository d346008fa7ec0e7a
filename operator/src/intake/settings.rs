//! Flags of the intake, and the times that it keeps.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;

use super::{store::Keep, tls::CertificateFiles};

/// Flags of the intake; to be flattened into those of the process.
#[derive(Clone, Debug, Args)]
pub struct UsageSettings {
    /// Where node agents stream usage to; they cannot when this is not given.
    #[arg(long = "usage-listen", env = "CATAMARAN_USAGE_LISTEN", id = "usage_listen")]
    pub listen: Option<SocketAddr>,
    /// The certificate of the usage intake (PEM), read again when it changes.
    #[arg(
        long = "usage-certificate",
        env = "CATAMARAN_USAGE_CERTIFICATE",
        id = "usage_certificate",
        default_value = "/etc/catamaran/usage-tls/tls.crt"
    )]
    pub certificate: PathBuf,
    /// Its private key (PEM).
    #[arg(
        long = "usage-key",
        env = "CATAMARAN_USAGE_KEY",
        id = "usage_key",
        default_value = "/etc/catamaran/usage-tls/tls.key"
    )]
    pub key: PathBuf,
    /// The audience that the tokens of node agents are for.
    #[arg(
        long = "usage-audience",
        env = "CATAMARAN_USAGE_AUDIENCE",
        id = "usage_audience",
        default_value = "catamaran-usage"
    )]
    pub audience: String,
    /// The ServiceAccount of node agents, as NAMESPACE/NAME.
    #[arg(
        long = "usage-account",
        env = "CATAMARAN_USAGE_ACCOUNT",
        id = "usage_account",
        default_value = "catamaran-system/catamaran-agent"
    )]
    pub account: Account,
    /// How many nodes may stream usage at once.
    #[arg(
        long = "usage-max-streams",
        env = "CATAMARAN_USAGE_MAX_STREAMS",
        id = "usage_max_streams",
        default_value_t = 5000,
        value_parser = clap::value_parser!(u32).range(1..=20_000)
    )]
    pub max_streams: u32,
    /// Over how many seconds usage is averaged. Short windows react sooner, long ones are calmer.
    #[arg(
        long = "usage-window-seconds",
        env = "CATAMARAN_USAGE_WINDOW_SECONDS",
        id = "usage_window_seconds",
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=300)
    )]
    pub window_seconds: u64,
    /// After how many seconds without a report the usage of a pod counts as missing.
    #[arg(
        long = "usage-stale-after-seconds",
        env = "CATAMARAN_USAGE_STALE_AFTER_SECONDS",
        id = "usage_stale_after_seconds",
        default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(2..=300)
    )]
    pub stale_after_seconds: u64,
}

impl UsageSettings {
    /// How long usage counts.
    #[must_use]
    pub fn keep(&self) -> Keep {
        Keep {
            window: Duration::from_secs(self.window_seconds),
            stale_after: Duration::from_secs(self.stale_after_seconds),
            // Never forgotten while it counts.
            retention: Keep::default().retention.max(Duration::from_secs(self.stale_after_seconds)),
        }
    }

    /// The files of the certificate.
    #[must_use]
    pub fn certificate_files(&self) -> CertificateFiles {
        CertificateFiles { certificate: self.certificate.clone(), key: self.key.clone() }
    }
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The text is not NAMESPACE/NAME.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ServiceAccount is given as NAMESPACE/NAME")]
pub struct NotAnAccount;

impl FromStr for Account {
    type Err = NotAnAccount;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or(NotAnAccount)?;
        let valid = !namespace.is_empty() && !name.is_empty() && !text.contains(':') && !name.contains('/');
        if valid { Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() }) } else { Err(NotAnAccount) }
    }
}

impl Account {
    /// The name of its user.
    #[must_use]
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// The times that the intake keeps. They are constants of the product; tests make them short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From accepting a connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the start of a call to its first message.
    pub hello: Duration,
    /// A stream without a report for so long ends.
    pub idle: Duration,
    /// A connection without a stream for so long ends.
    pub unused: Duration,
    /// Each token in use is reviewed again so often: an expired or revoked one ends its stream.
    pub review: Duration,
    /// While no review is possible, a stream goes on for so long after the last one.
    pub review_grace: Duration,
    /// Pods that are gone are looked for so often.
    pub sweep: Duration,
    /// The files of the certificate are looked at so often.
    pub certificate: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            hello: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            unused: Duration::from_secs(10),
            review: Duration::from_secs(120),
            review_grace: Duration::from_secs(600),
            sweep: Duration::from_secs(5),
            certificate: Duration::from_secs(20),
        }
    }
}
