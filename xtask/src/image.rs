//! `cargo xtask image`: the images of operator and agent as OCI archives, without a container engine. The Containerfile
//! makes the same ones with one.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use catamaran_e2e::node::product::{AUTHORITIES, Program, REGISTRY};
use clap::Args;

use crate::cargo::{build_static, workspace};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder that the archives are written to; by default target/images
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// The registry, and the path in it, that the images are named for
    #[arg(long, default_value = REGISTRY)]
    registry: String,
    /// The profile of the build: `release`, or `dev` for a look
    #[arg(long, default_value = "release")]
    profile: String,
    /// The authorities that the operator trusts when it asks a Prometheus by TLS: a file of certificates in PEM
    #[arg(long, default_value = AUTHORITIES)]
    authorities: PathBuf,
}

/// Builds both, and tells their sizes.
///
/// # Errors
/// The programs do not build, or there are no authorities.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let authorities = fs::read(&arguments.authorities).with_context(|| {
        format!("no authorities in {} (Debian: apt-get install ca-certificates)", arguments.authorities.display())
    })?;
    ensure!(
        String::from_utf8_lossy(&authorities).contains("-----BEGIN CERTIFICATE-----"),
        "{} has no certificate in PEM",
        arguments.authorities.display()
    );
    let output = arguments.output.clone().unwrap_or_else(|| workspace().join("target/images"));
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let programs = build_static(&arguments.profile, &triple()?, &Program::ALL.map(Program::name))?;
    for program in Program::ALL {
        let binary = programs.join(program.name());
        let image = program.image(&program.image_name(&arguments.registry), &binary, &authorities)?;
        let path = output.join(format!("{}.tar", program.name()));
        fs::write(&path, image.archive()?).with_context(|| format!("cannot write {}", path.display()))?;
        println!(
            "{}  {:.1} MB (program {:.1} MB)  {}",
            image.name(),
            megabytes(&path)?,
            megabytes(&binary)?,
            path.display()
        );
    }
    Ok(())
}

/// What Rust calls a machine like this one, with the C library that can be linked statically by what is installed
/// anyway.
pub(crate) fn triple() -> Result<String> {
    match ARCH {
        "x86_64" | "aarch64" => Ok(format!("{ARCH}-unknown-linux-gnu")),
        other => bail!("images are built on x86_64 and aarch64, each for itself; this is {other}"),
    }
}

#[allow(clippy::cast_precision_loss)]
fn megabytes(path: &Path) -> Result<f64> {
    Ok(fs::metadata(path)?.len() as f64 / 1e6)
}
