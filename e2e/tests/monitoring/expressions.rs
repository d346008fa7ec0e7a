//! Which metrics a PromQL expression names. No parser: braces, brackets, `by (...)` and functions are taken out, what
//! is left are names.

/// Words of the language that stand where a metric could.
const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
/// Words with a list of labels behind them.
const GROUPING: [&str; 5] = ["by", "without", "on", "ignoring", "group_left"];

/// The metrics, in the order in which they stand.
pub fn metrics(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '{' => skip(rest, '}'),
            '[' => skip(rest, ']'),
            _ if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
                let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
                // An aggregation may have its labels in front of what it is over.
                let called = ["(", "by ", "without "].iter().any(|next| behind.trim_start().starts_with(next));
                if GROUPING.contains(&word) {
                    skip(behind, ')')
                } else {
                    if !called && !WORDS.contains(&word) {
                        found.push(word.to_owned());
                    }
                    behind
                }
            }
            _ if c.is_ascii_digit() => rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            _ => rest.get(c.len_utf8()..).unwrap_or_default(),
        };
    }
    found
}

/// What is behind the next such character outside of quotes.
fn skip(text: &str, end: char) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    let at = text.char_indices().find(|(_, c)| {
        if *c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = *c == '\\' && !escaped;
        *c == end && !quoted
    });
    at.and_then(|(at, c)| text.get(at + c.len_utf8()..)).unwrap_or_default()
}

#[test]
fn names_are_found_and_nothing_else() {
    for (expression, expected) in [
        ("up", vec!["up"]),
        (r#"sum by (le) (rate(a_bucket{le="}",x=~"b\"c"}[5m]))"#, vec!["a_bucket"]),
        ("a / on (x) b > 0.5 and min_over_time(sum(c)[10m:30s]) == 1e3", vec!["a", "b", "c"]),
        ("absent(up{a=\"b\"} == 1) or vector(1)", vec!["up"]),
    ] {
        assert_eq!(metrics(expression), expected, "{expression}");
    }
}
