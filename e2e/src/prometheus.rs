//! A real Prometheus with metrics that tests set: it scrapes them from the test process once a second.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{Ipv4Addr, TcpListener},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{Router, routing::get};
use kube::{Client, Config};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::{
    control_plane::ControlPlane,
    process::Process,
    tools::{Tool, Tools},
    wait::eventually,
};

/// How long it may take to start.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Values by series, such as `queue_length{queue="a"}`.
type Values = Arc<Mutex<BTreeMap<String, f64>>>;

/// A running Prometheus that speaks TLS; it ends when it is dropped.
pub struct Prometheus {
    _process: Process,
    exporter: JoinHandle<std::io::Result<()>>,
    values: Values,
    url: String,
    authority: String,
    client: Client,
}

impl Prometheus {
    /// Starts it, with its data and log in the folder of a control plane; builds it first if it is nowhere (about 2
    /// minutes).
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let tools = spawn_blocking(|| Tools::prepare(&[Tool::Prometheus])).await??;
        let values = Values::default();
        let (exporter, target) = export(values.clone()).await?;
        let keys = control_plane.serving_certificate("prometheus")?;
        let folder = control_plane.dir().join("prometheus");
        std::fs::create_dir(&folder).context("there is one Prometheus in a control plane")?;
        let write = |name: &str, content: &str| {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let (certificate, key) = (write("tls.crt", &keys.certificate)?, write("tls.key", &keys.key)?);
        // JSON is YAML.
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "test", "static_configs": [{"targets": [target]}]}],
        });
        let web = json!({"tls_server_config": {"cert_file": certificate, "key_file": key}});
        // Free a moment ago.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new(tools.path(Tool::Prometheus)?);
        command
            .arg(format!("--config.file={}", write("prometheus.yaml", &configuration.to_string())?.display()))
            .arg(format!("--web.config.file={}", write("web.yaml", &web.to_string())?.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg("--log.level=warn");
        let mut process = control_plane.spawn(Tool::Prometheus.name(), &command)?;

        let url = format!("https://localhost:{port}");
        let mut config = Config::new(url.parse()?);
        config.root_cert = Some(vec![CertificateDer::from_pem_slice(keys.client_authority.as_bytes())?.to_vec()]);
        let client = Client::try_from(config)?;
        for _ in 0..READY_WITHIN.as_secs() {
            let ended = process.exited()?;
            ensure!(ended.is_none(), "Prometheus has ended: {}", process.log_tail(20));
            if timeout(Duration::from_secs(1), ready(&client)).await.is_ok() {
                break;
            }
        }
        ready(&client).await?;
        Ok(Self { _process: process, exporter, values, url, authority: keys.client_authority, client })
    }

    /// Its base URL, such as `https://localhost:40001`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority of its certificate, in PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sets the value of a series, such as `queue_length` or `queue_length{queue="a"}`.
    pub fn set(&self, series: &str, value: f64) {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).insert(series.to_owned(), value);
    }

    /// Waits until a query gives some text anywhere in its answer, such as a value that was just set.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn answers(&self, query: &str, text: &str) -> Result<()> {
        let parameters = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let path = format!("/api/v1/query?{parameters}");
        eventually(&format!("{query} gives {text}"), Duration::from_secs(30), || async {
            let answer = self.client.request_text(http::Request::get(&path).body(Vec::new())?).await?;
            Ok(answer.contains(text).then_some(()))
        })
        .await
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.exporter.abort();
    }
}

/// Waits until queries are answered.
async fn ready(client: &Client) -> Result<()> {
    eventually("Prometheus is ready", READY_WITHIN, || async {
        client.request_text(http::Request::get("/-/ready").body(Vec::new())?).await?;
        Ok(Some(()))
    })
    .await
}

/// Serves the values in the text format, and tells where.
async fn export(values: Values) -> Result<(JoinHandle<std::io::Result<()>>, String)> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?.to_string();
    let metrics = move || async move {
        let mut text = String::new();
        for (series, value) in &*values.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing to a text does not fail.
            let _ = writeln!(text, "{series} {value}");
        }
        text
    };
    let router = Router::new().route("/metrics", get(metrics));
    Ok((tokio::spawn(async move { axum::serve(listener, router).await }), address))
}
