//! `cargo xtask manifests`: the chart as plain manifests, for clusters without Helm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    installation::chart,
    tools::{Tool, Tools},
};
use clap::Args;

use crate::setup;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The namespace of the operator; it is made by the manifests
    #[arg(long, short, default_value = "catamaran-system")]
    namespace: String,
    /// A file of values for the chart; may be given several times
    #[arg(long, short = 'f')]
    values: Vec<PathBuf>,
    /// Write to this file in place of standard output
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// Renders the chart with Helm.
///
/// Errors: Helm refuses the values; the message is Helm's.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::prepare()?;
    let tools = Tools::prepare(&[Tool::Helm])?;
    let manifests = render(tools.path(Tool::Helm)?, &arguments.namespace, &arguments.values)?;
    match &arguments.output {
        Some(path) => fs::write(path, manifests).with_context(|| format!("cannot write {}", path.display())),
        None => {
            print!("{manifests}");
            Ok(())
        }
    }
}

fn render(helm: &Path, namespace: &str, values: &[PathBuf]) -> Result<String> {
    let mut command = Command::new(helm);
    command.args(["template", "catamaran"]).arg(chart()).args(["--namespace", namespace]);
    for file in values {
        command.arg("--values").arg(file);
    }
    let output = command.output().context("cannot run helm")?;
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr).trim());
    let chart = String::from_utf8(output.stdout).context("helm writes UTF-8")?;
    Ok(format!(
        "# Made by `cargo xtask manifests` from charts/catamaran.\n\
         # Apply with: kubectl apply --server-side -f FILE\n\
         ---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n{chart}"
    ))
}
