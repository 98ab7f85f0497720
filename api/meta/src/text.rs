//! Text as upstream prints it: quoted strings, floats and lists inside messages.
//!
//! Messages are part of the API (clients and tests match on them), so every message builder goes through here.

use serde_json::Value;
use std::fmt::Write;

/// Quotes like Go's `%q`: double quotes, Go escapes, printable Unicode as it is.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => push_escape(&mut out, format_args!("\\x{:02x}", c as u32)),
            c if printable(c) => out.push(c),
            c if (c as u32) < 0x1_0000 => push_escape(&mut out, format_args!("\\u{:04x}", c as u32)),
            c => push_escape(&mut out, format_args!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

fn push_escape(out: &mut String, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing to a String does not fail");
}

/// What Go calls printable, near enough: no control, format, surrogate, private or separator code points.
fn printable(c: char) -> bool {
    let n = c as u32;
    let control = (0x80..0xa0).contains(&n) || n == 0xad;
    let separators = n == 0xa0 || n == 0x1680 || (0x2000..=0x200f).contains(&n) || (0x2028..=0x202f).contains(&n);
    let format = (0x205f..=0x206f).contains(&n) || n == 0x3000 || n == 0xfeff || (0xfff0..=0xfffb).contains(&n);
    let private = (0xe000..0xf900).contains(&n) || n >= 0xe_0000;
    !(control || separators || format || private || n & 0xfffe == 0xfffe)
}

/// A float like Go's `%v`: shortest form, with an exponent below 1e-4 and from 1e6 on.
pub fn float(v: f64) -> String {
    if v == 0.0 {
        return if v.is_sign_negative() { "-0".to_owned() } else { "0".to_owned() };
    }
    let abs = v.abs();
    if (1e-4..1e6).contains(&abs) {
        return format!("{v}");
    }
    let text = format!("{v:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// A JSON value like Go's `%v` of a decoded object: `map[a:1 b:[x y]]`, `<nil>`.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(s) => s.clone(),
        Value::Number(n) if n.is_f64() => float(n.as_f64().unwrap_or_default()),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// Quoted values joined by `, `, as in `supported values: "A", "B"`.
pub fn quoted_list<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> String {
    let mut out = String::new();
    for value in values {
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(&quote(value.as_ref()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_like_go() {
        for (input, want) in [
            ("a", r#""a""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("tab\tnl\n\x01", r#""tab\tnl\n\x01""#),
            ("é世", r#""é世""#),
            ("\u{200b}", r#""\u200b""#),
        ] {
            assert_eq!(quote(input), want);
        }
        assert_eq!(quoted_list(["A", "B"]), r#""A", "B""#);
    }

    #[test]
    fn floats_like_go() {
        for (input, want) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (1.25e-7, "1.25e-07"),
            (0.0001, "0.0001"),
            (123_456.0, "123456"),
            (1_234_567.5, "1.2345675e+06"),
            (1e20, "1e+20"),
        ] {
            assert_eq!(float(input), want);
        }
    }
}
