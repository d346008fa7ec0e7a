//! No function is longer than 80 lines, from `fn` to its last brace; tests included.

use std::collections::BTreeSet;

use syn::{Block, Signature, spanned::Spanned, visit::Visit};

use crate::{assert_none, sources};

const LONGEST: usize = 80;

#[test]
fn no_function_is_longer_than_80_lines() {
    let mut long = BTreeSet::new();
    for source in sources("") {
        let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
        let mut functions = Functions::default();
        functions.visit_file(&file);
        let of_file = functions.0.into_iter().filter(|(_, lines)| *lines > LONGEST);
        long.extend(of_file.map(|(name, _)| format!("{}: {name}", source.path)));
    }
    assert_none("functions of more than 80 lines", &long);
}

#[test]
fn nothing_is_allowed_too_many_arguments() {
    // In two parts, or it would find itself.
    let lint = concat!("clippy::too_many", "_arguments");
    let found = sources("").into_iter().filter(|source| source.text.contains(lint)).map(|source| source.path);
    assert_none("too many arguments are allowed", &found.collect());
}

/// The names of functions and their lengths in lines.
#[derive(Default)]
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn note(&mut self, signature: &Signature, block: &Block) {
        let first = signature.fn_token.span().start().line;
        let last = block.brace_token.span.close().end().line;
        self.0.push((signature.ident.to_string(), last - first + 1));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn a_function_has_its_lines() {
    let file = syn::parse_file("/// Docs.\n#[test]\nfn one() {\n    fn two() {}\n}\n").expect("a file");
    let mut functions = Functions::default();
    functions.visit_file(&file);
    assert_eq!(functions.0, [("one".to_owned(), 3), ("two".to_owned(), 1)]);
}
