//! `control-plane up | down`: a control plane in the background, for kubectl by hand.
//!
//! `up` starts this program once more, detached from the terminal, as `control-plane serve`; that owns the control
//! plane and ends it on SIGTERM. What the three share is a folder in the cache: a lock that is held while it serves,
//! its process id, its log, and the kubeconfig, which is there once everything is ready.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::PathBuf,
    process::{self, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use catamaran_e2e::{
    control_plane::ControlPlane,
    kubevirt::{Knobs, StandIn},
    process::{signal, tail},
    tools::{Tool, Tools, cache},
    wait::eventually,
};
use clap::{Args, Subcommand};
use tokio::{
    signal::unix::{SignalKind, signal as on_signal},
    task::spawn_blocking,
    time::interval,
};

use crate::setup;

/// From the start of the process, its programs being there, until the control plane is ready.
const UP_WITHIN: Duration = Duration::from_secs(180);
/// From SIGTERM until everything has ended.
const DOWN_WITHIN: Duration = Duration::from_secs(30);
/// How often the components are looked at.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start one in the background and print its KUBECONFIG
    Up(Lab),
    /// Stop it and remove what it kept
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Be the process behind `up`
    #[command(hide = true)]
    Serve(Lab),
}

#[derive(Args)]
pub(crate) struct Lab {
    #[command(flatten)]
    name: Name,
    /// How many simulated nodes it has
    #[arg(long, default_value_t = 3)]
    nodes: u32,
}

#[derive(Args)]
pub(crate) struct Name {
    /// Which one: several can run side by side
    #[arg(long, default_value = "default", value_parser = folder_name)]
    name: String,
}

fn folder_name(text: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("lower case letters, digits and dashes")
    }
}

impl Command {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Up(lab) => up(&lab).await,
            Self::Down { name } => down(&name.folder()?, &name.name).await,
            Self::Serve(lab) => serve(&lab).await,
        }
    }
}

impl Name {
    fn folder(&self) -> Result<Folder> {
        Ok(Folder(cache()?.join("control-planes").join(&self.name)))
    }
}

/// What `up`, `down` and `serve` share.
struct Folder(PathBuf);

impl Folder {
    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    fn process(&self) -> PathBuf {
        self.0.join("pid")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// Whether a process serves it.
    fn served(&self) -> Result<bool> {
        let lock = match File::open(self.lock()) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match lock.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

async fn up(lab: &Lab) -> Result<()> {
    let folder = lab.name.folder()?;
    // In the foreground, so that the first build shows its progress.
    let tools = spawn_blocking(|| {
        setup::prepare()?;
        Tools::prepare(&Tool::GROUND)
    })
    .await??;
    if folder.served()? {
        eprintln!("the control plane {} runs already", lab.name.name);
    } else {
        start(lab, &folder).await?;
    }
    println!("export KUBECONFIG={}", folder.kubeconfig().display());
    eprintln!("kubectl: {}", tools.path(Tool::Kubectl)?.display());
    Ok(())
}

async fn start(lab: &Lab, folder: &Folder) -> Result<()> {
    fs::create_dir_all(&folder.0).with_context(|| format!("cannot make {}", folder.0.display()))?;
    // Left by one that was killed.
    match fs::remove_file(folder.kubeconfig()) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let log = File::create(folder.log())?;
    let mut served = process::Command::new("setsid")
        .arg(env::current_exe()?)
        .args(["control-plane", "serve", "--name", &lab.name.name])
        .args(["--nodes", &lab.nodes.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot run setsid (it is part of util-linux)")?;
    let ended = eventually("the control plane is ready", UP_WITHIN, || {
        let ended = served.try_wait();
        let ready = folder.kubeconfig().exists();
        async move {
            let ended = ended?;
            Ok((ready || ended.is_some()).then_some(ended))
        }
    })
    .await?;
    match ended {
        None => Ok(()),
        Some(status) => bail!("the control plane did not start ({status}):\n{}", tail(&folder.log(), 40)),
    }
}

async fn down(folder: &Folder, name: &str) -> Result<()> {
    if folder.served()? {
        let pid = fs::read_to_string(folder.process())?
            .trim()
            .parse()
            .with_context(|| format!("no process id in {}", folder.process().display()))?;
        signal(pid, "TERM")?;
        eventually("the end of the control plane", DOWN_WITHIN, || async { Ok((!folder.served()?).then_some(())) })
            .await?;
    } else {
        eprintln!("no control plane {name} runs");
    }
    match fs::remove_dir_all(&folder.0) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

async fn serve(lab: &Lab) -> Result<()> {
    let folder = lab.name.folder()?;
    fs::create_dir_all(&folder.0)?;
    let lock = File::create(folder.lock())?;
    ensure!(lock.try_lock().is_ok(), "another process serves it");
    fs::write(folder.process(), process::id().to_string())?;
    let mut terminate = on_signal(SignalKind::terminate())?;
    let mut interrupt = on_signal(SignalKind::interrupt())?;

    let mut control_plane = tokio::select! {
        started = ControlPlane::builder().kwok_nodes(lab.nodes).start() => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    control_plane.default_service_account("default").await?;
    let _kubevirt = StandIn::start(control_plane.client(), Knobs::default()).await?;

    // Renamed, so that it is whole when it is there.
    let unfinished = folder.0.join("kubeconfig.new");
    fs::copy(control_plane.kubeconfig(), &unfinished)?;
    fs::rename(unfinished, folder.kubeconfig())?;

    let mut checks = interval(CHECK_PERIOD);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = checks.tick() => control_plane.check()?,
        }
    }
    control_plane.stop();
    Ok(())
}
