//! Checks of identifiers: each returns upstream's messages, and an empty list when the text is fine.
//!
//! Several messages can hold for one text (too long and a bad character), as upstream reports them. The patterns are
//! checked by hand, not by regular expressions: every object that is created passes through here.

use std::net::IpAddr;

use crate::Prefix;

/// Longest DNS label, label value and name part of a label key.
pub(crate) const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, which most object names are.
pub(crate) const SUBDOMAIN_MAX: usize = 253;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

/// `must be no more than 63 characters`.
pub fn max_len(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

/// `must be no more than 63 bytes`: what label keys and values say.
fn max_bytes(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// `must be between 1 and 5, inclusive`.
pub fn range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn pattern(what: &str, pattern: &str, examples: &[&str]) -> String {
    let mut out = format!("{what} (");
    for (n, example) in examples.iter().enumerate() {
        out.push_str(if n == 0 { "e.g. " } else { " or " });
        out.push_str(&format!("'{example}', "));
    }
    out.push_str(&format!("regex used for validation is '{pattern}')"));
    out
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn label_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => lower(first) && lower(last) && bytes.iter().all(|&b| lower(b) || b == b'-'),
        _ => false,
    }
}

fn subdomain_shape(text: &str) -> bool {
    text.split('.').all(label_shape)
}

fn qualified_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn collect(too_long: Option<usize>, text: &str, shape: bool, message: impl FnOnce() -> String) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(limit) = too_long
        && text.len() > limit
    {
        out.push(max_len(limit));
    }
    if !shape {
        out.push(message());
    }
    out
}

/// RFC 1123 label: namespaces, ports' host parts, container names.
pub fn dns1123_label(text: &str) -> Vec<String> {
    collect(Some(LABEL_MAX), text, label_shape(text), || {
        let what = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
        if subdomain_shape(text) {
            return "must not contain dots".to_owned();
        }
        pattern(what, LABEL, &["my-name", "123-abc"])
    })
}

/// RFC 1123 subdomain: the names of most objects.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    collect(Some(SUBDOMAIN_MAX), text, subdomain_shape(text), || {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        pattern(what, SUBDOMAIN, &["example.com"])
    })
}

/// RFC 1123 subdomain that may also hold `_` (node field names of some APIs).
pub fn dns1123_subdomain_underscore(text: &str) -> Vec<String> {
    let part = |s: &str| {
        let bytes = s.as_bytes();
        let ends = |b: Option<&u8>| b.is_some_and(|&b| lower(b));
        let bytes = bytes.strip_prefix(b"_").unwrap_or(bytes);
        ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|&b| lower(b) || matches!(b, b'-' | b'_'))
    };
    collect(Some(SUBDOMAIN_MAX), text, text.split('.').all(part), || {
        let what = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        pattern(what, "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*", &["example.com"])
    })
}

/// `*.` before a subdomain, as Ingress hosts may have.
pub fn wildcard_dns1123_subdomain(text: &str) -> Vec<String> {
    let shape = text.strip_prefix("*.").is_some_and(subdomain_shape);
    collect(Some(SUBDOMAIN_MAX), text, shape, || {
        let what = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        pattern(what, &format!("\\*\\.{SUBDOMAIN}"), &["*.example.com"])
    })
}

/// RFC 1035 label: Service names.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let shape = label_shape(text) && text.as_bytes()[0].is_ascii_lowercase();
    collect(Some(LABEL_MAX), text, shape, || {
        let what = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        pattern(what, LABEL_1035, &["my-name", "abc-123"])
    })
}

/// A name with an optional DNS prefix: label keys, annotation keys, resource and condition names.
pub fn qualified_name(text: &str) -> Vec<String> {
    const WHAT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let message = || pattern(WHAT, QUALIFIED, &["MyName", "my.name", "123-abc"]);
    let mut out = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                message()
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                out.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        out.push(format!("name part {}", max_bytes(LABEL_MAX)));
    }
    if !qualified_shape(name) {
        out.push(format!("name part {}", message()));
    }
    out
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    if text.len() > LABEL_MAX {
        return vec![max_bytes(LABEL_MAX)];
    }
    collect(None, text, text.is_empty() || qualified_shape(text), || {
        let what = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        pattern(what, LABEL_VALUE, &["MyValue", "my_value", "12345"])
    })
}

/// The name of an environment variable: any printable ASCII but `=`.
pub fn env_var_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.is_empty() {
        out.push("environment variable name must be non-empty".to_owned());
    }
    if text.bytes().any(|b| !(b' '..=b'~').contains(&b) || b == b'=') {
        let what = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        out.push(what.to_owned());
    }
    out
}

/// A key of a ConfigMap or Secret, which becomes a file name.
pub fn config_map_key(text: &str) -> Vec<String> {
    let shape = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let mut out = collect(Some(SUBDOMAIN_MAX), text, shape, || {
        let what = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        pattern(what, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"])
    });
    match text {
        "." => out.push("must not be '.'".to_owned()),
        ".." => out.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => out.push("must not start with '..'".to_owned()),
        _ => {}
    }
    out
}

/// `93%`.
pub fn percent(text: &str) -> Vec<String> {
    let shape = text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    collect(None, text, shape, || {
        let what = "a valid percent string must be a numeric string followed by an ending '%'";
        pattern(what, "[0-9]+%", &["1%", "93%"])
    })
}

/// A header name of a probe.
pub fn http_header_name(text: &str) -> Vec<String> {
    let shape = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    collect(None, text, shape, || {
        pattern(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )
    })
}

/// A C identifier.
pub fn c_identifier(text: &str) -> Vec<String> {
    let shape = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    collect(None, text, shape, || {
        let what = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
        pattern(what, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])
    })
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![range(1, 65535)] }
}

/// The name of a container port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 15 {
        out.push(max_len(15));
    }
    if text.is_empty() || !text.bytes().all(|b| lower(b) || b == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_owned());
    }
    out
}

/// A name that is one segment of a URL path: names of RBAC objects and the like.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => return vec![format!("may not be '{text}'")],
        _ => {}
    }
    ['/', '%'].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// An IP address of either family, without leading zeros.
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) if with_zeros(text) => vec!["must not have leading 0s".to_owned()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// Whether this would be an IPv4 address, did none of its numbers begin with a zero.
fn with_zeros(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 4 && parts.iter().all(|part| number(part) && part.parse::<u8>().is_ok())
}

/// A network in CIDR notation.
pub fn cidr(text: &str) -> Vec<String> {
    if text.parse::<Prefix>().is_ok() {
        return Vec::new();
    }
    let (address, bits) = text.split_once('/').unwrap_or_default();
    let zero = with_zeros(address) || (bits.len() > 1 && bits.starts_with('0'));
    let fits = bits.parse::<u8>().is_ok_and(|n| n <= if address.contains(':') { 128 } else { 32 });
    if zero && fits && (with_zeros(address) || address.parse::<IpAddr>().is_ok()) {
        return vec!["must not have leading 0s in IP or prefix length".to_owned()];
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

/// Cuts what `generateName` leaves off, so that a prefix is checked as a name would be.
pub fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Vec<String>;

    #[test]
    fn good_names() {
        let cases: [(Check, &[&str]); 12] = [
            (dns1123_label, &["a", "my-name", "123-abc"]),
            (dns1123_subdomain, &["a", "example.com", "a-b.c-d"]),
            (wildcard_dns1123_subdomain, &["*.example.com"]),
            (dns1035_label, &["a", "abc-123"]),
            (qualified_name, &["MyName", "example.com/My.Name", "a_b"]),
            (label_value, &["", "MyValue", "my_value", "12345"]),
            (env_var_name, &["A", "a b", "1-x.y"]),
            (config_map_key, &["key.name", ".hidden", "A_b"]),
            (percent, &["0%", "100%"]),
            (port_name, &["http", "a-1"]),
            (ip, &["10.0.0.1", "::1"]),
            (cidr, &["10.0.0.0/8", "2001:db8::/64", "0.0.0.0/0"]),
        ];
        for (check, names) in cases {
            for name in names {
                assert_eq!(check(name), Vec::<String>::new(), "{name}");
            }
        }
    }

    #[test]
    fn bad_names() {
        let cases: [(Check, &str, &str); 14] = [
            (
                dns1123_label,
                "A",
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            (
                dns1123_subdomain,
                "a..b",
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (qualified_name, "/a", "prefix part must be non-empty"),
            (
                qualified_name,
                "a/",
                "name part must be non-empty; name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            (
                label_value,
                "-",
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
            (
                env_var_name,
                "a=b",
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
            (config_map_key, "..", "must not be '..'"),
            (config_map_key, "..a", "must not start with '..'"),
            (
                percent,
                "5",
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ),
            (port_name, "123", "must contain at least one letter (a-z)"),
            (path_segment, "a/b", "may not contain '/'"),
            (path_segment, "..", "may not be '..'"),
            (ip, "1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            (cidr, "10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ];
        for (check, name, want) in cases {
            assert_eq!(check(name).join("; "), want, "{name}");
        }
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    }
}
