//! Helm, run on a control plane.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

/// The helm program with a kubeconfig, and with folders of its own in place of the user's.
#[derive(Clone, Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Helm {
    pub(crate) fn new(program: &Path, kubeconfig: &Path, home: &Path) -> Result<Self> {
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        Ok(Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned(), home: home.to_owned() })
    }

    /// Installs a chart folder as `release` into `namespace`, which is made when it is missing. Gives what helm prints.
    pub async fn install(&self, release: &str, chart: &Path, namespace: &str, values: &Value) -> Result<String> {
        let chart = chart.as_os_str();
        self.run(
            ["install", release].map(OsStr::new).into_iter().chain([chart]),
            &["--namespace", namespace, "--create-namespace"],
            Some(values),
        )
        .await
    }

    /// Upgrades a release to a chart folder and values; values of before are not kept.
    pub async fn upgrade(&self, release: &str, chart: &Path, namespace: &str, values: &Value) -> Result<String> {
        let chart = chart.as_os_str();
        self.run(
            ["upgrade", release].map(OsStr::new).into_iter().chain([chart]),
            &["--namespace", namespace, "--reset-values"],
            Some(values),
        )
        .await
    }

    /// Removes a release and waits until its objects are gone.
    pub async fn uninstall(&self, release: &str, namespace: &str) -> Result<String> {
        self.run(["uninstall", release].map(OsStr::new), &["--namespace", namespace, "--wait"], None).await
    }

    /// The manifests that an installation would apply (YAML documents), CRDs included. The capabilities are those of
    /// this API server.
    pub async fn template(&self, release: &str, chart: &Path, namespace: &str, values: &Value) -> Result<String> {
        let chart = chart.as_os_str();
        self.run(
            ["template", release].map(OsStr::new).into_iter().chain([chart]),
            &["--namespace", namespace, "--include-crds", "--dry-run=server"],
            Some(values),
        )
        .await
    }

    /// Runs any helm command, with values on its standard input when they are given.
    ///
    /// Errors: helm fails; the message is what it wrote to standard error.
    pub async fn run(
        &self,
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
        flags: &[&str],
        values: Option<&Value>,
    ) -> Result<String> {
        let mut helm = Command::new(&self.program);
        helm.args(command)
            .args(flags)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", self.home.join("cache"))
            .env("HELM_CONFIG_HOME", self.home.join("config"))
            .env("HELM_DATA_HOME", self.home.join("data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if values.is_some() {
            helm.args(["--values", "-"]);
        }
        let mut child = helm.spawn().context("cannot run helm")?;
        let mut input = child.stdin.take().context("helm has a standard input")?;
        if let Some(values) = values {
            input.write_all(&serde_json::to_vec(values)?).await?;
        }
        drop(input);
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!("helm: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
