//! Field selectors: `status.phase=Running,spec.nodeName!=a`, with `\` escaping `,` `=` and itself.
//!
//! Which fields a kind can be selected by is the kind's business; this is only the language.

/// A conjunction of terms. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// All must hold, in the order in which they were written.
    pub terms: Vec<FieldTerm>,
}

/// `field=value` or `field!=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// A path without a leading dot: `status.phase`.
    pub field: String,
    /// Whether it is `=` (or `==`) rather than `!=`.
    pub equal: bool,
    /// With escapes resolved. Empty matches a field that is not set.
    pub value: String,
}

impl FieldSelector {
    /// Parses a selector; the error is upstream's text.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let Some((field, equal, value)) = split_term(part) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            terms.push(FieldTerm { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether every object is selected.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object matches; `get` gives the value of a field, empty when it is not set.
    pub fn matches<'a>(&self, mut get: impl FnMut(&str) -> &'a str) -> bool {
        self.terms.iter().all(|t| (get(&t.field) == t.value) == t.equal)
    }

    /// The value that `field` must equal, when a term says so: what an index can be asked for.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, term) in self.terms.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}{}{}", term.field, if term.equal { "=" } else { "!=" }, escape(&term.value))?;
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Cuts at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

/// Cuts at the first operator.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in term.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => {
                // Upstream prints the code point as a number.
                return Err(format!("invalid field selector: unescaped character in value: {}", c as u32));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for (text, want) in [
            ("", ""),
            ("metadata.name=x", "metadata.name=x"),
            ("a==b,c!=d", "a=b,c!=d"),
            ("a=x\\,y\\=z", "a=x\\,y\\=z"),
            ("a=", "a="),
        ] {
            assert_eq!(FieldSelector::parse(text).map(|s| s.to_string()).as_deref(), Ok(want));
        }
        let bad = FieldSelector::parse("a").expect_err("no operator");
        assert_eq!(bad, "invalid selector: 'a'; can't understand 'a'");
        assert!(FieldSelector::parse("a=b\\x").is_err());
        assert!(FieldSelector::parse("a=b=c").is_err());
    }

    #[test]
    fn matches_by_value() {
        let selector = FieldSelector::parse("a=1,b!=2").expect("selector");
        assert!(selector.matches(|f| if f == "a" { "1" } else { "" }));
        assert!(!selector.matches(|f| if f == "a" { "1" } else { "2" }));
        assert_eq!(selector.exact("a"), Some("1"));
        assert_eq!(selector.exact("b"), None);
    }
}
