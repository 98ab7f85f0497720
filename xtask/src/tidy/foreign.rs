//! Other people's crates: licences that may be linked, and one version of each. Called by `tidy`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use super::name;
use crate::run::{cargo, output};

/// Licences that a binary under Apache-2.0 may link (MPL-2.0 asks only for changes to its own files).
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "MIT-0",
    "Apache-2.0 WITH LLVM-exception",
    "OpenSSL",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "MPL-2.0+",
    "BSL-1.0",
];

/// Crates that are in the graph in two versions, because two of our dependencies disagree.
const DUPLICATES: &[&str] = &[
    "base64",
    "either",
    "getrandom",
    "hashbrown",
    "syn",
    "synstructure",
    "untrusted",
    "object",
    "rand",
    "rand_core",
    "thiserror",
    "thiserror-impl",
    "windows-sys",
    "r-efi",
    "wasi",
    "windows-targets",
    "windows_x86_64_gnu",
    "itertools",
    "bitflags",
    "linux-raw-sys",
    "rustix",
    "socket2",
    "unicode-width",
    "heck",
    "fixedbitset",
    "foldhash",
    "pem",
    "prettyplease",
];

pub fn faults(packages: &[Value], faults: &mut Vec<String>) -> Result<()> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages.iter().filter(|p| !p["source"].is_null()) {
        let name = name(package);
        versions.entry(name).or_default().insert(package["version"].as_str().unwrap_or_default());
        let licence = package["license"].as_str().unwrap_or("none");
        if !licence_allowed(licence) {
            faults.push(format!("{name}: licence {licence:?} is not on the list"));
        }
    }
    let linux = linux_packages()?;
    for (name, versions) in versions.into_iter().filter(|(_, v)| v.len() > 1) {
        let used = versions.iter().filter(|v| linux.contains(&format!("{name} v{v}"))).count();
        if used > 1 && !DUPLICATES.contains(&name) {
            faults.push(format!("{name}: in the graph as {versions:?}"));
        }
    }
    Ok(())
}

/// What is really built for this platform: metadata also lists other platforms' crates.
fn linux_packages() -> Result<BTreeSet<String>> {
    let tree = output(cargo().args([
        "tree",
        "--workspace",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))?;
    Ok(tree.lines().map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect())
}

/// `A OR B` needs one allowed, `A AND B` both.
fn licence_allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|l| LICENCES.contains(&l.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_expressions() {
        assert!(licence_allowed("MIT OR GPL-3.0"));
        assert!(licence_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!licence_allowed("GPL-3.0"));
        assert!(!licence_allowed("MIT AND GPL-3.0"));
    }
}
