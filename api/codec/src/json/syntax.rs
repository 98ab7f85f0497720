//! What Go says of a body that is no JSON, or that cannot tell its type: the words that clients of upstream see. Walked
//! only after decoding failed, so it may be slow. Pure; the API server calls it.

use meta::depth;
use serde_json::Value;

/// Go's type of what is read of every body first.
const HEAD: &str =
    "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";

/// Why apiVersion and kind cannot be read from a body; `None` when they can.
pub fn head_error(body: &[u8]) -> Option<String> {
    if let Err(message) = check(body) {
        return Some(message);
    }
    let value: Value = serde_json::from_slice(body).ok()?;
    let kind = |value: &Value| match value {
        Value::Null => None,
        Value::Bool(_) => Some("bool"),
        Value::Number(_) => Some("number"),
        Value::String(_) => Some("string"),
        Value::Array(_) => Some("array"),
        Value::Object(_) => Some("object"),
    };
    let Some(map) = value.as_object() else {
        return kind(&value).map(|found| format!("json: cannot unmarshal {found} into Go value of type {HEAD}"));
    };
    ["apiVersion", "kind"].into_iter().find_map(|field| {
        let value = map.get(field).filter(|value| !value.is_string())?;
        kind(value).map(|found| format!("json: cannot unmarshal {found} into Go struct field .{field} of type string"))
    })
}

/// The first thing that is wrong, as Go's scanner words it.
pub fn check(body: &[u8]) -> Result<(), String> {
    let mut scan = Scan { body, at: 0 };
    scan.value()?;
    scan.space();
    match scan.peek() {
        None => Ok(()),
        Some(_) => Err(scan.wrong("after top-level value")),
    }
}

struct Scan<'a> {
    body: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The character here, or the end of the body, does not belong here.
    fn wrong(&self, context: &str) -> String {
        match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => {
                let shown = match byte {
                    b'\'' => "'\\''".to_owned(),
                    b'"' => "'\"'".to_owned(),
                    byte => {
                        let quoted = meta::text::quote(&char::from(byte).to_string());
                        format!("'{}'", &quoted[1..quoted.len() - 1])
                    }
                };
                format!("invalid character {shown} {context}")
            }
        }
    }

    /// Nested values are kept on a list of open brackets, since bodies choose their depth; it ends at the limit.
    fn value(&mut self) -> Result<(), String> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            let opened = match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    open.push(bracket);
                    if open.len() > depth::MAX_DEPTH {
                        return Err(depth::TOO_DEEP.to_owned());
                    }
                    self.space();
                    let closing = if bracket == b'{' { b'}' } else { b']' };
                    self.peek() != Some(closing)
                }
                _ => {
                    self.scalar()?;
                    false
                }
            };
            if opened {
                if open.last() == Some(&b'{') {
                    self.key()?;
                }
                continue;
            }
            if !self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. False when the outermost value is complete.
    fn close(&mut self, open: &mut Vec<u8>) -> Result<bool, String> {
        while let Some(bracket) = open.last() {
            let object = *bracket == b'{';
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                    if object {
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if object => self.at += 1,
                Some(b']') if !object => self.at += 1,
                _ => {
                    return Err(self.wrong(if object { "after object key:value pair" } else { "after array element" }));
                }
            }
            open.pop();
        }
        Ok(false)
    }

    fn key(&mut self) -> Result<(), String> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("looking for beginning of object key string"));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.wrong("after object key"));
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.wrong("looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.wrong(&format!("in literal {word} (expecting '{}')", char::from(expected))));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.wrong("in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.wrong("in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.wrong("in string escape code")),
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong(context));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_bodies_are_told_in_gos_words() {
        for (body, want) in [
            ("{", "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
            ("[", "unexpected end of JSON input"),
            (r#"{"a":}"#, "invalid character '}' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{,}", "invalid character ',' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("nul!", "invalid character '!' in literal null (expecting 'l')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            ("'a'", "invalid character '\\'' looking for beginning of value"),
        ] {
            assert_eq!(check(body.as_bytes()).expect_err(body), want, "{body}");
        }
        for body in ["{}", "[[],{}]", " null ", r#"{"a":[1,{"b":-1.5e+3}],"c":"\u00e4"}"#, "\"x\"", "0"] {
            assert_eq!(check(body.as_bytes()), Ok(()), "{body}");
        }
    }

    #[test]
    fn nesting_ends_where_go_would_end_it() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(check(deep(depth::MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(check(deep(depth::MAX_DEPTH + 1).as_bytes()).expect_err("deep"), "exceeded max depth");
        assert_eq!(check("{\"a\":".repeat(1_000_000).as_bytes()).expect_err("deep"), "exceeded max depth");
    }

    #[test]
    fn bodies_without_a_type_that_can_be_read() {
        assert_eq!(head_error(b"{}"), None);
        assert_eq!(head_error(b"null"), None);
        let want = "json: cannot unmarshal number into Go struct field .kind of type string";
        assert_eq!(head_error(br#"{"apiVersion":"v1","kind":1}"#).as_deref(), Some(want));
        let text = head_error(b"[]").expect("no object");
        assert!(text.starts_with("json: cannot unmarshal array into Go value of type struct { APIVersion"), "{text}");
    }
}
