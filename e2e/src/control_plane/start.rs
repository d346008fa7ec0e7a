//! From nothing to a control plane that serves.

use std::{sync::atomic::AtomicU32, time::Duration};

use anyhow::{Result, anyhow, bail};
use kube::Client;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{
    Builder, ControlPlane,
    aggregation::{self, AggregatedApi},
    components::{Components, KWOK_USER, Ports, SERVICE_IP},
    home::Home,
    kubeconfig::{Credentials, kubeconfig},
    pki::{Authority, Certificate, service_account_keys},
    read_config,
};
use crate::{
    node,
    process::Process,
    tools::{Tool, Tools},
};

/// How often a start is repeated with other ports when somebody else took one.
const ATTEMPTS: u32 = 5;
/// From the start of its process until the API server must be ready; a busy machine takes long.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How long one question for readiness waits for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How many lines of a log an error shows.
const LOG_LINES: usize = 20;
/// The name by which other servers know that a request comes from the API server.
const FRONT_PROXY: &str = "front-proxy";
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Why an attempt failed.
enum Failure {
    /// Somebody else listens on a port that was free when it was chosen.
    PortTaken,
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Builder {
    /// Starts the control plane: about 4 s, minutes when its programs have to be built first. Returns when the API
    /// server and the nodes are ready.
    ///
    /// Errors: a program is missing and cannot be built, or one does not start; the message shows the end of its log.
    pub async fn start(self) -> Result<ControlPlane> {
        let mut wanted = Tool::GROUND.to_vec();
        wanted.extend(self.metrics_server.then_some(Tool::MetricsServer));
        let tools = spawn_blocking(move || Tools::prepare(&wanted)).await??;
        for _ in 0..ATTEMPTS {
            match self.attempt(&tools).await {
                Ok(control_plane) => {
                    if self.nodes > 0 {
                        control_plane.add_nodes(self.nodes).await?;
                    }
                    return Ok(control_plane);
                }
                Err(Failure::PortTaken) => {}
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        bail!("ports were taken by others {ATTEMPTS} times in a row")
    }

    async fn attempt(&self, tools: &Tools) -> Result<ControlPlane, Failure> {
        let home = Home::create()?;
        let ports = Ports::choose()?;
        let server = format!("https://127.0.0.1:{}", ports.api_server);
        let authority = Authority::new()?;
        write_keys(&home, &authority, &server)?;

        let components = Components { home: &home, tools, ports, usage: self.metrics_server, extra: &self.extra };
        let start = |tool: Tool| home.spawn(tool.name(), &components.command(tool)?);
        // The API server waits for etcd by itself.
        let mut serving = [start(Tool::KubeApiserver)?, start(Tool::Etcd)?];
        let config = read_config(&home.file("admin.kubeconfig")).await?;
        let client = Client::try_from(config.clone())?;
        ready(&client, &mut serving).await?;

        let mut processes = vec![start(Tool::Kwok)?];
        if self.scheduler {
            processes.push(start(Tool::KubeScheduler)?);
        }
        if self.controller_manager {
            processes.push(start(Tool::KubeControllerManager)?);
        }
        if self.metrics_server {
            processes.push(start(Tool::MetricsServer)?);
            let api =
                AggregatedApi { group: "metrics.k8s.io", version: "v1beta1", service: Tool::MetricsServer.name() };
            aggregation::register(&client, &authority, &api, ports.metrics_server).await?;
        }
        processes.extend(serving);
        Ok(ControlPlane {
            config,
            client,
            server,
            authority,
            tools: tools.clone(),
            node_template: self.node_template.clone(),
            kubelet: self.metrics_server.then_some(ports.kubelet),
            next_node: AtomicU32::new(0),
            components: processes,
            home,
        })
    }
}

impl ControlPlane {
    /// Checks that every component runs.
    ///
    /// Errors: one has ended; the message shows the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.components.iter_mut().try_for_each(check)
    }
}

fn write_keys(home: &Home, authority: &Authority, server: &str) -> Result<()> {
    home.write("ca.crt", authority.certificate())?;
    home.write("ca.key", authority.key())?;
    let (private, public) = service_account_keys()?;
    home.write("sa.key", private)?;
    home.write("sa.pub", public)?;
    let pairs = [
        ("apiserver", authority.api_server(&[SERVICE_IP, node::GATEWAY])?),
        ("front-proxy", authority.client(FRONT_PROXY, None)?),
        ("kubelet-client", authority.client("kube-apiserver-kubelet-client", Some(MASTERS))?),
        ("metrics-server", authority.server(&[aggregation::server_name(Tool::MetricsServer.name())])?),
    ];
    for (name, Certificate { certificate, key }) in pairs {
        home.write(&format!("{name}.crt"), certificate)?;
        home.write(&format!("{name}.key"), key)?;
    }
    let users = [
        ("admin", "admin", Some(MASTERS)),
        ("kwok", KWOK_USER, Some(MASTERS)),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("metrics-server", "metrics-server", Some(MASTERS)),
    ];
    for (name, user, group) in users {
        let certificate = authority.client(user, group)?;
        home.write(
            &format!("{name}.kubeconfig"),
            kubeconfig(server, &authority.certificate(), &Credentials::Certificate(&certificate), "default"),
        )?;
    }
    Ok(())
}

/// Waits until the API server is ready, or one of the processes has ended.
async fn ready(client: &Client, serving: &mut [Process]) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        for process in serving.iter_mut() {
            if process.exited()?.is_some() {
                // Both programs say it in these words; the error number is the operating system's.
                let taken = process.log_tail(LOG_LINES).contains("address already in use");
                return Err(match check(process) {
                    Err(_) if taken => Failure::PortTaken,
                    Err(error) => Failure::Other(error),
                    Ok(()) => Failure::Other(anyhow!("{} ended", process.name())),
                });
            }
        }
        let request = http::Request::get("/readyz").body(Vec::new())?;
        // Whoever took the port may accept the connection and say nothing.
        let answer = timeout(ANSWER_WITHIN, client.request_text(request)).await;
        match answer.map_err(anyhow::Error::from).and_then(|answer| Ok(answer?)) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                let logs: Vec<String> = serving
                    .iter()
                    .map(|process| format!("{}:\n{}", process.name(), process.log_tail(LOG_LINES)))
                    .collect();
                return Err(error
                    .context(format!("the API server is not ready after {READY_WITHIN:?}\n{}", logs.join("\n")))
                    .into());
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

fn check(process: &mut Process) -> Result<()> {
    match process.exited()? {
        None => Ok(()),
        Some(status) => {
            bail!("{} has ended ({status}); the end of its log:\n{}", process.name(), process.log_tail(LOG_LINES))
        }
    }
}
