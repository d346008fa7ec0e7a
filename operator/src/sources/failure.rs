//! Why a source gave nothing, and whether that speaks of one question or of the whole source.

use catamaran_autoscale::samples::NoSamples;

/// Why a question has no samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The source itself is absent or down: every other question to it would end in the same way.
    Unavailable(String),
    /// The source was reached, and has no usable answer to this question.
    Answered(String),
}

impl Failure {
    /// The same failure with words in front, as `unable to fetch ...: why`.
    pub(super) fn within(self, context: &str) -> Self {
        match self {
            Self::Unavailable(why) => Self::Unavailable(format!("{context}: {why}")),
            Self::Answered(why) => Self::Answered(format!("{context}: {why}")),
        }
    }

    /// Its words.
    pub(super) fn why(self) -> String {
        match self {
            Self::Unavailable(why) | Self::Answered(why) => why,
        }
    }
}

impl From<Failure> for NoSamples {
    fn from(failure: Failure) -> Self {
        Self(failure.why())
    }
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        // Some errors print their cause themselves.
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    shorten(&words)
}

/// At most so many bytes of somebody else's words: they end up in a status.
const LONGEST: usize = 300;

/// One line of bounded length.
pub(super) fn shorten(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().map(|(at, _)| at).find(|at| *at > LONGEST) {
        Some(end) => format!("{} ...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_cut_at_a_character() {
        let long = "\u{e9}".repeat(400);
        let short = shorten(&format!("  a\nb\t{long}"));
        assert!(short.starts_with("a b \u{e9}"), "{short}");
        assert!(short.len() < LONGEST + 8, "{}", short.len());
        assert!(short.ends_with(" ..."));
        assert_eq!(shorten("plain"), "plain");
    }
}
