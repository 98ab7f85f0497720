//! Image names and pull policies. Pure.

use k8s_openapi::api::core::v1::Container;

/// The name with the tag that is meant when none is written. `Err` says why it is no image name.
pub fn normalized(image: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
        )
    };
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match name[slash..].rfind(':') {
        Some(colon) => (&name[..slash + colon], Some(&name[slash + colon + 1..])),
        None => (name, None),
    };
    let component = |c: &str| {
        !c.is_empty()
            && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            && c.starts_with(|b: char| b.is_ascii_alphanumeric())
            && c.ends_with(|b: char| b.is_ascii_alphanumeric())
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    let is_host =
        parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost" || parts[0].starts_with('['));
    if is_host {
        parts.remove(0);
    }
    let tag_ok = |t: &str| {
        !t.is_empty()
            && t.len() <= 128
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !t.starts_with(['.', '-'])
    };
    let digest_ok = |d: &str| d.split_once(':').is_some_and(|(a, h)| !a.is_empty() && h.len() >= 32);
    if parts.is_empty()
        || !parts.iter().all(|p| component(p))
        || !tag.is_none_or(tag_ok)
        || !digest.is_none_or(digest_ok)
    {
        return Err(wrong());
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The host of the registry, as credentials name it.
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy of a container; the API defaults it, static pods may lack it.
pub fn policy(container: &Container) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some("IfNotPresent") => Policy::IfNotPresent,
        _ => match normalized(container.image.as_deref().unwrap_or("")) {
            Ok(name) if name.ends_with(":latest") => Policy::Always,
            _ => Policy::IfNotPresent,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag_or_are_refused() {
        for (given, want) in [
            ("busybox", Some("busybox:latest")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("registry.k8s.io/pause:3.10", Some("registry.k8s.io/pause:3.10")),
            ("a@sha256:0123456789abcdef0123456789abcdef", Some("a@sha256:0123456789abcdef0123456789abcdef")),
            ("Busybox", None),
            ("a b", None),
            ("a:", None),
            ("", None),
            ("a//b", None),
        ] {
            assert_eq!(normalized(given).ok().as_deref(), want, "{given}");
        }
        assert_eq!((registry("busybox"), registry("a.b/c"), registry("x/c")), ("docker.io", "a.b", "docker.io"));
    }
}
