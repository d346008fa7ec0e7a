//! Cargo, run by this program on the workspace.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The features with which everything is built, so that no command builds anew what another one has built.
pub(crate) const FEATURES: &str = "catamaran-e2e/control-plane";

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// The target folder that this program was built into: what it builds and runs is there as well.
fn target() -> Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.ancestors().nth(2).context("this program is not in a target folder")?.to_owned())
}

/// A cargo command on the workspace.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(workspace()).env("CARGO_TARGET_DIR", target()?);
    // What `cargo run` tells this program about its package would make build scripts that look at it (ring's) run
    // again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_BIN_NAME" {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// Builds the programs of the workspace, with cargo's own progress.
pub(crate) fn build_programs() -> Result<()> {
    let status = cargo()?.args(["build", "--workspace", "--bins", "--features", FEATURES]).status();
    ensure!(status.context("cannot run cargo")?.success(), "the workspace does not build");
    Ok(())
}

/// Builds this program, the operator and the agent with optimisation. Gives the path of this program.
pub(crate) fn build_release() -> Result<PathBuf> {
    let packages = ["xtask", "catamaran-operator", "catamaran-agent"];
    let mut command = cargo()?;
    command.args(["build", "--release"]).args(packages.iter().flat_map(|package| ["--package", package]));
    let status = command.status();
    ensure!(status.context("cannot run cargo")?.success(), "the release build failed");
    Ok(target()?.join("release/xtask"))
}

/// Builds packages of the workspace with the C library in them, for `triple`. Gives the folder of the programs.
pub(crate) fn build_static(profile: &str, triple: &str, packages: &[&str]) -> Result<PathBuf> {
    let mut command = cargo()?;
    // With `--target` the flag does not reach build scripts and procedural macros, which cannot be linked with it.
    command.args(["build", "--locked", "--profile", profile, "--target", triple]);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    ensure!(command.status().context("cannot run cargo")?.success(), "the static build failed");
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target()?.join(triple).join(folder))
}
