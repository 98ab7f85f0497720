//! The rules of the house that no compiler checks. Sizes may be over the limit only where `tidy-debts.txt` says so, and
//! only by as much: that file may shrink, never grow.
//!
//! - [`files`]: heads, sizes, pure files, who listens, what is unbounded
//! - [`absent`]: what a crate knows nothing of
//! - [`circles`]: files that need each other
//! - [`dead`]: public items that nobody names
//! - [`foreign`]: licences and versions of other people's crates
//! - here: who may depend on whom, which crates are documented

mod absent;
mod circles;
mod dead;
mod files;
mod foreign;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, output, root};

/// Who may depend on whom, layer by layer: a crate's workspace dependencies must be in its list.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("meta", &[]),
    ("facts", &["meta"]),
    ("wire", &[]),
    ("telemetry", &[]),
    ("descriptions", &[]),
    ("linux", &["meta"]),
    ("schema", &["meta"]),
    ("object", &["meta", "schema"]),
    ("kinds", &["meta", "schema", "object"]),
    ("codec", &["meta", "schema", "object", "kinds"]),
    ("serving", &[]),
    ("client", &["meta", "telemetry", "serving"]),
    ("etcd", &["meta", "wire", "telemetry", "serving"]),
    ("apiserver", &["meta", "schema", "object", "kinds", "codec", "wire", "descriptions", "telemetry", "serving"]),
    ("controller-manager", &["meta", "facts", "kinds", "client", "telemetry"]),
    ("scheduler", &["meta", "facts", "client", "telemetry"]),
    ("dns", &["meta", "client", "linux", "serving"]),
    ("kubelet", &["meta", "facts", "client", "wire", "linux", "telemetry", "serving"]),
    ("cni", &["meta", "linux"]),
    ("pod-network", &["meta", "linux", "cni"]),
    ("flannel", &["meta", "linux", "wire", "client", "serving"]),
    ("bgp", &["meta"]),
    ("bgpd", &["meta", "linux", "serving", "telemetry", "bgp"]),
    ("announcer", &["meta", "facts", "linux", "client"]),
    ("runtime", &["meta", "wire", "linux", "pod-network", "serving"]),
    ("proxy", &["meta", "client", "linux", "telemetry", "serving"]),
];

/// The two lower floors of ARCHITECTURE.md, on which every component stands: whoever uses them reads their documentation
/// and not their code, so each says `warn(missing_docs)`, which the build takes for an error.
const GROUND: &[&str] = &[
    "api/codec",
    "api/descriptions",
    "api/facts",
    "api/kinds",
    "api/meta",
    "api/object",
    "api/schema",
    "api/telemetry",
    "api/wire",
    "client",
    "linux",
    "network/bgp",
    "network/cni",
    "network/pod",
    "serving",
];

/// Crates outside of the layers: the binary, which may use all, and what builds, drives and measures it.
const ABOVE: &[&str] = &["ferrokube", "xtask", "testkit", "e2e", "conformance", "fuzz", "chaos", "vm", "benches"];

/// One file of the project.
struct Source {
    /// From the root.
    name: String,
    text: String,
}

pub fn run() -> Result<()> {
    let debts = debts()?;
    let mut faults = Vec::new();
    let mut owed = BTreeSet::new();
    let sources = sources()?;
    let mut large = circles::larger(&sources);
    for Source { name, text } in &sources {
        large.extend(files::faults(name, text, &mut faults));
    }
    for (what, size) in large {
        match debts.get(&what) {
            Some(allowed) if size <= *allowed => {
                owed.insert(what);
            }
            _ => faults.push(format!("{what}: {size} {}", if what.ends_with(":circle") { "files" } else { "lines" })),
        }
    }
    for paid in debts.keys().filter(|d| !owed.contains(*d)) {
        faults.push(format!("{paid}: within the limit now, take it out of xtask/tidy-debts.txt"));
    }
    beside(&sources, &mut faults);
    documented(&sources, &mut faults);
    dead::faults(&sources, &mut faults);
    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--quiet"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata")?;
    directions(packages, &mut faults);
    absent::faults(packages, &sources, &mut faults);
    foreign::faults(packages, &mut faults)?;
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "))
}

/// Lines `path[:function] size`, each a size over the limit that is tolerated and may only fall.
fn debts() -> Result<BTreeMap<String, usize>> {
    let text = fs::read_to_string(root().join("xtask/tidy-debts.txt")).unwrap_or_default();
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    lines
        .map(|line| {
            let (what, size) = line.rsplit_once(' ').with_context(|| format!("tidy-debts.txt: {line:?}"))?;
            Ok((what.to_owned(), size.parse().with_context(|| format!("tidy-debts.txt: {line:?}"))?))
        })
        .collect()
}

fn sources() -> Result<Vec<Source>> {
    let listed = output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]))?;
    let there = listed.lines().filter(|name| root().join(name).exists());
    let read = |name: &str| {
        let text = fs::read_to_string(root().join(name)).with_context(|| name.to_owned())?;
        Ok(Source { name: name.to_owned(), text })
    };
    there.map(read).collect()
}

/// A module with files of its own lies among them: one style, so that a folder is a module's whole.
fn beside(sources: &[Source], faults: &mut Vec<String>) {
    let folders: BTreeSet<&str> = sources.iter().filter_map(|s| Some(s.name.rsplit_once('/')?.0)).collect();
    for source in sources {
        let module = source.name.strip_suffix(".rs").filter(|folder| folders.contains(folder));
        faults.extend(module.map(|folder| format!("{}: has files of its own, so it is {folder}/mod.rs", source.name)));
    }
}

/// The compiler looks whether every public item of the ground crates has words, where it is told to.
fn documented(sources: &[Source], faults: &mut Vec<String>) {
    for folder in GROUND {
        let map = format!("{folder}/src/lib.rs");
        match sources.iter().find(|source| source.name == map) {
            None => faults.push(format!("{folder}: in GROUND of xtask/src/tidy/mod.rs, and has no src/lib.rs")),
            Some(map) if map.text.lines().any(|line| line == "#![warn(missing_docs)]") => {}
            Some(map) => faults.push(format!("{}: a ground crate says #![warn(missing_docs)]", map.name)),
        }
    }
    let ground = |map: &&Source| map.name.starts_with("api/") && map.name.ends_with("/src/lib.rs");
    let named = |map: &&Source| GROUND.iter().any(|folder| map.name == format!("{folder}/src/lib.rs"));
    let left = sources.iter().filter(ground).filter(|map| !named(map));
    faults.extend(left.map(|map| format!("{}: in api/, and not in GROUND of xtask/src/tidy/mod.rs", map.name)));
}

/// Packages of the workspace: they come from nowhere else.
fn ours(packages: &[Value]) -> impl Iterator<Item = &Value> {
    packages.iter().filter(|package| package["source"].is_null())
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap_or_default()
}

fn directions(packages: &[Value], faults: &mut Vec<String>) {
    let all: BTreeSet<&str> = ours(packages).map(name).collect();
    for package in ours(packages).filter(|package| !ABOVE.contains(&name(package))) {
        let from = name(package);
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(n, _)| *n == from) else {
            faults.push(format!("{from}: has no row in DIRECTIONS of xtask/src/tidy/mod.rs: what may it depend on?"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|d| d["kind"].is_null() && d["source"].is_null());
        let used: BTreeSet<&str> = normal.map(name).filter(|to| all.contains(to)).collect();
        let may: BTreeSet<&str> = allowed.iter().copied().collect();
        faults.extend(used.difference(&may).map(|to| format!("{from} must not depend on {to}: see ARCHITECTURE.md")));
        let unused = may.difference(&used);
        faults.extend(unused.map(|to| format!("{from} may depend on {to} and doesn't: take it out of DIRECTIONS")));
    }
    let gone = DIRECTIONS.iter().filter(|(n, _)| !all.contains(n));
    faults.extend(gone.map(|(n, _)| format!("{n}: in DIRECTIONS, and no crate of the workspace")));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_crate_without_a_row_and_a_right_nobody_uses_are_seen() {
        let mut packages: Vec<Value> = DIRECTIONS
            .iter()
            .map(|(from, to)| {
                let dependencies: Vec<Value> = to.iter().map(|to| json!({"name": to})).collect();
                json!({"name": from, "dependencies": dependencies})
            })
            .collect();
        let faults = |packages: &[Value]| {
            let mut faults = Vec::new();
            directions(packages, &mut faults);
            faults
        };
        assert_eq!(faults(&packages), [""; 0]);
        packages.push(json!({"name": "novel", "dependencies": []}));
        assert_eq!(faults(&packages).len(), 1, "{:?}", faults(&packages));
        packages.pop();
        let client = packages.iter_mut().find(|p| p["name"] == "client").expect("a crate");
        client["dependencies"] = json!([{"name": "meta"}, {"name": "etcd"}]);
        let said = faults(&packages).join("\n");
        assert!(said.contains("must not depend on etcd") && said.contains("depend on serving and doesn't"), "{said}");
    }

    #[test]
    fn a_module_beside_its_folder_is_seen() {
        let source = |name: &str| Source { name: name.into(), text: String::new() };
        let mut said = Vec::new();
        beside(&[source("a/src/b.rs"), source("a/src/b/c.rs"), source("a/src/d/mod.rs")], &mut said);
        assert_eq!(said, ["a/src/b.rs: has files of its own, so it is a/src/b/mod.rs"]);
    }

    #[test]
    fn a_ground_crate_without_documentation_is_seen() {
        let mut sources: Vec<Source> = GROUND
            .iter()
            .map(|folder| Source {
                name: format!("{folder}/src/lib.rs"),
                text: "//! A.\n\n#![warn(missing_docs)]\n".into(),
            })
            .collect();
        let faults = |sources: &[Source]| {
            let mut faults = Vec::new();
            documented(sources, &mut faults);
            faults
        };
        assert_eq!(faults(&sources), [""; 0]);
        sources[0].text = "//! It should say #![warn(missing_docs)].\n".into();
        assert_eq!(faults(&sources), ["api/codec/src/lib.rs: a ground crate says #![warn(missing_docs)]"]);
        sources[0].name = "api/novel/src/lib.rs".into();
        let said = faults(&sources).join("\n");
        assert!(said.contains("api/codec: in GROUND") && said.contains("api/novel/src/lib.rs: in api/"), "{said}");
    }

    #[test]
    fn paths_are_from_the_root() {
        assert!(root().join("Cargo.toml").exists());
    }
}
