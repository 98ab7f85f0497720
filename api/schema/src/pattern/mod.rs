//! Patterns of schemas: Go's regular expressions, since every CRD was written for them.
//!
//! [`syntax`] reads Go's syntax and writes the same expression in that of the `regex` crate. The two look alike and differ
//! silently: `\d \w \s \b` are ASCII in Go, `&&`, `--` and `~~` in a class are plain characters, `{` alone is a brace.
//! Whoever takes a pattern from a user takes it by [`Pattern`].

mod class;
mod syntax;

use regex::{Regex, RegexBuilder};
use std::sync::OnceLock;

/// Longest expression. Go knows no limit but that of the compiled program, which is about three million steps.
const MAX_LENGTH: usize = 256 * 1024;
/// Most that an expression weighs ([`syntax::Part::weight`]): 400 letters of any script, or 300,000 of ASCII. It is judged
/// by that and compiled when a text comes, for a definition may have as many expressions as fit into its body.
const MAX_WEIGHT: u64 = 400_000;
/// Most bytes of a compiled expression: never reached by one of [`MAX_WEIGHT`].
const MAX_COMPILED: usize = 32 * 1024 * 1024;
/// Levels of the crate's syntax for one of Go's, at most: a group around each and the repetition itself.
const LEVELS: u32 = 4;

/// A regular expression, compiled when first used: most patterns of a large CRD never are.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// Keeps the source; [`Pattern::check`] tells whether it is an expression at all.
    pub fn new(source: impl Into<String>) -> Pattern {
        Pattern { source: source.into(), compiled: OnceLock::new() }
    }

    /// The expression as it was written, as it is published and as messages show it.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the pattern occurs in `text`. A pattern that does not compile matches nothing.
    pub fn is_match(&self, text: &str) -> bool {
        let compiled = || compile(&syntax::parse(&self.source).ok()?);
        self.compiled.get_or_init(compiled).as_ref().is_some_and(|re| re.is_match(text))
    }

    /// The reason why the pattern is no regular expression, in Go's words.
    pub fn check(&self) -> Result<(), String> {
        syntax::parse(&self.source).map(drop).map_err(|refused| format!("error parsing regexp: {refused}"))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

fn compile(parsed: &syntax::Part) -> Option<Regex> {
    let translated = parsed.translated();
    RegexBuilder::new(&translated).size_limit(MAX_COMPILED).nest_limit(LEVELS * syntax::MAX_HEIGHT).build().ok()
}

#[cfg(test)]
mod tests;
