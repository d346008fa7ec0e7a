//! The product's own images, laid out as the Containerfile does it: each from scratch, with one program.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::image::Image;

/// Where images are published; the chart's default.
pub const REGISTRY: &str = "ghcr.io/catamaran-dev";
/// Where programs look for the authorities that they trust: Debian's place, which is the first one that TLS libraries
/// try.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A program of the product that runs in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `catamaran-operator`.
    Operator,
    /// `catamaran-agent`.
    Agent,
}

impl Program {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Agent];

    /// The name of its binary, its package and its image.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "catamaran-operator",
            Self::Agent => "catamaran-agent",
        }
    }

    /// The name of its image in a registry: this version, which is the chart's default.
    #[must_use]
    pub fn image_name(self, registry: &str) -> String {
        format!("{registry}/{}:{}", self.name(), env!("CARGO_PKG_VERSION"))
    }

    /// Its image with that name. `authorities` are certificates in PEM that the operator trusts when it asks a
    /// Prometheus by TLS; the agent needs none.
    ///
    /// # Errors
    /// When the binary cannot be read.
    pub fn image(self, name: &str, binary: &Path, authorities: &[u8]) -> Result<Image> {
        let path = format!("/{}", self.name());
        let image = Image::new(name)
            .program(&path, binary)?
            .entrypoint(&[&path])
            .user(self.user())
            .label("org.opencontainers.image.title", self.name())
            .label("org.opencontainers.image.description", self.description())
            .label("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY"))
            .label("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE"))
            .label("org.opencontainers.image.version", env!("CARGO_PKG_VERSION"));
        Ok(match self {
            Self::Operator => image.file(AUTHORITIES, 0o644, authorities),
            Self::Agent => image,
        })
    }

    fn user(self) -> &'static str {
        match self {
            // Numeric, so that the kubelet can check runAsNonRoot; the chart gives the same id.
            Self::Operator => "65532:65532",
            // The cgroup files belong to root; the chart takes every capability away.
            Self::Agent => "0:0",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Operator => "Runs an ElasticWorkload as containers or as KubeVirt virtual machines",
            Self::Agent => "Reports what the containers of a node use, and holds them to their quotas",
        }
    }
}

/// The image of a binary that may be linked dynamically, as those of tests are: without debug information, which takes
/// longest to import, and with the libraries of this host. The name is the one that the chart asks for.
///
/// # Errors
/// When `strip` or `ldd` fails.
pub fn for_tests(program: Program, binary: &Path) -> Result<Image> {
    let folder = tempfile::tempdir()?;
    let stripped = folder.path().join(program.name());
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(binary).status();
    ensure!(status.context("strip, of the C compiler's tools")?.success(), "cannot strip {}", binary.display());
    let output = Command::new("ldd").arg(binary).output().context("ldd tells the libraries of a program")?;
    let libraries = String::from_utf8_lossy(&output.stdout).into_owned();
    libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .try_fold(program.image(&program.image_name(REGISTRY), &stripped, b"")?, |image, library| {
            image.program(library, Path::new(library))
        })
}

#[cfg(test)]
mod tests {
    use super::{AUTHORITIES, Program};

    #[test]
    fn the_containerfile_says_the_same() {
        let text = include_str!("../../../Containerfile");
        let mut stages = text.split("\nFROM scratch AS ").skip(1).collect::<Vec<_>>();
        stages.sort_unstable_by_key(|stage| stage.starts_with("agent"));
        assert_eq!(stages.len(), Program::ALL.len());
        for (program, stage) in Program::ALL.into_iter().zip(stages) {
            let name = program.name();
            for line in [
                format!("COPY --from=build /out/{name} /{name}"),
                format!("USER {}", program.user()),
                format!("ENTRYPOINT [\"/{name}\"]"),
                format!("image.title=\"{name}\""),
                format!("image.description=\"{}\"", program.description()),
            ] {
                assert!(stage.contains(&line), "{name}: {line} is missing");
            }
            assert_eq!(stage.contains(AUTHORITIES), program == Program::Operator);
        }
    }
}
