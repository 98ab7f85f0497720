//! What a URL of the kubelet's API says: the parts of its path and its parameters, decoded. Pure; `route`, `auth` and the
//! handlers read it.

use std::collections::HashMap;

/// Query parameters; a name may come more than once.
#[derive(Debug, Default)]
pub struct Params(pub HashMap<String, Vec<String>>);

impl Params {
    pub fn of(query: Option<&str>) -> Params {
        let mut out: HashMap<String, Vec<String>> = HashMap::new();
        for pair in query.unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            out.entry(decode(name)).or_default().push(decode(value));
        }
        Params(out)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// `true`, `1`.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True" | "t"))
    }
}

/// Undoes URL encoding; `+` is a blank.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16);
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' if i + 2 < bytes.len() => match (hex(bytes[i + 1]), hex(bytes[i + 2])) {
                (Some(a), Some(b)) => {
                    out.push((a * 16 + b) as u8);
                    i += 2;
                }
                _ => out.push(b'%'),
            },
            other => out.push(other),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a path is made of, as it is served and as it is authorised.
pub fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let params = Params::of(Some("command=sh&command=-c&command=echo+a%20%26b&tty=1&bad=%zz"));
        assert_eq!(params.all("command"), ["sh", "-c", "echo a &b"]);
        assert!(params.is("tty") && !params.is("stdin"));
        assert_eq!(params.get("bad"), Some("%zz"));
    }
}
