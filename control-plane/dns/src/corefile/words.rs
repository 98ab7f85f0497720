//! A Corefile as lines of words, as Caddy's files have them. Pure.
//!
//! Words are parted by white space; one that begins with a quotation mark goes to the next of them, over line ends too;
//! `#` at the beginning of a word makes the rest of the line a comment.

use std::fmt;
use std::sync::Arc;

/// A ConfigMap holds a mebibyte; so do both of them together, with what is imported many times.
pub const MOST_BYTES: usize = 1 << 20;
/// Far above any real file: hosts have their own bound, these are the words of plugins.
const MOST_WORDS: usize = 200_000;

/// A word, and where it stands.
#[derive(Clone, Debug)]
pub struct Word {
    pub text: String,
    pub file: Arc<str>,
    pub line: usize,
    quoted: bool,
}

impl Word {
    /// Whether it is this mark, and no text that looks like it.
    pub fn is(&self, mark: &str) -> bool {
        !self.quoted && self.text == mark
    }

    /// This word is what is wrong.
    pub fn wrong(&self, reason: impl Into<String>) -> Wrong {
        Wrong { file: self.file.clone(), line: self.line, word: self.text.clone(), reason: reason.into() }
    }
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub file: Arc<str>,
    pub line: usize,
    pub word: String,
    pub reason: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A word is shown as far as one reads it.
        const SHOWN: usize = 80;
        let word: String = self.word.chars().take(SHOWN).collect();
        write!(f, "{}:{}: {word:?}: {}", self.file, self.line, self.reason)
    }
}

impl std::error::Error for Wrong {}

/// The words of a text, line by line; lines without words are left out.
pub fn lines(file: &str, text: &str) -> Result<Vec<Vec<Word>>, Wrong> {
    let file: Arc<str> = file.into();
    let wrong = |line, word: &str, reason: &str| Wrong {
        file: file.clone(),
        line,
        word: word.to_owned(),
        reason: reason.to_owned(),
    };
    if text.len() > MOST_BYTES {
        return Err(wrong(1, "", "longer than a mebibyte"));
    }
    let mut all: Vec<Vec<Word>> = Vec::new();
    let mut count = 0;
    let mut rest = text.chars().peekable();
    let (mut number, mut fresh) = (1, true);
    while let Some(c) = rest.next() {
        match c {
            '\n' => (number, fresh) = (number + 1, true),
            c if c.is_whitespace() => {}
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            first => {
                let line = number;
                let (text, quoted) = match first {
                    '"' => (quotation(&mut rest, &mut number), true),
                    first => (Some(plain(first, &mut rest)), false),
                };
                let text = text.ok_or_else(|| wrong(line, "\"", "this quotation has no end"))?;
                if text.contains("{$") || text.contains("{%") {
                    return Err(wrong(line, &text, "environment variables are not put in here: write the value"));
                }
                count += 1;
                if count > MOST_WORDS {
                    return Err(wrong(line, &text, "more than 200000 words"));
                }
                let word = Word { text, file: file.clone(), line, quoted };
                match all.last_mut() {
                    Some(last) if !fresh => last.push(word),
                    _ => all.push(vec![word]),
                }
                fresh = false;
            }
        }
    }
    Ok(all)
}

type Rest<'t> = std::iter::Peekable<std::str::Chars<'t>>;

fn plain(first: char, rest: &mut Rest<'_>) -> String {
    let mut text = String::from(first);
    while let Some(c) = rest.next_if(|c| !c.is_whitespace()) {
        text.push(c);
    }
    text
}

/// What is left of a quotation; none when it has no end. `\"` is a quotation mark in it.
fn quotation(rest: &mut Rest<'_>, number: &mut usize) -> Option<String> {
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' if rest.peek() == Some(&'"') => text.extend(rest.next()),
            c => {
                *number += usize::from(c == '\n');
                text.push(c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_lines_and_comments_have_none() {
        let text = "a b # c\n\n  \"d \\\"e\nf\" g#h\n{ }";
        let all = lines("Corefile", text).unwrap();
        let told: Vec<Vec<(&str, usize)>> =
            all.iter().map(|l| l.iter().map(|w| (w.text.as_str(), w.line)).collect()).collect();
        let expected = [vec![("a", 1), ("b", 1)], vec![("d \"e\nf", 3), ("g#h", 4)], vec![("{", 5), ("}", 5)]];
        assert_eq!(told, expected);
        assert!(all[2][0].is("{") && !lines("", "\"{\"").unwrap()[0][0].is("{"));
    }

    #[test]
    fn what_has_no_end_is_told_with_its_line() {
        let open = lines("Corefile", "a\n \"b").unwrap_err();
        assert_eq!(open.to_string(), "Corefile:2: \"\\\"\": this quotation has no end");
        assert!(lines("Corefile", "forward . {$UPSTREAM}").unwrap_err().reason.contains("environment"));
        assert!(lines("Corefile", &"a ".repeat(MOST_WORDS + 1)).is_err());
        assert!(lines("Corefile", &"a".repeat(MOST_BYTES + 1)).is_err());
    }
}
