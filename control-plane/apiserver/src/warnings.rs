//! What the API accepts although nothing here acts on it yet: each such field answers with a `Warning` header.

use kinds::Kind;
use serde_json::Value;

/// A field that is stored, returned and without effect.
struct Unenforced {
    group: &'static str,
    plural: &'static str,
    /// Dotted path from the root; `[]` goes through a list.
    path: &'static str,
}

/// One table of them all; a row goes when the feature comes.
const UNENFORCED: &[Unenforced] = &[
    Unenforced { group: "networking.k8s.io", plural: "networkpolicies", path: "spec" },
    Unenforced { group: "networking.k8s.io", plural: "ingresses", path: "spec" },
    Unenforced { group: "autoscaling", plural: "horizontalpodautoscalers", path: "spec" },
    Unenforced { group: "storagemigration.k8s.io", plural: "storageversionmigrations", path: "spec" },
    Unenforced { group: "resource.k8s.io", plural: "resourceclaims", path: "spec" },
    Unenforced { group: "resource.k8s.io", plural: "devicetaintrules", path: "spec" },
    Unenforced { group: "certificates.k8s.io", plural: "podcertificaterequests", path: "spec" },
];

/// Calls `warn` for each field of `object` that has no effect.
pub fn unenforced(kind: &Kind, object: &Value, mut warn: impl FnMut(String)) {
    for row in UNENFORCED.iter().filter(|row| kind.group == row.group && kind.plural == row.plural) {
        if present(object, row.path) {
            let what = if row.path == "spec" { kind.plural.to_string() } else { row.path.to_owned() };
            warn(format!("{what}: accepted and stored, but nothing in this server acts on it yet"));
        }
    }
}

fn present(value: &Value, path: &str) -> bool {
    let (head, rest) = path.split_once('.').map_or((path, ""), |(head, rest)| (head, rest));
    let (name, list) = head.strip_suffix("[]").map_or((head, false), |name| (name, true));
    let Some(found) = value.get(name).filter(|found| !found.is_null()) else { return false };
    if rest.is_empty() {
        return true;
    }
    if list {
        return found.as_array().is_some_and(|items| items.iter().any(|item| present(item, rest)));
    }
    present(found, rest)
}
