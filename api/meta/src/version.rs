//! Which Kubernetes this is: the release whose API is served, and the version that every component tells of itself.
//! Pure. Callers: `/version` and discovery of the API server, `kubernetes_build_info` of every page of metrics, the
//! node's `kubeletVersion`, `--version` of every component. One place, so that no two of them differ.

macro_rules! release {
    () => {
        "v1.37.2"
    };
}

/// The Kubernetes release whose API this is.
pub const RELEASE: &str = release!();
/// What `kubectl version` and `kubectl get nodes` show: the release, and ours as build metadata (SemVer, section 10).
pub const GIT_VERSION: &str = concat!(release!(), "+ferrokube.", env!("CARGO_PKG_VERSION"));
/// The release's first number.
pub const MAJOR: &str = "1";
/// The release's second number.
pub const MINOR: &str = "37";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_of_one_release() {
        assert!(RELEASE.starts_with(&format!("v{MAJOR}.{MINOR}.")));
        assert_eq!(GIT_VERSION.split_once('+').map(|(release, _)| release), Some(RELEASE));
    }
}
