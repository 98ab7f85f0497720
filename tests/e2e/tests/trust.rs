//! Certificates in pods: trust bundles by name and by signer, as they come, change and are missing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Space, eventually, output};

pub const TESTS: &[Test] = &[("a_pod_sees_trust_bundles_and_their_changes", bundles)];

const PATIENCE: Duration = Duration::from_secs(30);
const SIGNER: &str = "example.com/e2e";

/// A new CA certificate as PEM.
fn ca(cluster: &Cluster, name: &str) -> Result<String> {
    let key = cluster.dir.join(format!("{name}.key")).display().to_string();
    let subject = format!("/CN={name}");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", &subject, "-keyout", &key]);
    output(&mut openssl, "")?.ok()
}

fn bundle(cluster: &Cluster, name: &str, signer: Option<&str>, text: &str) -> Result<()> {
    let mut object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name, "labels": {"tier": "live"}}, "spec": {"trustBundle": text},
    });
    if let Some(signer) = signer {
        object["spec"]["signerName"] = json!(signer);
    }
    cluster.apply(&object.to_string())?;
    Ok(())
}

/// A pod that mounts these sources at `/trust`.
fn pod(space: &Space<'_>, name: &str, sources: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "1000"],
                "volumeMounts": [{"name": "trust", "mountPath": "/trust"}]}],
            "volumes": [{"name": "trust", "projected": {"sources": sources}}],
        },
    });
    let said = space.kubectl_with(&["apply", "-f", "-"], &object.to_string())?;
    ensure!(!said.stderr.contains("accepted and stored"), "no warning any more: {said:?}");
    said.ok()?;
    Ok(())
}

/// The file holds these certificates and nothing else.
fn shows(space: &Space<'_>, pod: &str, file: &str, wanted: &[&str]) -> Result<()> {
    eventually(PATIENCE, || {
        let text = space.kubectl(&["exec", pod, "--", "cat", &format!("/trust/{file}")])?;
        let all = wanted.iter().all(|certificate| text.contains(certificate.trim()));
        let lengths: usize = wanted.iter().map(|certificate| certificate.trim().len() + 1).sum();
        ensure!(all && text.len() == lengths, "{file}: {text}");
        Ok(())
    })
}

fn bundles(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("trust")?;
    let (one, two, three) = (ca(cluster, "one")?, ca(cluster, "two")?, ca(cluster, "three")?);
    bundle(cluster, "e2e-named", None, &format!("words around\n{one}more words\n"))?;
    bundle(cluster, "example.com:e2e:a", Some(SIGNER), &format!("{one}{two}"))?;
    let live = json!({"matchLabels": {"tier": "live"}});
    let sources = json!([
        {"clusterTrustBundle": {"name": "e2e-named", "path": "named.pem"}},
        {"clusterTrustBundle": {"signerName": SIGNER, "labelSelector": live, "path": "signed/ca.pem"}},
        {"clusterTrustBundle": {"name": "e2e-missing", "path": "missing.pem", "optional": true}},
        {"clusterTrustBundle": {"signerName": SIGNER, "path": "unset.pem", "optional": true}},
    ]);
    pod(&space, "reader", &sources)?;
    space.ready("reader")?;
    shows(&space, "reader", "named.pem", &[&one])?;
    shows(&space, "reader", "signed/ca.pem", &[&one, &two])?;
    shows(&space, "reader", "missing.pem", &[])?;
    shows(&space, "reader", "unset.pem", &[])?;

    bundle(cluster, "e2e-named", None, &three)?;
    bundle(cluster, "example.com:e2e:b", Some(SIGNER), &format!("{two}{three}"))?;
    bundle(cluster, "e2e-missing", None, &two)?;
    shows(&space, "reader", "named.pem", &[&three])?;
    shows(&space, "reader", "signed/ca.pem", &[&one, &two, &three])?;
    shows(&space, "reader", "missing.pem", &[&two])?;
    cluster.kubectl(&["label", "clustertrustbundle", "example.com:e2e:a", "tier=old", "--overwrite"])?;
    shows(&space, "reader", "signed/ca.pem", &[&two, &three])?;

    // What must be there is waited for, and said.
    pod(&space, "waits", &json!([{"clusterTrustBundle": {"name": "e2e-late", "path": "late.pem"}}]))?;
    eventually(PATIENCE, || {
        let about = ["--field-selector", "involvedObject.name=waits,reason=FailedMount"];
        let said = space.kubectl(&[&["get", "events", "-o", "jsonpath={.items[*].message}"], &about[..]].concat())?;
        ensure!(said.contains("\"trust\"") && said.contains("\"e2e-late\" not found"), "{said}");
        Ok(())
    })?;
    bundle(cluster, "e2e-late", None, &one)?;
    space.ready("waits")?;
    shows(&space, "waits", "late.pem", &[&one])?;
    let all = ["e2e-named", "e2e-missing", "e2e-late", "example.com:e2e:a", "example.com:e2e:b"];
    cluster.kubectl(&[&["delete", "clustertrustbundle"], &all[..]].concat())?;
    Ok(())
}
