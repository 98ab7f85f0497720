//! What a crate knows nothing of: the other half of ARCHITECTURE.md's invariants of each crate. A crate without a row here
//! fails, so that a new one is thought about. Called by `tidy`.

use serde_json::Value;

use super::{ABOVE, Source, name, ours};
use crate::run::root;

/// Anything of tokio, files and network.
const OUTSIDE: &[&str] = &["tokio::", "std::fs", "std::net::Tcp", "std::net::Udp"];
/// The objects of the API, and clients for them.
const KUBERNETES: &[&str] = &["k8s_openapi::", "kube::"];
/// The kernel.
const KERNEL: &[&str] = &["linux::", "rustix::", "libc::"];
/// Other people's programs.
const PROGRAMS: &[&str] = &["std::process::Command", "tokio::process"];

/// Paths that no production file of the crate names.
const ABSENT: &[(&str, &[&[&str]])] = &[
    ("meta", &[OUTSIDE, KUBERNETES, KERNEL, PROGRAMS]),
    ("facts", &[OUTSIDE, &["kube::"], KERNEL, PROGRAMS]),
    ("wire", &[OUTSIDE, KUBERNETES, KERNEL, PROGRAMS]),
    ("descriptions", &[OUTSIDE, KERNEL, PROGRAMS]),
    ("telemetry", &[&["tokio::", "std::net::"], KUBERNETES, KERNEL, PROGRAMS]),
    ("schema", &[OUTSIDE, KUBERNETES, KERNEL, PROGRAMS]),
    ("object", &[OUTSIDE, KUBERNETES, KERNEL, PROGRAMS]),
    ("kinds", &[OUTSIDE, KUBERNETES, KERNEL, PROGRAMS]),
    ("codec", &[OUTSIDE, KUBERNETES, KERNEL, PROGRAMS]),
    ("linux", &[&["tokio::"], KUBERNETES]),
    ("serving", &[KUBERNETES, PROGRAMS]),
    ("client", &[&["linux::"], PROGRAMS]),
    ("etcd", &[KUBERNETES, PROGRAMS]),
    ("apiserver", &[KUBERNETES, &["linux::"], PROGRAMS]),
    ("controller-manager", &[KERNEL, &["std::fs"], PROGRAMS]),
    ("scheduler", &[KERNEL, &["std::fs", "std::net"], PROGRAMS]),
    ("dns", &[PROGRAMS]),
    ("kubelet", &[&["etcd::"], PROGRAMS]),
    ("cni", &[KUBERNETES, &["tokio::"]]),
    ("pod-network", &[KUBERNETES, &["tokio::"]]),
    ("flannel", &[PROGRAMS]),
    ("bgp", &[OUTSIDE, KUBERNETES, KERNEL, PROGRAMS]),
    ("bgpd", &[KUBERNETES, PROGRAMS]),
    ("announcer", &[&["std::fs", "nft::"], PROGRAMS]),
    ("runtime", &[KUBERNETES]),
    ("proxy", &[&["std::fs"], PROGRAMS]),
];

pub fn faults(packages: &[Value], sources: &[Source], faults: &mut Vec<String>) {
    for package in ours(packages).filter(|package| !ABOVE.contains(&name(package))) {
        let crate_name = name(package);
        let Some((_, absent)) = ABSENT.iter().find(|(n, _)| *n == crate_name) else {
            faults.push(format!("{crate_name}: has no row in xtask/src/tidy/absent.rs: what does it know nothing of?"));
            continue;
        };
        let folder = folder(package);
        for source in sources.iter().filter(|s| s.name.starts_with(&folder)) {
            let text = production(source);
            let found = absent.iter().flat_map(|words| words.iter()).filter(|word| names(text, word));
            faults.extend(found.map(|word| format!("{}: {crate_name} knows nothing of {word}", source.name)));
        }
    }
}

/// Where the sources of a package are, from the root.
fn folder(package: &Value) -> String {
    let manifest = package["manifest_path"].as_str().unwrap_or_default();
    let folder = manifest.strip_suffix("Cargo.toml").unwrap_or_default();
    let root = format!("{}/", root().display());
    format!("{}src/", folder.strip_prefix(&root).unwrap_or(folder))
}

/// What is not for tests.
pub fn production(source: &Source) -> &str {
    let tests = ["/tests/", "/tests.rs", "_tests.rs"];
    if tests.iter().any(|t| source.name.contains(t)) {
        return "";
    }
    let heads = ["", "pub ", "pub(super) ", "pub(crate) "].map(|seen| format!("#[cfg(test)]\n{seen}mod tests {{"));
    let end = heads.iter().filter_map(|head| source.text.find(head)).min();
    &source.text[..end.unwrap_or(source.text.len())]
}

/// Whether a line that is no comment names a path.
fn names(text: &str, path: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let before = code.flat_map(|line| line.match_indices(path).map(move |(at, _)| &line[..at]));
    before.into_iter().any(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_crate_that_names_what_it_should_not_know_is_seen() {
        let package = |name: &str| {
            let manifest = root().join("control-plane").join(name).join("Cargo.toml");
            json!({"name": name, "manifest_path": manifest})
        };
        let source = |text: &str| [Source { name: "control-plane/etcd/src/mvcc.rs".into(), text: text.into() }];
        let said = |package: Value, text: &str| {
            let mut said = Vec::new();
            faults(&[package], &source(text), &mut said);
            said
        };
        assert_eq!(said(package("etcd"), "//! kube::Api is not here.\nuse kubelike::x;\n"), [""; 0]);
        assert_eq!(said(package("etcd"), "use k8s_openapi::api;\n").len(), 1);
        assert!(said(package("novel"), "")[0].contains("has no row"));
    }
}
