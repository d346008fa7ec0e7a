//! A Kubernetes control plane of real programs on the loopback address, without containers.

mod aggregation;
mod components;
mod home;
mod kubeconfig;
mod pki;
mod start;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    audit::Audit, helm::Helm, nodes::NodeTemplate, process::Process, tools::Tool, tools::Tools, wait::eventually,
};
pub(crate) use aggregation::{AggregatedApi, server_name};
pub use components::KWOK_USER;
pub(crate) use components::{DNS_IP, SERVICE_RANGE};
use home::Home;
pub use home::sweep;
use kubeconfig::{Credentials, kubeconfig};
use pki::Authority;

/// What a control plane is to consist of; made by [`ControlPlane::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    controller_manager: bool,
    scheduler: bool,
    nodes: u32,
    node_template: NodeTemplate,
    metrics_server: bool,
    extra: Vec<(Tool, String)>,
}

impl Builder {
    /// Whether kube-controller-manager runs; by default it does.
    #[must_use]
    pub fn controller_manager(mut self, wanted: bool) -> Self {
        self.controller_manager = wanted;
        self
    }

    /// Whether kube-scheduler runs; by default it does.
    #[must_use]
    pub fn scheduler(mut self, wanted: bool) -> Self {
        self.scheduler = wanted;
        self
    }

    /// How many simulated nodes there are at the start; by default none.
    #[must_use]
    pub fn kwok_nodes(mut self, count: u32) -> Self {
        self.nodes = count;
        self
    }

    /// What the simulated nodes are like.
    #[must_use]
    pub fn node_template(mut self, template: NodeTemplate) -> Self {
        self.node_template = template;
        self
    }

    /// Whether pods have usage and metrics-server serves it as metrics.k8s.io, renewed every 15 s; by default not.
    ///
    /// Each container of a pod uses what the annotations [`USAGE_CPU`](crate::nodes::USAGE_CPU) and
    /// [`USAGE_MEMORY`](crate::nodes::USAGE_MEMORY) of the pod say (quantities, such as `250m` and `64Mi`), by default
    /// 1m and 1Mi. As on real nodes the first figures come after two scrapes.
    #[must_use]
    pub fn metrics_server(mut self, wanted: bool) -> Self {
        self.metrics_server = wanted;
        self
    }

    /// How long pods stay bound to a node that is lost before they are evicted: 300 s in Kubernetes and by default
    /// here.
    #[must_use]
    pub fn eviction_after(self, time: Duration) -> Self {
        let seconds = time.as_secs();
        self.argument(Tool::KubeApiserver, format!("--default-not-ready-toleration-seconds={seconds}"))
            .argument(Tool::KubeApiserver, format!("--default-unreachable-toleration-seconds={seconds}"))
    }

    /// Lets kube-controller-manager and kube-scheduler ask as often as they like: by default the first makes 20 pods a
    /// second, so that ten thousand take minutes.
    #[must_use]
    pub fn in_haste(self) -> Self {
        [Tool::KubeControllerManager, Tool::KubeScheduler].into_iter().fold(self, |builder, tool| {
            builder.argument(tool, "--kube-api-qps=1000").argument(tool, "--kube-api-burst=2000")
        })
    }

    /// One more command line argument of a component, such as `--feature-gates=X=true`.
    #[must_use]
    pub fn argument(mut self, component: Tool, argument: impl Into<String>) -> Self {
        self.extra.push((component, argument.into()));
        self
    }
}

/// A running control plane. Everything ends and is removed when it is dropped, and when this process ends, however it
/// ends.
pub struct ControlPlane {
    config: Config,
    client: Client,
    server: String,
    authority: Authority,
    tools: Tools,
    node_template: NodeTemplate,
    /// The port of what nodes have instead of kubelets, if they have any.
    kubelet: Option<u16>,
    /// The number of the next node.
    next_node: AtomicU32,
    /// The last started is the first to end; the fields are dropped in this order.
    components: Vec<Process>,
    home: Home,
}

/// What the programs of a node are given. Keys and certificates are in PEM.
pub(crate) struct NodeKeys {
    /// The kubelet's access to the API server.
    pub(crate) kubeconfig: String,
    /// kube-proxy's.
    pub(crate) proxy_kubeconfig: String,
    /// The authority of all certificates.
    pub(crate) authority: String,
    /// The kubelet's certificate as a server, valid for the node's name and the loopback address.
    pub(crate) certificate: String,
    /// The key of that.
    pub(crate) key: String,
}

impl ControlPlane {
    /// Describes a control plane with controller manager and scheduler, and no nodes.
    pub fn builder() -> Builder {
        Builder {
            controller_manager: true,
            scheduler: true,
            nodes: 0,
            node_template: NodeTemplate::default(),
            metrics_server: false,
            extra: Vec::new(),
        }
    }

    /// A client that may do everything (user `admin`).
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The configuration of [`Self::client`].
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The address of the API server, such as `https://127.0.0.1:40001`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The kubeconfig of the user `admin`. It needs no other file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.file("admin.kubeconfig")
    }

    /// The folder of this control plane: data, keys, logs. It goes with it.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// The log of a component or of a process started by [`Self::spawn`].
    pub fn log(&self, name: &str) -> PathBuf {
        self.home.log(name)
    }

    /// The writes that the API server has seen.
    pub fn audit(&self) -> Audit {
        Audit::new(self.home.file("audit.log"))
    }

    /// Helm, as the user `admin`.
    pub fn helm(&self) -> Result<Helm> {
        Helm::new(self.tools.path(Tool::Helm)?, &self.kubeconfig(), &self.home.file("helm"))
    }

    /// A kubectl command as the user `admin`, for the caller to complete and run.
    pub fn kubectl(&self) -> Result<Command> {
        let mut command = Command::new(self.tools.path(Tool::Kubectl)?);
        command
            .env("KUBECONFIG", self.kubeconfig())
            // Discovery would be kept in the home folder of the user.
            .env("KUBECACHEDIR", self.home.file("kubectl-cache"));
        Ok(command)
    }

    /// What kubectl prints, as the user `admin`, in a namespace.
    ///
    /// # Errors
    /// When it fails; the message has what it says.
    pub async fn run_kubectl(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl()?;
        command.args(["--namespace", namespace]).args(arguments);
        printed(command, &format!("kubectl {arguments:?}")).await
    }

    /// Starts a process that belongs to this ground: its output is kept in [`Self::log`] of `name`, and it cannot
    /// outlive this process.
    pub fn spawn(&self, name: &str, command: &Command) -> Result<Process> {
        self.home.spawn(name, command)
    }

    /// A namespace with its default ServiceAccount, so that pods can be made in it at once.
    ///
    /// Errors: it exists already, or no controller manager runs.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("cannot create the namespace {name}"))?;
        self.default_service_account(name).await
    }

    /// Waits until pods can be made in a namespace: until the controller manager has made its default ServiceAccount.
    pub async fn default_service_account(&self, namespace: &str) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let accounts = &accounts;
        eventually(&format!("the default ServiceAccount of {namespace}"), Duration::from_secs(30), || async move {
            Ok(accounts.get_opt("default").await?.map(|_| ()))
        })
        .await
    }

    /// A kubeconfig with a token of a ServiceAccount (TokenRequest API, valid for a day).
    ///
    /// Errors: there is no such ServiceAccount.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(24 * 60 * 60), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("cannot get a token for the ServiceAccount {namespace}/{name}"))?;
        let token = answer.status.context("the API server gave no token")?.token;
        self.home.write(
            &format!("serviceaccount-{namespace}-{name}.kubeconfig"),
            kubeconfig(&self.server, &self.authority.certificate(), &Credentials::Token(&token), namespace),
        )
    }

    /// The configuration of a client that acts as a ServiceAccount; see [`Self::kubeconfig_for_service_account`].
    pub async fn config_for_service_account(&self, namespace: &str, name: &str) -> Result<Config> {
        read_config(&self.kubeconfig_for_service_account(namespace, name).await?).await
    }

    /// A kubeconfig of a user, in one group or in none, by client certificate.
    pub fn kubeconfig_for_user(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        self.home.write(
            &format!("user-{user}.kubeconfig"),
            kubeconfig(
                &self.server,
                &self.authority.certificate(),
                &Credentials::Certificate(&self.authority.client(user, group)?),
                "default",
            ),
        )
    }

    /// The configuration of a client that acts as a user; see [`Self::kubeconfig_for_user`].
    pub async fn config_for_user(&self, user: &str, group: Option<&str>) -> Result<Config> {
        read_config(&self.kubeconfig_for_user(user, group)?).await
    }

    /// What the programs of a node are given to join: they know the API server's port under another address.
    pub(crate) fn node_keys(&self, node: &str, address: &str) -> Result<NodeKeys> {
        let user = self.authority.client(&format!("system:node:{node}"), Some("system:nodes"))?;
        let authority = self.authority.certificate();
        let server = self.server.replace("127.0.0.1", address);
        let pki::Certificate { certificate, key } = self.authority.server(&[node.to_owned()])?;
        let proxy = self.authority.client("system:kube-proxy", None)?;
        let [kubeconfig, proxy_kubeconfig] =
            [user, proxy].map(|user| kubeconfig(&server, &authority, &Credentials::Certificate(&user), "default"));
        Ok(NodeKeys { kubeconfig, proxy_kubeconfig, authority, certificate, key })
    }

    /// The configuration of a client that acts as `admin` towards another server whose certificate is of the same
    /// authority.
    pub(crate) fn config_at(&self, server: &str) -> Result<Config> {
        let mut config = self.config.clone();
        config.cluster_url = server.parse()?;
        Ok(config)
    }

    /// Ends all processes and removes the folder, as dropping does.
    pub fn stop(self) {
        drop(self);
    }

    pub(crate) fn has_controller_manager(&self) -> bool {
        self.components.iter().any(|process| process.name() == Tool::KubeControllerManager.name())
    }

    /// What new nodes are like.
    pub(crate) fn node_template(&self) -> &NodeTemplate {
        &self.node_template
    }

    /// The port under which the usage of each node is served.
    pub(crate) fn kubelet(&self) -> Option<u16> {
        self.kubelet
    }

    /// The numbers of `count` new nodes.
    pub(crate) fn node_numbers(&self, count: u32) -> std::ops::Range<u32> {
        let first = self.next_node.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("server", &self.server).field("dir", &self.dir()).finish_non_exhaustive()
    }
}

/// The client configuration in a kubeconfig file.
async fn read_config(path: &Path) -> Result<Config> {
    let config = Kubeconfig::read_from(path)?;
    Ok(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)
}

/// What a command prints; `what` names it in errors.
pub(crate) async fn printed(mut command: Command, what: &str) -> Result<String> {
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "{what} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).with_context(|| format!("{what} prints text"))
}
