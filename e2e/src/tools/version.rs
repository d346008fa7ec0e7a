//! Versions of programs and modules.

use std::{fmt, path::Path, process::Command};

/// A release version; what comes after the patch number is of no interest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The first `1.2.3` in a text, with or without a `v`.
pub(super) fn first_in(text: &str) -> Option<Version> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
        let mut numbers = word.split('.').map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Some(Version { major, minor, patch }),
            _ => None,
        }
    })
}

/// What a program says about itself; nothing when it does not run.
pub(super) fn of_program(path: &Path, arguments: &[&str]) -> Option<Version> {
    let output = Command::new(path).args(arguments).output().ok()?;
    first_in(&String::from_utf8_lossy(&output.stdout))
}

/// The version of `module` in the `require` lines of a `go.mod`.
pub(super) fn required(go_mod: &str, module: &str) -> Option<Version> {
    go_mod
        .lines()
        .map(|line| line.trim().trim_start_matches("require "))
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == module)
        .and_then(|(_, version)| first_in(version))
}

#[cfg(test)]
mod tests {
    use super::{first_in, required};

    #[test]
    fn reads_what_programs_print() {
        for (text, expected) in [
            ("Kubernetes v1.36.3", "v1.36.3"),
            ("Client Version: v1.32.0\nKustomize Version: v5.5.0", "v1.32.0"),
            ("etcd Version: 3.7.3\nGit SHA: Not provided", "v3.7.3"),
            ("v4.3.1+g0123456", "v4.3.1"),
            ("kwok version v0.8.0 go1.26.8 (linux/amd64)", "v0.8.0"),
        ] {
            assert_eq!(first_in(text).map(|v| v.to_string()).as_deref(), Some(expected));
        }
        assert_eq!(first_in("unknown 1.2"), None);
    }

    #[test]
    fn reads_requirements_alone_and_in_blocks() {
        let go_mod = "module x\n\ntool a.b/c/cmd\n\nrequire a.b/c v1.2.3\n\nrequire (\n\td.e/f v4.5.6 // indirect\n)\n";
        assert_eq!(required(go_mod, "a.b/c").map(|v| v.to_string()).as_deref(), Some("v1.2.3"));
        assert_eq!(required(go_mod, "d.e/f").map(|v| v.to_string()).as_deref(), Some("v4.5.6"));
        assert_eq!(required(go_mod, "module"), None);
    }
}
