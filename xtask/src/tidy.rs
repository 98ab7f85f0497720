//! The rules of the house that no compiler checks: heads, sizes, directions, pure files, licences, duplicates. Sizes
//! may be over the limit only where `tidy-debts.txt` says so, and only by as much: that file may shrink, never grow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, output, root};

const MAX_FN: usize = 70;
const MAX_FILE: usize = 1000;

/// Who may depend on whom, layer by layer: a crate's workspace dependencies must be in its list.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("meta", &[]),
    ("facts", &["meta"]),
    ("wire", &[]),
    ("telemetry", &[]),
    ("descriptions", &[]),
    ("linux", &[]),
    ("schema", &["meta"]),
    ("object", &["meta", "schema"]),
    ("kinds", &["meta", "schema", "object"]),
    ("codec", &["meta", "schema", "object", "kinds"]),
    ("serving", &["telemetry"]),
    ("client", &["meta", "telemetry", "serving"]),
    ("etcd", &["meta", "wire", "telemetry", "serving"]),
    ("apiserver", &["meta", "schema", "object", "kinds", "codec", "wire", "descriptions", "telemetry", "serving"]),
    ("controller-manager", &["meta", "facts", "kinds", "client", "telemetry"]),
    ("scheduler", &["meta", "facts", "client", "telemetry"]),
    ("dns", &["meta", "client", "linux", "serving"]),
    ("kubelet", &["meta", "facts", "client", "wire", "linux", "telemetry", "serving"]),
    ("cni", &["linux"]),
    ("runtime", &["wire", "linux", "cni", "serving"]),
    ("proxy", &["meta", "client", "linux", "telemetry", "serving"]),
];

/// Where sockets are bound: by the one listener, and in two places that hand theirs to it; and here is the word.
const LISTENERS: &[&str] =
    &["xtask/", "serving/", "testkit/", "control-plane/etcd/src/server/listen.rs", "node/runtime/src/daemon.rs"];

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

pub fn run() -> Result<()> {
    let debts = debts()?;
    let mut faults = Vec::new();
    let mut owed = BTreeSet::new();
    for path in sources()? {
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let text = fs::read_to_string(&path).with_context(|| name.clone())?;
        for (what, size) in file_faults(&name, &text, &mut faults) {
            match debts.get(&what) {
                Some(allowed) if size <= *allowed => {
                    owed.insert(what);
                }
                _ => faults.push(format!("{what}: {size} lines")),
            }
        }
    }
    for paid in debts.keys().filter(|d| !owed.contains(*d)) {
        faults.push(format!("{paid}: within the limit now, take it out of xtask/tidy-debts.txt"));
    }
    graph(&mut faults)?;
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

fn sources() -> Result<Vec<PathBuf>> {
    let listed = output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]))?;
    Ok(listed.lines().map(|l| root().join(l)).filter(|p| p.exists()).collect())
}

/// Faults of one file go to `faults`; sizes over a limit come back, for the debts to be looked up.
fn file_faults(name: &str, text: &str, faults: &mut Vec<String>) -> Vec<(String, usize)> {
    let mut large = Vec::new();
    let is_test = name.contains("/tests/")
        || name.ends_with("tests.rs")
        || name.contains("/benches/")
        || name.contains("/examples/");
    if !text.starts_with("//!") {
        faults.push(format!("{name}: does not open with //! lines that say what, why and who calls"));
    }
    let lines = text.lines().count();
    if lines > MAX_FILE {
        large.push((name.to_owned(), lines));
    }
    let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    for (function, size) in functions(production) {
        if size > MAX_FN && !is_test {
            large.push((format!("{name}:{function}"), size));
        }
    }
    let head: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
    let does_io =
        ["tokio::", "std::fs", "std::net::Tcp", "std::net::Udp", "Instant::now"].iter().any(|w| production.contains(w));
    let may = is_test
        || ["daemon.rs", "main.rs", "build.rs"].iter().any(|f| name.ends_with(f))
        || ["ferrokube/", "xtask/", "linux/", "testkit/", "client/", "benches/"].iter().any(|d| name.starts_with(d))
        || head.contains("I/O");
    let listens =
        production.contains("tokio::net") && ["TcpListener", "UnixListener"].iter().any(|l| production.contains(l));
    if listens && !is_test && !LISTENERS.iter().any(|place| name.starts_with(place)) {
        faults.push(format!("{name}: listens by itself; limits and deadlines are in serving::Listener"));
    }
    if does_io && !may {
        faults.push(format!("{name}: touches the outside (tokio, std::fs, a clock), but its head doesn't say \"I/O\""));
    }
    large
}

/// Functions of a file in rustfmt's form and their lines from `fn` to the closing brace.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let words: Vec<&str> = trimmed.split_whitespace().collect();
        let Some(position) = words.iter().position(|w| *w == "fn") else { continue };
        let modifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\""];
        if !words[..position].iter().all(|w| modifiers.contains(w)) {
            continue;
        }
        let name =
            words.get(position + 1).map(|w| w.split(['(', '<']).next().unwrap_or(w).to_owned()).unwrap_or_default();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[at..]
            .iter()
            .position(|l| *l == close || l.trim_end().ends_with(';') && l.len() - l.trim_start().len() == indent);
        found.push((name, end.map_or(1, |e| e + 1)));
    }
    found
}

fn graph(faults: &mut Vec<String>) -> Result<()> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--quiet"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo metadata")?;
    let ours: BTreeSet<&str> =
        packages.iter().filter(|p| p["source"].is_null()).filter_map(|p| p["name"].as_str()).collect();
    for package in packages.iter().filter(|p| p["source"].is_null()) {
        directions(package, &ours, faults);
    }
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages.iter().filter(|p| !p["source"].is_null()) {
        let name = package["name"].as_str().unwrap_or_default();
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

fn directions(package: &Value, ours: &BTreeSet<&str>, faults: &mut Vec<String>) {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = DIRECTIONS.iter().find(|(n, _)| *n == name) else { return };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let to = dependency["name"].as_str().unwrap_or_default();
        let local = ours.contains(to) && dependency["source"].is_null();
        if local && dependency["kind"].is_null() && !allowed.contains(&to) {
            faults.push(format!("{name} must not depend on {to}: see ARCHITECTURE.md"));
        }
    }
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
    fn a_long_function_is_seen() {
        let text = format!(
            "impl A {{\n    pub async fn long(&self) {{\n{}    }}\n    fn short() {{}}\n}}\n",
            "        x();\n".repeat(80)
        );
        assert_eq!(functions(&text)[0], ("long".to_owned(), 82));
        assert_eq!(functions(&text)[1].1, 1, "{:?}", functions(&text));
    }

    #[test]
    fn a_file_that_listens_by_itself_is_seen() {
        let text = "//! I/O.\nuse tokio::net::{TcpListener, TcpStream};\n";
        let faults = |name: &str| {
            let mut faults = Vec::new();
            file_faults(name, text, &mut faults);
            faults.len()
        };
        assert_eq!((faults("node/proxy/src/health.rs"), faults("serving/src/listener.rs")), (1, 0));
    }

    #[test]
    fn licences_are_expressions() {
        assert!(licence_allowed("MIT OR GPL-3.0"));
        assert!(licence_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!licence_allowed("GPL-3.0"));
        assert!(!licence_allowed("MIT AND GPL-3.0"));
    }

    #[test]
    fn a_pure_file_may_not_touch_the_world() {
        let mut faults = Vec::new();
        file_faults("a/src/plan.rs", "//! Pure.\nuse std::fs;\n", &mut faults);
        file_faults("a/src/disk.rs", "//! The disk: I/O.\nuse std::fs;\n", &mut faults);
        file_faults("a/src/headless.rs", "fn a() {}\n", &mut faults);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn paths_are_from_the_root() {
        assert!(root().join("Cargo.toml").exists());
    }
}
