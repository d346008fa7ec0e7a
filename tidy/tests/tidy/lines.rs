//! No line of code or prose has more than 120 columns. A string that goes over the edge is not broken: what it says is
//! one text. Nor is the row of a table in a comment.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};

use crate::{assert_none, sources};

const WIDEST: usize = 120;

#[test]
fn no_line_is_wider_than_120_columns() {
    let files = sources("").into_iter().filter(|source| !wide_lines(&source.text).is_empty());
    assert_none("lines of more than 120 columns", &files.map(|source| source.path).collect());
}

/// The numbers of the lines that are too wide.
fn wide_lines(text: &str) -> BTreeSet<usize> {
    let row = |line: &str| line.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with('|');
    let wide = |line: &str| line.chars().count() > WIDEST && !row(line);
    let mut found: BTreeSet<usize> =
        text.lines().enumerate().filter(|(_, line)| wide(line)).map(|(index, _)| index + 1).collect();
    if !found.is_empty() {
        let tokens: TokenStream = text.parse().expect("Rust");
        let lines: Vec<&str> = text.lines().collect();
        except_strings(tokens, &lines, &mut found);
    }
    found
}

/// Takes out the lines in which a string literal crosses the edge.
fn except_strings(tokens: TokenStream, lines: &[&str], found: &mut BTreeSet<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => except_strings(group.stream(), lines, found),
            TokenTree::Literal(literal) => {
                let (start, end) = (literal.span().start(), literal.span().end());
                let source: String = lines[start.line - 1].chars().skip(start.column).take(3).collect();
                // A comment of docs is a string to the compiler, and prose to us. Numbers are no text.
                if !source.starts_with(['"', 'r', 'b', 'c']) {
                    continue;
                }
                for line in start.line..=end.line {
                    if line < end.line || end.column > WIDEST {
                        found.remove(&line);
                    }
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

#[test]
fn prose_counts_and_strings_do_not() {
    let long = "x".repeat(WIDEST);
    for (text, wide) in [
        (format!("/// {long}\nfn f() {{}}\n"), 1),
        (format!("// {long}\n"), 1),
        (format!("//! | {long} |\n"), 0),
        (format!("const A: &str = \"{long}\";\n"), 0),
        (format!("const A: &str = r#\"\n{long}x\n\"#;\n"), 0),
        (format!("const {long}: u8 = 0;\n"), 1),
    ] {
        assert_eq!(wide_lines(&text).len(), wide, "{text}");
    }
}
