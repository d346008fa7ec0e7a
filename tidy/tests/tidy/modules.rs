//! Modules of a crate do not import each other in circles.
//!
//! A module is a file; what is inline in a file belongs to it, and test modules (`cfg(test)`) are left out. There is an
//! edge from a module to each one that it names: by `use`, or by a path in the code. Of parents and children:
//!
//! - `mod child;` and a `pub use` of what is below are no edges: a parent that only gathers its children depends on
//!   none of them;
//! - who names `parent::Item` where the parent re-exports it from a child has an edge to that child, not to the parent;
//! - all else counts as between any two modules, so a parent may use its child, or a child its parent, not both.

use std::collections::{BTreeMap, BTreeSet};

use syn::{ItemMod, ItemUse, UseTree, Visibility, visit::Visit};

use crate::{assert_none, sources};

type Module = Vec<String>;

#[test]
fn no_modules_import_each_other() {
    let mut found = BTreeSet::new();
    for name in ["plan", "autoscale", "controller", "operator"] {
        found.extend(Graph::of_crate(name).circles().into_iter().map(|edge| format!("{name}: {edge}")));
    }
    assert_none("edges that are part of a circle", &found);
}

/// The modules of a crate, and which names which.
#[derive(Default)]
struct Graph {
    files: BTreeMap<Module, syn::File>,
    /// What modules re-export: by the name there, the path where it is.
    exports: BTreeMap<(Module, String), Module>,
    edges: BTreeMap<Module, BTreeSet<Module>>,
}

impl Graph {
    fn of_crate(name: &str) -> Self {
        let folder = format!("{name}/src/");
        let files = sources(&folder).into_iter().map(|source| {
            let path = source.path.strip_prefix(&folder).expect("below the folder").to_owned();
            (path, source.text)
        });
        Self::of(files)
    }

    fn of(files: impl Iterator<Item = (String, String)>) -> Self {
        let mut graph = Self::default();
        for (path, text) in files {
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            graph.files.insert(module_of(&path), file);
        }
        let names: Vec<(Module, Names)> =
            graph.files.iter().map(|(module, file)| (module.clone(), Names::of(file))).collect();
        for (module, names) in &names {
            for (name, path) in &names.exports {
                let path = graph.absolute(module, path);
                graph.exports.extend(path.map(|path| ((module.clone(), name.clone()), path)));
            }
        }
        for (module, names) in &names {
            let uses = names.uses.iter().filter_map(|path| graph.absolute(module, path));
            // A re-export of what is below is no edge.
            let exports = names.exports.iter().filter_map(|(_, path)| graph.absolute(module, path));
            let exports = exports.filter(|path| !path.starts_with(module));
            let found: BTreeSet<Module> =
                uses.chain(exports).map(|path| graph.owner(path)).filter(|owner| owner != module).collect();
            graph.edges.insert(module.clone(), found);
        }
        graph
    }

    /// A path from the root of the crate; none when it leads out of it.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let mut base = module.clone();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop()?;
                if rest.first().is_some_and(|next| next == "super") {
                    return self.absolute(&base, rest);
                }
            }
            child => {
                base.push(child.to_owned());
                if !self.files.contains_key(&base) {
                    return None;
                }
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The module in which what a path names is, behind all re-exports.
    fn owner(&self, mut path: Module) -> Module {
        // More often than there are re-exports nobody has to follow one.
        for _ in 0..=self.exports.len() {
            let depth = (0..=path.len()).rev().find(|depth| self.files.contains_key(&path[..*depth])).unwrap_or(0);
            let export = path.get(depth).and_then(|name| self.exports.get(&(path[..depth].to_vec(), name.clone())));
            match export {
                Some(target) => path = target.iter().cloned().chain(path[depth + 1..].iter().cloned()).collect(),
                None => return path[..depth].to_vec(),
            }
        }
        path
    }

    fn leads(&self, from: &Module, to: &Module) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            if module == to {
                return true;
            }
            if seen.insert(module) {
                next.extend(self.edges.get(module).into_iter().flatten());
            }
        }
        false
    }

    /// The edges that are part of a circle.
    fn circles(&self) -> Vec<String> {
        let edges = self.edges.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)));
        edges.filter(|(from, to)| self.leads(to, from)).map(|(from, to)| text(from, to)).collect()
    }
}

fn text(from: &Module, to: &Module) -> String {
    let name = |module: &Module| if module.is_empty() { "crate".to_owned() } else { module.join("::") };
    format!("{} -> {}", name(from), name(to))
}

fn module_of(path: &str) -> Module {
    let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        module.pop();
    }
    module
}

/// The paths that a file names.
#[derive(Default)]
struct Names {
    uses: Vec<Vec<String>>,
    exports: Vec<(String, Vec<String>)>,
}

impl Names {
    fn of(file: &syn::File) -> Self {
        let mut names = Self::default();
        names.visit_file(file);
        names
    }

    fn take(&mut self, tree: &UseTree, prefix: &[String], exports: bool) {
        let with = |name: String| prefix.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.take(&path.tree, &with(path.ident.to_string()), exports),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.take(tree, prefix, exports)),
            UseTree::Glob(_) => self.uses.push(prefix.to_vec()),
            UseTree::Name(name) if name.ident == "self" => self.uses.push(prefix.to_vec()),
            UseTree::Name(name) => self.name(name.ident.to_string(), with(name.ident.to_string()), exports),
            UseTree::Rename(rename) => self.name(rename.rename.to_string(), with(rename.ident.to_string()), exports),
        }
    }

    fn name(&mut self, name: String, path: Vec<String>, exports: bool) {
        if exports {
            self.exports.push((name, path));
        } else {
            self.uses.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
        };
        if !item.attrs.iter().any(is_test) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let exports = !matches!(item.vis, Visibility::Inherited);
        self.take(&item.tree, &[], exports);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.uses.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }
}

#[test]
fn circles_are_found_and_facades_are_none() {
    let circles = |files: &[(&str, &str)]| {
        Graph::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))).circles()
    };
    let facade = ("a/mod.rs", "mod one;\nmod two;\npub use one::One;\n");
    assert_eq!(
        circles(&[facade, ("a/one.rs", "pub struct One;"), ("a/two.rs", "use super::One;")]),
        [""; 0],
        "a facade is no module in between"
    );
    assert_eq!(
        circles(&[facade, ("a/one.rs", "use crate::a::two::f; pub struct One;"), ("a/two.rs", "use super::One;")]),
        ["a::one -> a::two", "a::two -> a::one"]
    );
    assert_eq!(
        circles(&[("a/mod.rs", "mod b; pub struct A; fn f() { b::g() }"), ("a/b.rs", "use super::A;")]),
        ["a -> a::b", "a::b -> a"],
        "a parent and its child"
    );
    assert_eq!(
        circles(&[("a.rs", "#[cfg(test)] mod tests { use crate::b::B; }"), ("b.rs", "use crate::a::A;")]),
        [""; 0]
    );
}
