//! `up --hardened` and `check --cis`: a hardened cluster passes what it claims, says what it doesn't, and still runs charts;
//! an ordinary one fails by substance what it doesn't do.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, output};

pub const TESTS: &[Test] = &[
    ("check_cis_tells_what_an_ordinary_cluster_does_not_do", ordinary),
    ("a_hardened_cluster_passes_what_it_claims_and_runs_charts", hardened),
    ("secrets_are_sealed_when_a_cluster_is_hardened_and_read_when_it_is_taken_back", sealed),
];

/// Checks that a hardened cluster fails: nothing is there yet that they could be about.
const NOT_YET: [&str; 1] = ["5.3.1"];
/// Checks that `--hardened` turns from FAIL to PASS.
const TURNED: [&str; 24] = [
    "1.2.3", "1.2.9", "1.2.16", "1.2.17", "1.2.18", "1.2.19", "1.2.27", "1.2.28", "1.2.30", "3.2.1", "3.2.2", "4.2.13",
    "4.2.14", "5.1.5", "5.2.1", "5.2.2", "5.2.3", "5.2.4", "5.2.5", "5.2.8", "5.2.9", "5.2.12", "5.2.13", "5.6.2",
];

fn states(own: &Cluster) -> Result<BTreeMap<String, Value>> {
    let said: Value = serde_json::from_str(&own.run(&["check", "--cis", "-o", "json"])?.ok()?)?;
    let checks = said["checks"].as_array().cloned().unwrap_or_default();
    ensure!(checks.len() > 110, "{said:#}");
    Ok(checks.into_iter().map(|c| (c["id"].as_str().unwrap_or_default().to_owned(), c)).collect())
}

fn failed(states: &BTreeMap<String, Value>) -> Vec<&str> {
    states.iter().filter(|(_, c)| c["state"] == "FAIL").map(|(id, _)| id.as_str()).collect()
}

fn ordinary(cluster: &Cluster) -> Result<()> {
    let states = states(cluster)?;
    for id in TURNED.iter().chain(&NOT_YET) {
        let check = states.get(*id).with_context(|| (*id).to_owned())?;
        ensure!(check["state"] == "FAIL" && check["set"].is_string(), "{check:#}");
    }
    for id in ["1.1.9", "1.1.11", "1.1.13", "1.1.21", "1.2.6", "1.2.15", "1.3.7", "2.1", "4.2.1", "4.2.2", "4.3.1"] {
        ensure!(states.get(id).is_some_and(|c| c["state"] == "PASS"), "{id}: {:#?}", states.get(id));
    }
    let table = cluster.run(&["check", "--cis"])?.ok()?;
    ensure!(table.contains("[FAIL]   5.3.1") && table.contains(" FAIL, "), "{table}");
    let strict = cluster.run(&["check", "--cis", "--exit-code", "3"])?;
    ensure!(strict.code == 3 && strict.stderr.contains("checks failed"), "{strict:?}");
    Ok(())
}

/// All that the cluster keeps is closed to others, whatever the umask of who called: but what containers read.
fn closed(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let data = entry.path().symlink_metadata()?;
        let mode = data.permissions().mode() & 0o777;
        let containers = ["runtime", "kubelet", "pod-logs"].iter().any(|name| entry.file_name() == *name);
        ensure!(containers || mode & 0o077 == 0, "{} has {mode:o}", entry.path().display());
        if data.is_dir() && !containers {
            closed(&entry.path())?;
        }
    }
    Ok(())
}

/// The Secret as etcd holds it.
fn stored(own: &Cluster, name: &str) -> Result<String> {
    own.etcdctl(&["get", "--print-value-only", &format!("/registry/secrets/default/{name}")], "")
}

/// `opensesame`.
const WORD: &str = "b3BlbnNlc2FtZQ==";

/// A cluster that is there already is hardened, and taken back: its Secrets are sealed, and read all the while.
fn sealed(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("sealed")?;
    let make = |name: &str| own.kubectl(&["create", "secret", "generic", name, "--from-literal=word=opensesame"]);
    let read = |name: &str| own.kubectl(&["get", "secret", name, "-o", "jsonpath={.data.word}"]);
    own.up()?;
    make("before")?;
    ensure!(stored(&own, "before")?.contains(WORD), "plain");
    own.run(&["down"])?.ok()?;
    let mut up = own.command(&["up", "--hardened"]);
    output(&mut up, "")?.ok()?;
    make("after")?;
    for name in ["before", "after"] {
        let raw = stored(&own, name)?;
        ensure!(raw.starts_with("k8s:enc:secretbox:v1:key1:") && !raw.contains(WORD), "{name}: {raw:?}");
        ensure!(read(name)? == WORD, "{name}");
    }
    let key = std::fs::read(own.data_dir().join("security/encryption.key"))?;
    let log = std::fs::read_to_string(own.data_dir().join("audit/audit.log"))?;
    let made =
        |line: &str| line.contains(r#""verb":"create""#) && line.contains("/secrets?") && line.contains("kubectl");
    ensure!(log.lines().any(made) && !log.contains("opensesame") && !log.contains(WORD), "{log}");
    own.run(&["down"])?.ok()?;
    let file = own.dir.join("config.yaml");
    std::fs::write(&file, "hardened: false\n")?;
    own.run(&["up", "--config", &file.display().to_string()])?.ok()?;
    make("open")?;
    ensure!(stored(&own, "open")?.contains(WORD), "stored as they are again");
    for name in ["before", "after", "open"] {
        ensure!(read(name)? == WORD, "{name} is read");
    }
    ensure!(std::fs::read(own.data_dir().join("security/encryption.key"))? == key, "the key stays");
    own.run(&["reset", "--yes"])?.ok()?;
    ensure!(!own.data_dir().exists(), "and goes with the cluster");
    Ok(())
}

fn hardened(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("hardened")?;
    let up = own.command(&["up", "--hardened"]);
    let words: Vec<_> = std::iter::once(up.get_program()).chain(up.get_args()).map(|w| w.to_string_lossy()).collect();
    let mut careless = own.program("sh".as_ref());
    careless.args(["-c", &format!("umask 000; exec {}", words[words.len() - 7..].join(" "))]);
    careless.env("HOME", own.home()).env_remove("KUBECONFIG");
    let said = output(&mut careless, "")?.ok()?;
    ensure!(said.matches("NetworkPolicy objects are accepted, but not enforced").count() == 1, "{said}");
    closed(&own.data_dir())?;
    let before = states(&own)?;
    for id in TURNED {
        ensure!(before.get(id).is_some_and(|c| c["state"] == "PASS"), "{id}: {:#?}", before.get(id));
    }
    ensure!(failed(&before) == NOT_YET, "{:?}", failed(&before));
    own.import_busybox(BUSYBOX)?;
    let refused = own.kubectl_with(&["run", "root", "--image", BUSYBOX, "--privileged"], "")?.fails()?;
    ensure!(refused.contains("violates PodSecurity \"baseline:latest\": privileged"), "{refused}");
    let warned = own.kubectl_with(&["run", "plain", "--image", BUSYBOX, "--", "sleep", "1000"], "")?;
    ensure!(
        warned.code == 0 && warned.stderr.contains("would violate PodSecurity \"restricted:latest\""),
        "{warned:?}"
    );
    let plain = own.ready("plain")?;
    ensure!(!plain["spec"]["volumes"].to_string().contains("serviceAccountToken"), "no token: {plain:#}");
    let exempt = ["run", "host", "-n", "kube-system", "--image", BUSYBOX, "--privileged", "--", "sleep", "1000"];
    own.kubectl(&exempt)?;
    own.kubectl(&["delete", "pod", "host", "-n", "kube-system", "--now"])?;
    own.kubectl(&["delete", "pod", "plain", "--now"])?;
    // A real chart's whole life happens on it: hooks, rights, a service account, volumes, a custom resource.
    crate::helm::life(&own)?;
    // It is remembered, and can be taken back.
    own.run(&["down"])?.ok()?;
    own.up()?;
    ensure!(own.kubectl_with(&["run", "root", "--image", BUSYBOX, "--privileged"], "")?.code != 0, "remembered");
    let file = own.dir.join("config.yaml");
    std::fs::write(&file, "hardened: false\n")?;
    let running = own.run(&["up", "--config", &file.display().to_string()])?;
    ensure!(running.code == 2 && running.stderr.contains("ferrokube down"), "{running:?}");
    Ok(())
}
