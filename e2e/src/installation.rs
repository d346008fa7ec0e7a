//! The product on the ground: the chart installed by Helm, and the operator run as the chart says, as its account.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ServiceAccount};
use kube::{Api, api::PostParams, config::Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    control_plane::{ControlPlane, server_name},
    process::Process,
    wait::eventually,
};

/// The namespace that the chart is installed into.
pub const SYSTEM: &str = "catamaran-system";
/// The name of the release, and with it of the ServiceAccount.
pub const RELEASE: &str = "catamaran";

/// The Service of the usage intake.
const USAGE_SERVICE: &str = "catamaran-usage";
/// The ServiceAccount of node agents.
const AGENT: &str = "catamaran-agent";

/// An installed chart.
pub struct Installation {
    arguments: Vec<String>,
    kubeconfig: PathBuf,
    environment: Vec<(String, String)>,
    /// A folder with the certificate of the usage intake, where there is one.
    certificate: Option<TempDir>,
}

/// A running operator process.
pub struct Operator {
    process: Process,
    log: PathBuf,
    address: String,
    usage: Option<Usage>,
}

/// Where an operator takes usage.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Its address.
    pub address: SocketAddr,
    /// The name that its certificate is for.
    pub server_name: String,
    /// The authority of its certificate, in PEM.
    pub ca_file: PathBuf,
}

/// The folder of the chart.
#[must_use]
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/catamaran")
}

/// The name that the API server knows the operator's account by.
#[must_use]
pub fn operator_user() -> String {
    format!("system:serviceaccount:{SYSTEM}:{RELEASE}")
}

/// The name that the API server knows the agents' account by.
#[must_use]
pub fn agent_user() -> String {
    format!("system:serviceaccount:{SYSTEM}:{AGENT}")
}

/// A binary of this workspace: `CATAMARAN_BIN_DIR`, else the folder that this program was built into.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("CATAMARAN_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let program = std::env::current_exe()?;
            let folder = program.parent().context("a program lies in a folder")?;
            // Tests lie one folder deeper.
            if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_owned() } else { folder.to_owned() }
        }
    };
    let path = folder.join(name);
    ensure!(
        path.exists(),
        "{} is missing; run `cargo build --workspace --bins`, or test by `cargo xtask test`",
        path.display()
    );
    Ok(path)
}

impl Installation {
    /// Installs the chart with Helm and takes over what its Deployment would run. The pods of that Deployment are
    /// simulated like any other here (nothing runs in them), so it is scaled to none.
    ///
    /// # Errors
    /// When Helm or the API server refuses it.
    pub async fn install(control_plane: &ControlPlane, values: Value) -> Result<Self> {
        control_plane.create_namespace(SYSTEM).await?;
        let mut values = values;
        values["replicaCount"] = json!(0);
        control_plane.helm()?.install(RELEASE, &chart(), SYSTEM, &values).await?;
        let deployments: Api<Deployment> = Api::namespaced(control_plane.client(), SYSTEM);
        let deployment = deployments.get(RELEASE).await?;
        let pod = deployment.spec.and_then(|spec| spec.template.spec).context("the Deployment has a pod template")?;
        let container = pod.containers.into_iter().next().context("the Deployment has a container")?;
        let arguments = container
            .args
            .unwrap_or_default()
            .into_iter()
            .map(|argument| argument.replace("$(POD_NAMESPACE)", SYSTEM))
            .filter(|argument| !argument.starts_with("--listen="))
            // A port for each of the processes, which share the host here.
            .map(|argument| match argument.starts_with("--lifeline-listen=") {
                true => "--lifeline-listen=127.0.0.1:0".to_owned(),
                false => argument,
            })
            .collect::<Vec<_>>();
        let takes_usage = arguments.iter().any(|argument| argument.starts_with("--usage-listen="));
        let certificate = match takes_usage {
            true => {
                let accounts: Api<ServiceAccount> = Api::namespaced(control_plane.client(), SYSTEM);
                // The chart makes it for an agent of its own.
                if accounts.get_opt(AGENT).await?.is_none() {
                    let agent = serde_json::from_value(json!({"metadata": {"name": AGENT}}))?;
                    accounts.create(&PostParams::default(), &agent).await?;
                }
                let keys = control_plane.serving_certificate(USAGE_SERVICE)?;
                let folder = tempfile::tempdir()?;
                std::fs::write(folder.path().join("tls.crt"), keys.certificate)?;
                std::fs::write(folder.path().join("tls.key"), keys.key)?;
                std::fs::write(folder.path().join("ca.crt"), keys.client_authority)?;
                Some(folder)
            }
            false => None,
        };
        let account = pod.service_account_name.context("the Deployment names its account")?;
        let kubeconfig = control_plane.kubeconfig_for_service_account(SYSTEM, &account).await?;
        Ok(Self { arguments, kubeconfig, environment: Vec::new(), certificate })
    }

    /// Starts an operator process as the chart's account and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; the end of its log is in the message.
    pub async fn start(&self, control_plane: &ControlPlane, name: &str) -> Result<Operator> {
        let mut operator = self.spawn(control_plane, name)?;
        operator.ready().await?;
        Ok(operator)
    }

    /// Starts an operator process without waiting.
    ///
    /// # Errors
    /// When the binary is missing or cannot be started.
    pub fn spawn(&self, control_plane: &ControlPlane, name: &str) -> Result<Operator> {
        self.spawn_at(control_plane, name, None)
    }

    /// Starts an operator process in the place of one that ended: agents find it at the same address. Waits until it is
    /// ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn replace(&self, control_plane: &ControlPlane, name: &str, before: &Operator) -> Result<Operator> {
        let mut operator = self.spawn_at(control_plane, name, before.usage.as_ref().map(|usage| usage.address))?;
        operator.ready().await?;
        Ok(operator)
    }

    /// From now on operators reach the API server by way of `server`, a URL.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read or written.
    pub fn by_way_of(&mut self, server: &str) -> Result<()> {
        let mut config = Kubeconfig::read_from(&self.kubeconfig)?;
        for cluster in config.clusters.iter_mut().filter_map(|cluster| cluster.cluster.as_mut()) {
            cluster.server = Some(server.to_owned());
        }
        // One file for each way: an operator may read its own again.
        let port = server.rsplit(':').next().unwrap_or_default();
        let path = self.kubeconfig.with_extension(format!("by-way-of-{port}"));
        std::fs::write(&path, serde_saphyr::to_string(&config)?)?;
        self.kubeconfig = path;
        Ok(())
    }

    /// Variables in the environment of operators that are started from now on.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    fn spawn_at(&self, control_plane: &ControlPlane, name: &str, usage: Option<SocketAddr>) -> Result<Operator> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(binary("catamaran-operator")?);
        command
            .args(self.arguments.iter().filter(|argument| !argument.starts_with("--usage-listen=")))
            .arg(format!("--listen={address}"))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("CATAMARAN_IDENTITY", name)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let usage = self.certificate.as_ref().map(|certificate| {
            let address = match usage {
                Some(address) => address,
                None => SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            };
            command.arg(format!("--usage-listen={address}"));
            let file = |name: &str| certificate.path().join(name);
            command.arg(format!("--usage-certificate={}", file("tls.crt").display()));
            command.arg(format!("--usage-key={}", file("tls.key").display()));
            anyhow::Ok(Usage { address, server_name: server_name(USAGE_SERVICE), ca_file: file("ca.crt") })
        });
        let usage = usage.transpose()?;
        Ok(Operator { process: control_plane.spawn(name, &command)?, log: control_plane.log(name), address, usage })
    }
}

impl Operator {
    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it prints.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where it takes usage, if it does.
    #[must_use]
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// Where it serves /healthz, /readyz and /metrics.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills it as the kernel would: no last word.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(|_| ())
    }

    /// Waits until /readyz says so.
    ///
    /// # Errors
    /// When that takes too long, or the process ends; the end of its log is in the message.
    pub async fn ready(&mut self) -> Result<()> {
        let address = self.address.clone();
        let outcome = eventually("the operator is ready", Duration::from_secs(30), || {
            let address = address.clone();
            async move { Ok((get(&address, "/readyz").await?.0 == 200).then_some(())) }
        })
        .await;
        let log = self.process.log_tail(30);
        outcome.with_context(|| format!("the end of its log:\n{log}"))
    }

    /// Status code and text of a probe, such as `/healthz`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn probe(&self, path: &str) -> Result<(u16, String)> {
        get(&self.address, path).await
    }

    /// The text of /metrics.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(get(&self.address, "/metrics").await?.1)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("the kernel tells VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("VmRSS has a value")?.parse()?;
        Ok(kib * 1024)
    }
}

/// A port of the loopback address that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A plain GET of `http://address/path`: status code and body.
///
/// # Errors
/// When there is no answer.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
    let code = head.split_whitespace().nth(1).context("an HTTP answer has a code")?.parse()?;
    Ok((code, body.to_owned()))
}
