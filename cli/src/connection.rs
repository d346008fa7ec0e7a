//! The API server, found as kubectl finds it, with the user's own rights.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the server may say nothing.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// kubectl's flags.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Connection, as of kubectl")]
pub struct ConnectionArguments {
    /// The kubeconfig file; when absent those of KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The cluster of the kubeconfig
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The user of the kubeconfig
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The user to act as
    #[arg(long = "as", value_name = "NAME")]
    act_as: Option<String>,
    /// A group to act in; may be given several times
    #[arg(long = "as-group", value_name = "NAME", requires = "act_as")]
    act_in: Vec<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    /// The kubeconfig is missing or wrong.
    #[error("the kubeconfig cannot be used: {0}; set --kubeconfig or KUBECONFIG")]
    Kubeconfig(String),
    /// There is neither a kubeconfig nor a ServiceAccount.
    #[error("no configuration for an API server: {0}; set --kubeconfig or KUBECONFIG")]
    Nothing(String),
    /// Keys, certificates or addresses in it are wrong.
    #[error("the kubeconfig cannot be used: {0}")]
    Client(String),
}

/// As text: these errors repeat their causes, and once is enough.
impl From<kube::config::KubeconfigError> for NoClient {
    fn from(error: kube::config::KubeconfigError) -> Self {
        Self::Kubeconfig(error.to_string())
    }
}

impl ConnectionArguments {
    /// A client; its default namespace is that of the context.
    ///
    /// # Errors
    /// When the configuration does not make one. Nothing is sent yet.
    pub async fn client(&self) -> Result<Client, NoClient> {
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: self.user.clone() };
        let chosen = self.context.is_some() || self.cluster.is_some() || self.user.is_some();
        let mut config = match &self.kubeconfig {
            Some(file) => Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &options).await?,
            None if chosen => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await.map_err(|error| NoClient::Nothing(error.to_string()))?,
        };
        if let Some(user) = &self.act_as {
            config.auth_info.impersonate = Some(user.clone());
            config.auth_info.impersonate_groups = (!self.act_in.is_empty()).then(|| self.act_in.clone());
        }
        config.connect_timeout = Some(CONNECT_WITHIN);
        config.read_timeout = Some(ANSWER_WITHIN);
        // A person waits: what fails is told, not repeated for minutes.
        config.default_retry = false;
        Client::try_from(config).map_err(|error| NoClient::Client(describe(&error)))
    }
}

/// Which namespace.
#[derive(Args, Debug, Default)]
pub struct NamespaceArguments {
    /// The namespace; that of the context when absent
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
}

impl NamespaceArguments {
    /// The namespace to look at.
    #[must_use]
    pub fn or_default<'a>(&'a self, client: &'a Client) -> &'a str {
        self.namespace.as_deref().unwrap_or_else(|| client.default_namespace())
    }
}

/// Which workloads: one, those of a namespace, or all.
#[derive(Args, Debug, Default)]
pub struct ScopeArguments {
    /// The ElasticWorkload; all of the namespace when absent
    pub name: Option<String>,
    #[command(flatten)]
    namespace: NamespaceArguments,
    /// Those of all namespaces
    #[arg(long, short = 'A', conflicts_with_all = ["namespace", "name"])]
    all_namespaces: bool,
}

impl ScopeArguments {
    /// The namespace to look at; `None` for all.
    #[must_use]
    pub fn namespace<'a>(&'a self, client: &'a Client) -> Option<&'a str> {
        (!self.all_namespaces).then(|| self.namespace.or_default(client))
    }
}

/// What went wrong with the API server, in one line and with what to do about it, where that is known.
#[must_use]
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.trim().to_owned(),
        other => {
            let mut text = other.to_string();
            let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(other);
            while let Some(error) = cause {
                let more = error.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                cause = error.source();
            }
            text
        }
    }
}
