//! Finds values in a JSON document without parsing the rest of it.
//!
//! The watch cache needs a handful of paths of every object (labels, selectable fields, where metadata begins), once
//! per revision and for every object of the cluster, so this walks the bytes once and skips what nobody asked for.
//! Documents come from the store, were encoded by a JSON encoder and are only checked as far as the walk goes.

use std::borrow::Cow;
use std::ops::Range;

/// Most paths in one [`Paths`]: they travel as a bit set.
pub const MAX_PATHS: usize = 64;

/// The paths to look for, each a list of object keys from the root.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    paths: Vec<Vec<String>>,
}

impl Paths {
    /// Paths beyond [`MAX_PATHS`] are dropped; callers bound theirs far below.
    pub fn new(paths: impl IntoIterator<Item = Vec<String>>) -> Paths {
        Paths { paths: paths.into_iter().take(MAX_PATHS).collect() }
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Byte ranges of the values at the paths, in the order of the paths; `None` when the document is not a JSON
    /// object that a walk can follow.
    pub fn find(&self, document: &[u8]) -> Option<Vec<Option<Range<usize>>>> {
        let mut found = vec![None; self.paths.len()];
        let mut walk = Walk { doc: document, at: 0, paths: &self.paths, found: &mut found };
        walk.space();
        let all = if self.paths.len() == MAX_PATHS { u64::MAX } else { (1 << self.paths.len()) - 1 };
        walk.object(all, 0)?;
        Some(found)
    }
}

struct Walk<'a> {
    doc: &'a [u8],
    at: usize,
    paths: &'a [Vec<String>],
    found: &'a mut Vec<Option<Range<usize>>>,
}

impl Walk<'_> {
    fn peek(&self) -> Option<u8> {
        self.doc.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Reads an object whose members may lie on the paths in `active`, `depth` keys deep.
    fn object(&mut self, active: u64, depth: usize) -> Option<()> {
        self.expect(b'{')?;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.space();
            let key = self.string()?;
            let mut below = 0;
            let mut here = 0;
            if active != 0 {
                let key = unescape(&self.doc[key]);
                for (i, path) in self.paths.iter().enumerate() {
                    if active & (1 << i) != 0 && path.get(depth).is_some_and(|k| *k == key) {
                        let set = if path.len() == depth + 1 { &mut here } else { &mut below };
                        *set |= 1u64 << i;
                    }
                }
            }
            self.space();
            self.expect(b':')?;
            self.space();
            let start = self.at;
            if below != 0 && self.peek()? == b'{' {
                self.object(below, depth + 1)?
            } else {
                self.skip(depth + 1)?
            }
            for i in (0..self.paths.len()).filter(|i| here & (1 << i) != 0) {
                self.found[i] = Some(start..self.at);
            }
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Passes a string; returns the range between the quotes.
    fn string(&mut self) -> Option<Range<usize>> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(start..self.at - 1)
    }

    /// Passes any value.
    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => {
                let mut open = 0usize;
                loop {
                    match self.peek()? {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => open += 1,
                        b'}' | b']' => open -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if open == 0 {
                        break;
                    }
                    if open + depth > meta::depth::MAX_DEPTH {
                        return None;
                    }
                }
            }
            _ => {
                while self.peek().is_some_and(|b| !matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
                    self.at += 1;
                }
            }
        }
        Some(())
    }
}

/// The text of a JSON string, given the bytes between its quotes.
pub fn unescape(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let mut quoted = Vec::with_capacity(raw.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(raw);
    quoted.push(b'"');
    // What is no string of JSON is compared as it is written, not as nothing.
    Cow::Owned(serde_json::from_slice(&quoted).unwrap_or_else(|_| String::from_utf8_lossy(raw).into_owned()))
}

/// A scalar as field selectors compare it: strings unquoted, numbers and booleans as written, null and compounds empty.
pub fn scalar(raw: &[u8]) -> Cow<'_, str> {
    match raw.first() {
        Some(b'"') if raw.len() >= 2 => unescape(&raw[1..raw.len() - 1]),
        Some(b'{' | b'[' | b'n') | None => Cow::Borrowed(""),
        _ => String::from_utf8_lossy(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn finds_nested_values_and_passes_the_rest() {
        let doc = br#"{"a":[1,{"b":"}\""}], "metadata" : {"labels":{"x":"y"},"n\u0061me":"q\"t"},"spec":{"on":true}}"#;
        let paths = Paths::new(["metadata", "metadata.labels", "metadata.name", "spec.on", "spec.off"].map(path));
        let found = paths.find(doc).expect("walks");
        let text = |i: usize| found[i].clone().map(|r| String::from_utf8_lossy(&doc[r]).into_owned());
        assert_eq!(text(0).as_deref(), Some(r#"{"labels":{"x":"y"},"n\u0061me":"q\"t"}"#));
        assert_eq!(text(1).as_deref(), Some(r#"{"x":"y"}"#));
        assert_eq!(scalar(&doc[found[2].clone().expect("name")]), "q\"t");
        assert_eq!(text(3).as_deref(), Some("true"));
        assert_eq!(text(4), None);
    }

    #[test]
    fn torn_documents_are_refused() {
        let paths = Paths::new([path("metadata.name")]);
        for doc in ["", "[]", "{", r#"{"a"}"#, r#"{"a":"#, r#"{"metadata":{"name":"x"#] {
            assert!(paths.find(doc.as_bytes()).is_none(), "{doc}");
        }
    }
}
