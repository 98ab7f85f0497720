//! Certificates in volumes: trust bundles that come late and change; a pod's own, from request to renewal.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::kubelet::{Node, path};

const BUNDLES: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/podcertificaterequests";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A pod with one projected volume of these sources, and where its files are.
async fn create(node: &Node, name: &str, sources: Value) -> PathBuf {
    let volumes = json!([{"name": "all", "projected": {"sources": sources}}]);
    let containers = json!([{"name": "c", "image": "i", "volumeMounts": [{"name": "all", "mountPath": "/all"}]}]);
    node.create(name, json!({"serviceAccountName": "default", "containers": containers, "volumes": volumes})).await;
    node.config.root_dir.join(format!("pods/{name}-uid/volumes/kubernetes.io~projected/all"))
}

async fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok(), "{what}");
}

fn read(file: PathBuf) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

fn certificate(content: &str) -> String {
    meta::pem::encode("CERTIFICATE", content.as_bytes())
}

#[tokio::test]
async fn trust_bundles_come_and_change() {
    if !is_root() {
        return;
    }
    let node = Node::start(|_, _| {}).await;
    let bundle = |name: &str, signer: &str, contents: &[&str]| {
        let text: String = contents.iter().map(|c| certificate(c)).collect();
        let spec = json!({"signerName": signer, "trustBundle": text});
        node.api
            .put(&format!("{BUNDLES}/{name}"), json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec}));
    };
    bundle("x.y:s:1", "x.y/s", &["2", "1"]);
    bundle("x.y:o:1", "x.y/o", &["9"]);
    let dir = create(
        &node,
        "t",
        json!([
            {"clusterTrustBundle": {"name": "late", "path": "late.pem"}},
            {"clusterTrustBundle": {"signerName": "x.y/s", "labelSelector": {"matchLabels": {"a": "b"}}, "path": "d/s.pem"}},
            {"clusterTrustBundle": {"name": "none", "path": "none.pem", "optional": true}},
        ]),
    )
    .await;
    let missing = "FailedMount: MountVolume.SetUp failed for volume \"all\" : while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"late\" not found";
    wait("what is missing is said", || node.api.events().iter().any(|e| e == missing)).await;
    bundle("late", "", &["3"]);
    node.until_ready("t").await;
    assert_eq!(read(dir.join("late.pem")), Some(certificate("3")));
    assert_eq!(read(dir.join("d/s.pem")), Some(certificate("1") + &certificate("2")));
    assert_eq!(read(dir.join("none.pem")), Some(String::new()));
    bundle("x.y:s:2", "x.y/s", &["0"]);
    bundle("none", "", &["4"]);
    wait("a change reaches files", || {
        read(dir.join("d/s.pem")) == Some(["0", "1", "2"].map(certificate).concat())
            && read(dir.join("none.pem")) == Some(certificate("4"))
    })
    .await;
    node.delete("t");
    node.until_gone("t").await;
}

/// The request of a pod that waits for its signer.
async fn pending(node: &Node) -> (String, Value) {
    let open = || node.api.all(REQUESTS).into_iter().find(|(_, request)| request["status"].is_null());
    wait("a request", || open().is_some()).await;
    open().unwrap()
}

fn conclude(node: &Node, path: &str, kind: &str, chain: &str, refresh: SignedDuration) {
    let at = |span: SignedDuration| (Timestamp::now() + span).to_string();
    let condition =
        json!({"type": kind, "status": "True", "reason": "Why", "message": "so", "lastTransitionTime": at(refresh)});
    node.api.change(path, |request| {
        request["status"] = json!({"conditions": [condition], "certificateChain": chain, "beginRefreshAt": at(refresh),
            "notBefore": at(SignedDuration::ZERO), "notAfter": at(SignedDuration::from_hours(2))});
    });
}

#[tokio::test]
async fn a_pod_gets_a_certificate_and_another() {
    if !is_root() {
        return;
    }
    // This takes longer than a host that is short of something lets pods live.
    let node = Node::start(|config, _| config.eviction.hard.clear()).await;
    let account = "/api/v1/namespaces/ns/serviceaccounts/default";
    node.api.put(account, json!({"metadata": {"name": "default", "namespace": "ns", "uid": "account-uid"}}));
    let source = |path: &str| {
        json!({"podCertificate": {"signerName": "x.y/s", "keyType": "ECDSAP256", "maxExpirationSeconds": 7200,
            "credentialBundlePath": path, "keyPath": "key.pem", "certificateChainPath": "chain.pem"}})
    };
    let dir = create(&node, "c", json!([source("both.pem")])).await;
    let (first, request) = pending(&node).await;
    let spec = &request["spec"];
    let names = ["podName", "podUID", "serviceAccountName", "serviceAccountUID", "nodeName", "signerName"];
    assert_eq!(names.map(|name| &spec[name]), ["c", "c-uid", "default", "account-uid", "n1", "x.y/s"]);
    let waits = "FailedMount: MountVolume.SetUp failed for volume \"all\" : credential bundle is not issued yet";
    wait("that it waits is said", || node.api.events().iter().any(|e| e == waits)).await;
    // The signer wants it renewed at once.
    conclude(&node, &first, "Issued", &format!("# leaf\n{}", certificate("1")), -SignedDuration::from_hours(1));
    node.until_ready("c").await;
    let key = read(dir.join("key.pem")).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{key}");
    assert_eq!(read(dir.join("chain.pem")), Some(certificate("1")));
    assert_eq!(read(dir.join("both.pem")), Some(format!("{key}{}", certificate("1"))));
    let (second, request) = pending(&node).await;
    assert_ne!(request["spec"]["stubPKCS10Request"], spec["stubPKCS10Request"], "a new key");
    assert_eq!(read(dir.join("key.pem")), Some(key.clone()), "the old one serves until there is a new one");
    conclude(&node, &second, "Issued", &certificate("2"), SignedDuration::from_hours(1));
    wait("the new one", || read(dir.join("chain.pem")) == Some(certificate("2"))).await;
    assert_ne!(read(dir.join("key.pem")), Some(key));

    create(&node, "d", json!([source("both.pem")])).await;
    let (third, _) = pending(&node).await;
    conclude(&node, &third, "Denied", "", SignedDuration::ZERO);
    let name = third.rsplit('/').next().unwrap();
    let denied = format!("Denied: PodCertificateRequest ns/{name} was denied, reason=\"Why\", message=\"so\"");
    wait("a refusal is said", || node.api.events().contains(&denied)).await;
    assert!(node.api.get(&path("d")).is_some_and(|p| p["status"]["phase"] == "Pending"));
    for name in ["c", "d"] {
        node.delete(name);
        node.until_gone(name).await;
    }
}
