//! `cargo xtask demo`: the product on a control plane of its own, from nothing to nothing in a minute or two.

mod end;
mod knobs;
mod live;
mod load;
mod node;
mod screen;
mod story;
mod summary;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use catamaran_e2e::{
    control_plane::ControlPlane,
    tools::{Tool, Tools},
};
use clap::{Args, ValueEnum};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::interval,
};

use crate::{cargo::build_programs, setup};
use screen::Screen;
use summary::Promises;

/// How often the components are looked at while the demo is kept up.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Arguments {
    /// What the workloads run on
    #[arg(long, value_enum, default_value_t = NodeKind::Kwok)]
    node: NodeKind,
    /// Leave everything up at the end, for kubectl by hand, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum NodeKind {
    /// Simulated nodes: both hulls, a rollout, a switch of hulls, a lost leader
    Kwok,
    /// A real node in QEMU: the kernel holds quotas, a real load scales, a frozen workload, a bill
    Qemu,
}

/// A demo on a control plane that runs.
trait Stage: Sized {
    /// What is up when it is set.
    const READY: &str;
    /// How soon it is to be set when nothing has to be built, where that is promised.
    const READY_WITHIN: Option<Duration>;

    /// Starts everything, without workloads.
    async fn set(screen: Arc<Screen>) -> Result<Self>;

    /// The control plane.
    fn control_plane(&mut self) -> &mut ControlPlane;

    /// Shows what there is to see. With `keep` the workloads stay.
    async fn play(&mut self, promises: &mut Promises, keep: bool) -> Result<()>;

    /// What somebody who plays on by hand has to know.
    fn way_in(&self) -> Result<String>;
}

/// Runs the demo.
///
/// Errors: something does not work, or a promise was broken; what was promised and how it went is on standard output.
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    match arguments.node {
        NodeKind::Kwok => perform::<story::Simulated>(arguments).await,
        NodeKind::Qemu => perform::<node::Real>(arguments).await,
    }
}

async fn perform<S: Stage>(arguments: &Arguments) -> Result<()> {
    let (started, node) = (Instant::now(), arguments.node);
    // Before any signal is caught: Ctrl-C ends a build at once.
    let had_tools = spawn_blocking(move || prepare(node)).await??;
    let prepared = Instant::now();
    let mut stop = Box::pin(stop()?);
    let screen = Arc::new(Screen::new(started));
    let mut promises = Promises::default();

    let mut stage = tokio::select! {
        stage = S::set(screen.clone()) => stage?,
        () = &mut stop => bail!("interrupted"),
    };
    let ready = prepared.elapsed();
    screen.say(&format!("ready: {}, {:.1} s", S::READY, ready.as_secs_f64()));
    if let Some(within) = S::READY_WITHIN.filter(|_| had_tools) {
        promises.note(
            ready < within,
            format!(
                "ready in {:.1} s after the check for what is missing (under {} s)",
                ready.as_secs_f64(),
                within.as_secs()
            ),
        );
    }
    let folder = stage.control_plane().dir().to_owned();

    let outcome = tokio::select! {
        outcome = stage.play(&mut promises, arguments.keep) => outcome,
        () = &mut stop => Err(anyhow!("interrupted")),
    };
    if outcome.is_ok() && arguments.keep {
        println!("\nexport KUBECONFIG={}", stage.control_plane().kubeconfig().display());
        println!("{}", stage.way_in()?);
        println!("Ctrl-C ends everything.\n");
        let mut checks = interval(CHECK_PERIOD);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = checks.tick() => stage.control_plane().check()?,
            }
        }
    }
    drop(stage);
    let left = end::left(&folder).await;
    outcome?;
    promises.note(left.is_ok(), "nothing is left behind: no process, no folder".to_owned());
    promises.print(&screen);
    screen.say("the end");
    left?;
    ensure!(promises.kept(), "a promise was broken");
    Ok(())
}

/// Makes what is missing. Says whether the tools of the control plane were there.
fn prepare(node: NodeKind) -> Result<bool> {
    let had_tools = Tools::missing(&Tool::GROUND)?.is_empty();
    let runtime = Handle::current();
    eprintln!("{}", outlook(node, had_tools));
    // While one of them links on one core, the other has something to do for the rest.
    thread::scope(|scope| {
        let programs = scope.spawn(build_programs);
        setup::prepare()?;
        Tools::prepare(&Tool::GROUND)?;
        match node {
            NodeKind::Kwok => {}
            NodeKind::Qemu => {
                setup::prepare_for_nodes()?;
                runtime.block_on(catamaran_e2e::node::prepare())?;
            }
        }
        programs.join().map_err(|_| anyhow!("the build of the workspace panicked"))?
    })?;
    Ok(had_tools)
}

/// How long the whole will take, in words.
fn outlook(node: NodeKind, had_tools: bool) -> &'static str {
    match (node, had_tools) {
        (NodeKind::Kwok, true) => "The demo takes about 2 minutes, and before it what has to be compiled anew.",
        (NodeKind::Qemu, true) => "The demo takes about 5 minutes, and before it what has to be compiled anew.",
        (NodeKind::Kwok, false) => {
            "The first time, the control plane is downloaded or, without a network, built: up to 15 minutes on two cores. \
            The demo itself takes about 2."
        }
        (NodeKind::Qemu, false) => {
            "The first time, the control plane is downloaded or, without a network, built, and a node is built: up to 25 \
            minutes on two cores. The demo itself takes about 5."
        }
    }
}

/// Comes when the user or the system asks this process to end.
fn stop() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
