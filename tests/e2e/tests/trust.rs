//! Certificates in pods: trust bundles by name and by signer, as they come, change and are missing; and a pod's own, which
//! the test signs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Space, eventually, output};

pub const TESTS: &[Test] = &[
    ("a_pod_sees_trust_bundles_and_their_changes", bundles),
    ("a_pod_gets_a_key_and_the_certificate_that_its_signer_issues", certificates),
];

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

/// The request for a pod's certificate that waits for its signer.
fn request(space: &Space<'_>, pod: &str) -> Result<Value> {
    eventually(PATIENCE, || {
        let list = space.get("podcertificaterequests")?;
        let mut items = list["items"].as_array().into_iter().flatten();
        let open = |r: &&Value| r["spec"]["podName"] == pod && r["status"]["conditions"].is_null();
        items.find(open).cloned().with_context(|| format!("no request for {pod}: {list}"))
    })
}

/// A time as the API writes it; `when` as `date` takes it.
fn time(when: &str) -> Result<String> {
    let said = output(Command::new("date").args(["-u", "-d", when, "+%Y-%m-%dT%H:%M:%SZ"]), "")?.ok()?;
    Ok(said.trim().to_owned())
}

fn conclude(space: &Space<'_>, request: &Value, kind: &str, mut status: Value) -> Result<()> {
    let now = time("now")?;
    status["conditions"] =
        json!([{"type": kind, "status": "True", "reason": "Test", "message": "so", "lastTransitionTime": now}]);
    let name = request["metadata"]["name"].as_str().context("a name")?;
    let patch = json!({"status": status}).to_string();
    space.kubectl(&["patch", "podcertificaterequest", name, "--subresource=status", "--type=merge", "-p", &patch])?;
    Ok(())
}

/// Signs a request as its signer would: the certificate and its status.
fn sign(cluster: &Cluster, request: &Value) -> Result<(String, Value)> {
    let path = |name: &str| cluster.dir.join(name).display().to_string();
    let stub = request["spec"]["stubPKCS10Request"].as_str().context("a stub")?;
    output(Command::new("sh").args(["-c", &format!("base64 -d > {}", path("stub.der"))]), stub)?.ok()?;
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-req", "-inform", "DER", "-in", &path("stub.der"), "-days", "1", "-out", &path("leaf.crt")]);
    openssl.args(["-CA", &path("pods.crt"), "-CAkey", &path("pods.key"), "-CAcreateserial"]);
    output(&mut openssl, "")?.ok()?;
    let leaf = fs::read_to_string(path("leaf.crt"))?;
    let date = |which: &str| {
        let said =
            output(Command::new("openssl").args(["x509", "-in", &path("leaf.crt"), "-noout", which]), "")?.ok()?;
        time(said.trim().split_once('=').context("a date")?.1)
    };
    let status = json!({"certificateChain": leaf, "notBefore": date("-startdate")?, "notAfter": date("-enddate")?,
        "beginRefreshAt": time("+12 hours")?});
    Ok((leaf, status))
}

fn certificates(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("pod-certificates")?;
    fs::write(cluster.dir.join("pods.crt"), ca(cluster, "pods")?)?;
    let source = |kind: &str| {
        json!([{"podCertificate": {"signerName": SIGNER, "keyType": kind, "maxExpirationSeconds": 172_800,
            "credentialBundlePath": "both.pem", "keyPath": "key.pem", "certificateChainPath": "chain.pem",
            "userAnnotations": {"example.com/for": "e2e"}}}])
    };
    for kind in ["ECDSAP256", "RSA3072", "ED25519"] {
        let name = kind.to_lowercase();
        pod(&space, &name, &source(kind))?;
        let request = request(&space, &name)?;
        ensure!(request["spec"]["unverifiedUserAnnotations"]["example.com/for"] == "e2e", "{request:#}");
        let (leaf, status) = sign(cluster, &request)?;
        conclude(&space, &request, "Issued", status)?;
        space.ready(&name)?;
        shows(&space, &name, "chain.pem", &[&leaf])?;
        let key = space.kubectl(&["exec", &name, "--", "cat", "/trust/key.pem"])?;
        shows(&space, &name, "both.pem", &[&key, &leaf])?;
        let of_key = output(Command::new("openssl").args(["pkey", "-pubout"]), &key)?.ok()?;
        let of_leaf = output(Command::new("openssl").args(["x509", "-noout", "-pubkey"]), &leaf)?.ok()?;
        ensure!(of_key == of_leaf, "{kind}: the key is the certificate's");
    }
    pod(&space, "denied", &source("ED25519"))?;
    conclude(&space, &request(&space, "denied")?, "Denied", json!({}))?;
    eventually(PATIENCE, || {
        let about = ["--field-selector", "involvedObject.name=denied,reason=Denied"];
        let said = space.kubectl(&[&["get", "events", "-o", "jsonpath={.items[*].message}"], &about[..]].concat())?;
        ensure!(said.contains("was denied, reason=\"Test\", message=\"so\""), "{said}");
        Ok(())
    })
}
