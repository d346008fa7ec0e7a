//! Deciding stays pure: what could do I/O is not even among the dependencies, and no source asks for a clock, a file or
//! the network.

use std::{env, fs, path::Path, process::Command};

/// Crates by which a plan could reach outside.
const FORBIDDEN: [&str; 9] =
    ["tokio", "kube-client", "kube-runtime", "hyper", "reqwest", "rand", "socket2", "mio", "getrandom"];

#[test]
fn no_dependency_does_io() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--package", "catamaran-plan", "--edges", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"catamaran-crds"), "the tree is that of this crate: {names:?}");
    let found: Vec<&&str> = names.iter().filter(|name| FORBIDDEN.contains(name)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn no_source_asks_for_a_clock_a_file_or_the_network() {
    fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        for word in [
            "std::fs",
            "std::net",
            "std::env",
            "std::process",
            "SystemTime",
            "Instant::now",
            "Timestamp::now",
            "println!",
        ] {
            assert!(!text.contains(word), "{} uses {word}", file.display());
        }
    }
}
