//! `kubectl catamaran` on a cluster whose operators run as pods. The API server cannot reach the pods of a guest, so
//! the plugin asks by way of `kubectl port-forward`, as a user without the right on the proxy does.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;

use crate::{
    control_plane::{ControlPlane, printed},
    installation::{RELEASE, SYSTEM, binary, free_port},
    process::Process,
    wait::eventually,
};

/// How long the forwarding may take to begin.
const WITHIN: Duration = Duration::from_secs(60);

/// The plugin, and a port of this host that leads to a pod of the operator until this is dropped or that pod ends.
#[derive(Debug)]
pub struct Plugin {
    _forwarding: Process,
    url: String,
    folder: PathBuf,
}

impl Plugin {
    /// Forwards a port to an operator that runs.
    ///
    /// # Errors
    /// When the plugin was not built, or the forwarding does not begin.
    pub async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let folder = binary("kubectl-catamaran")?.parent().context("a program lies in a folder")?.to_owned();
        let address = format!("127.0.0.1:{}", free_port()?);
        let port = address.rsplit(':').next().unwrap_or_default();
        let mut command = control_plane.kubectl()?;
        command.args([
            "--namespace",
            SYSTEM,
            "port-forward",
            &format!("deployment/{RELEASE}"),
            &format!("{port}:http"),
        ]);
        let mut forwarding = control_plane.spawn("port-forward", &command)?;
        let outcome =
            eventually("kubectl port-forward", WITHIN, || async { Ok(TcpStream::connect(&address).await.ok()) }).await;
        outcome.with_context(|| forwarding.log_tail(5))?;
        ensure!(forwarding.exited()?.is_none(), "kubectl port-forward ended: {}", forwarding.log_tail(5));
        Ok(Self { _forwarding: forwarding, url: format!("http://{address}"), folder })
    }

    /// The operator's address for `--operator-url`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder with the plugin, for `PATH`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `PATH` with it.
    fn path(&self) -> Result<OsString> {
        let others = env::var_os("PATH").unwrap_or_default();
        Ok(env::join_paths([self.folder.clone()].into_iter().chain(env::split_paths(&others)))?)
    }

    /// What `kubectl catamaran` prints, as the user `admin`, in a namespace. What it warns of is left out.
    ///
    /// # Errors
    /// When it fails; the message has what it says.
    pub async fn run(&self, control_plane: &ControlPlane, namespace: &str, arguments: &[&str]) -> Result<String> {
        let mut command = control_plane.kubectl()?;
        command.arg("catamaran").args(arguments).args(["--namespace", namespace]);
        command.env("PATH", self.path()?).env("CATAMARAN_OPERATOR_URL", &self.url);
        printed(command, &format!("kubectl catamaran {arguments:?}")).await
    }
}
