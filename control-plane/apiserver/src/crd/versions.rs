//! The order of an API's versions: which one is better when a client has no say. Pure; discovery and the warnings about
//! definitions ask.

use std::cmp::Ordering;

/// GA over beta over alpha, higher numbers over lower, anything else last by name (in reverse).
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// `(stage, major, minor)`: v1beta2 is (1, 1, 2).
fn parse_version(text: &str) -> Option<(u8, u64, u64)> {
    let rest = text.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    match &rest[digits..] {
        "" => Some((2, major, 0)),
        stage => {
            let (level, number) = match stage.strip_prefix("beta") {
                Some(number) => (1, number),
                None => (0, stage.strip_prefix("alpha")?),
            };
            Some((level, major, number.parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::compare_versions;

    #[test]
    fn versions_are_ordered_by_stability_then_number() {
        let mut versions = ["v1alpha1", "foo1", "v2", "v1beta1", "v10", "v11beta2", "foo10", "v1", "v3beta1"];
        versions.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v3beta1", "v1beta1", "v1alpha1", "foo1", "foo10"]);
    }
}
