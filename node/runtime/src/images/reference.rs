//! Image names as people write them, and their full form. Pure.
//!
//! `busybox` means `docker.io/library/busybox:latest`: the rule every tool follows since Docker. Called by the CRI
//! image service, the archive reader and the registry client.

use std::fmt;

use super::{ImageError, Result};

/// Names without a registry are of this one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The distribution specification's bound on a name, and DNS's on a host's.
const MAX_NAME: usize = 255;
/// Host, name, tag and digest at their longest, and what stands between them.
const MAX_TEXT: usize = 2 * MAX_NAME + 128 + 71 + 3;

/// A name in its full form; displays as `registry/repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a name; without tag and digest the tag is `latest`.
    ///
    /// # Errors
    /// [`ImageError::Name`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why| ImageError::Name(text.to_owned(), why);
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(bad("it is empty or too long"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad("after @ there must be sha256: and 64 hex digits")),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].split_once(':') {
            Some((last, tag)) => (&rest[..slash + last.len()], Some(tag.to_owned())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag is at most 128 letters, digits, dots, dashes and underscores"));
        }
        let (registry, repository) = split_registry(name);
        if repository.len() > MAX_NAME || !repository.split('/').all(is_component) {
            return Err(bad("a repository is lower-case words separated by slashes"));
        }
        if !is_host(&registry) {
            return Err(bad("the registry is not a host name"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { registry, repository, tag, digest })
    }

    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What the registry is asked for: the digest when there is one, else the tag.
    pub fn selector(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// `registry/repository:tag`, when there is a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first part is a registry when it looks like a host: a dot, a port, or `localhost`.
fn split_registry(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            let first = if first == "index.docker.io" { DEFAULT_REGISTRY } else { first };
            let official = first == DEFAULT_REGISTRY && !rest.contains('/');
            (first.to_owned(), if official { format!("library/{rest}") } else { rest.to_owned() })
        }
        Some(_) => (DEFAULT_REGISTRY.to_owned(), name.to_owned()),
        None => (DEFAULT_REGISTRY.to_owned(), format!("library/{name}")),
    }
}

/// `sha256:` and 64 lower-case hex digits.
pub fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or("");
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128 && bytes.next().is_some_and(word) && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().is_some_and(|b| plain(*b)) && bytes.last().is_some_and(|b| plain(*b));
    ends && bytes.iter().all(|b| plain(*b) || matches!(b, b'.' | b'_' | b'-')) && !part.contains("..")
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let inside = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let v6 = inside.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let name_ok = v6 || (begins && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'));
    name_ok && host.len() <= MAX_NAME && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_full_form() {
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("me/app:1.2", "docker.io/me/app:1.2"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full);
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference = Reference::parse(&format!("ghcr.io/x/y@{digest}")).unwrap();
        assert_eq!((reference.tag.as_deref(), reference.selector()), (None, digest.as_str()));
    }

    #[test]
    fn wrong_names_are_refused() {
        for text in ["", "UPPER/case", "a//b", "a:", "a:b:c", "x@sha256:12", "../etc", "a/../b", "-a", "host:x/a"] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    /// Anything between brackets was a host, line ends included; and a name without a tag could be too long with one.
    #[test]
    fn a_host_in_brackets_is_an_address_and_the_full_form_is_read_again() {
        assert!(Reference::parse("[::1]:5000/a").is_ok());
        for text in ["[::1\r\nX: y]/a", "[::\u{14}]/a", "[a]/b", "[]/b"] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        let (host, name) = (format!("{}.example", "h".repeat(240)), "n".repeat(255));
        let reference = Reference::parse(&format!("{host}/{name}")).unwrap();
        assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
    }
}
