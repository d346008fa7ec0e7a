//! What the sources hold to: no cycles between modules, no long functions, no long lines, no long lists of arguments.
//!
//! What does not hold yet is named in [`exceptions`]. An exception that is no longer needed fails, so the list only
//! shrinks.

mod exceptions;
mod functions;
mod lines;
mod modules;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A source of the workspace.
pub struct Source {
    /// Its path from the root of the workspace.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}

/// All Rust sources below a folder of the workspace.
pub fn sources(below: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(below), &mut found);
    found.sort();
    let root = root();
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned(),
        text: fs::read_to_string(&path).expect("a source"),
    };
    found.into_iter().map(source).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, found);
        } else if path.is_file() && name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Compares what was found with what is excepted.
pub fn hold(rule: &str, found: BTreeSet<String>, excepted: &[&str]) {
    let excepted: BTreeSet<String> = excepted.iter().map(|name| (*name).to_owned()).collect();
    let list = |names: Vec<&String>| names.iter().map(|name| format!("    {name:?},\n")).collect::<String>();
    let new = list(found.difference(&excepted).collect());
    assert!(new.is_empty(), "{rule}:\n{new}");
    let stale = list(excepted.difference(&found).collect());
    assert!(stale.is_empty(), "these hold now; take them out of tidy/tests/tidy/exceptions.rs:\n{stale}");
}
