//! What the sources hold to: no cycles between modules, no long functions, no long lines, no long lists of arguments.

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

/// Fails with all that breaks a rule.
pub fn assert_none(rule: &str, found: &BTreeSet<String>) {
    let list: String = found.iter().map(|name| format!("    {name}\n")).collect();
    assert!(list.is_empty(), "{rule}:\n{list}");
}
