//! `cargo xtask demo`: the product on a control plane of its own, from nothing to nothing in about a minute.

mod live;
mod load;
mod screen;
mod story;
mod summary;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use catamaran_e2e::{
    tools::{Tool, Tools},
    wait::eventually,
};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::interval,
};

use crate::{cargo::build_programs, setup};
use screen::Screen;
use story::Stage;
use summary::Promises;

/// How soon a start that has nothing to build is to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often the components are looked at while the demo is kept up.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Leave everything up at the end, for kubectl by hand, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
///
/// Errors: something does not work, or a promise was broken; what was promised and how it went is on standard output.
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    // Before any signal is caught: Ctrl-C ends a build at once.
    let had_tools = spawn_blocking(prepare).await??;
    let prepared = Instant::now();
    let mut stop = Box::pin(stop()?);
    let screen = Arc::new(Screen::new(started));
    let mut promises = Promises::default();

    let mut stage = tokio::select! {
        stage = Stage::set(screen.clone()) => stage?,
        () = &mut stop => bail!("interrupted"),
    };
    let ready = prepared.elapsed();
    screen.say(&format!(
        "ready: a control plane with nodes, KubeVirt's stand-in, the chart and two operators, {:.1} s",
        ready.as_secs_f64()
    ));
    if had_tools {
        promises.note(
            ready < READY_WITHIN,
            format!(
                "ready in {:.1} s after the check for what is missing (under {} s)",
                ready.as_secs_f64(),
                READY_WITHIN.as_secs()
            ),
        );
    }
    let folder = stage.control_plane.dir().to_owned();

    let outcome = tokio::select! {
        outcome = play(&mut stage, &mut promises, arguments.keep) => outcome,
        () = &mut stop => Err(anyhow!("interrupted")),
    };
    if outcome.is_ok() && arguments.keep {
        println!("\nexport KUBECONFIG={}", stage.control_plane.kubeconfig().display());
        println!("kubectl: {}; the workloads are in the namespace {}", stage.kubectl()?.display(), story::NAMESPACE);
        println!("Ctrl-C ends everything.\n");
        let mut checks = interval(CHECK_PERIOD);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = checks.tick() => stage.control_plane.check()?,
            }
        }
    }
    drop(stage);
    let left = left(&folder).await;
    outcome?;
    promises.note(left.is_ok(), "nothing is left behind: no process, no folder".to_owned());
    promises.print(&screen);
    screen.say("the end");
    left?;
    ensure!(promises.kept(), "a promise was broken");
    Ok(())
}

async fn play(stage: &mut Stage, promises: &mut Promises, keep: bool) -> Result<()> {
    stage.start_workloads(promises).await?;
    stage.update_image(promises).await?;
    stage.switch_hull(promises).await?;
    stage.follow_load(promises).await?;
    stage.kill_leader(promises).await?;
    if keep {
        stage.replace_killed().await?;
    } else {
        stage.delete_all(promises).await?;
    }
    summary::writes(&stage.control_plane, story::NAMESPACE, &stage.screen)
}

/// Makes what is missing. Says whether the tools of the control plane were there.
fn prepare() -> Result<bool> {
    setup::prepare()?;
    let had_tools = Tools::missing(&Tool::GROUND)?.is_empty();
    Tools::prepare(&Tool::GROUND)?;
    build_programs()?;
    Ok(had_tools)
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

/// Checks that the folder of the control plane and every process that names it are gone.
async fn left(folder: &Path) -> Result<()> {
    ensure!(!folder.exists(), "{} is left", folder.display());
    let text = folder.to_string_lossy();
    eventually("the end of every process", Duration::from_secs(5), || async {
        for process in fs::read_dir("/proc")? {
            let command = fs::read(process?.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&*text) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}
