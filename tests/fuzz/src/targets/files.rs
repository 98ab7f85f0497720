//! Files that people write and programs edit: kubeconfigs, the description of registries; and what informers kept.

use std::collections::BTreeMap;
use std::path::Path;

use client::Item;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::config::Kubeconfig;
use serde_json::Value;

use super::objects::POD;
use crate::input::{text, texts};
use crate::table::{DEEP, JSON, Target, YAML};

pub const TARGETS: &[Target] = &[
    Target {
        name: "kubeconfig",
        what: "kubeconfigs, as every component reads them",
        run: kubeconfig,
        seeds: kubeconfigs,
        memory: 3000,
        nests: YAML,
        depth: DEEP,
    },
    Target {
        name: "registries",
        what: "registries.yaml: mirrors, expressions, credentials",
        run: registries,
        seeds: descriptions,
        // An expression of a few bytes may take what is allowed of one.
        memory: 30_000,
        nests: YAML,
        depth: DEEP,
    },
    Target {
        name: "last-known",
        what: "what an informer wrote down of the API server's objects",
        run: last_known,
        seeds: known,
        memory: 600,
        nests: JSON,
        depth: DEEP,
    },
];

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\n# a comment\nclusters:\n- name: a\n  cluster:\n    server: https://127.0.0.1:6443\n    certificate-authority-data: YQ==\n\
    users:\n- name: a\n  user: {token: x}\ncontexts:\n- context: {cluster: a, user: a, namespace: n}\n  name: a\ncurrent-context: a\npreferences: {}\n";

fn kubeconfigs() -> Vec<Vec<u8>> {
    texts(&[KUBECONFIG, "clusters: null\nusers: []\n", POD])
}

const REGISTRIES: &str = "mirrors:\n  docker.io:\n    endpoint: ['https://a:5000', 'http://u:p@b/v2/']\n    \
    rewrite: {'^library/(.*)': 'x/$1', 'a{3}|[b-d]+?': y}\n  '*': {endpoint: [c]}\n\
    configs:\n  a:5000: {auth: {username: u, password: p}, tls: {ca_file: /a, insecure_skip_verify: true}}\n  \
    b: {auth: {auth: dTpw}}\n  c: {auth: {identity_token: t}}\n";

fn descriptions() -> Vec<Vec<u8>> {
    texts(&[REGISTRIES, "mirrors:\nconfigs: {}\n", KUBECONFIG])
}

/// What is asked of a description never fails, whatever it says.
fn registries(input: &[u8]) {
    if let Ok(all) = runtime::images::Registries::parse(&text(input)) {
        for host in ["docker.io", "a:5000", ""] {
            let _ = all.host(host);
            let _ = all.mirror(host).map(|mirror| mirror.rewrite("library/busybox"));
        }
    }
}

fn kubeconfig(input: &[u8]) {
    let text = text(input);
    let _ = Kubeconfig::from_yaml(&text);
    let _ = serde_saphyr::from_str::<Value>(&text);
    let _ = serde_saphyr::from_str::<BTreeMap<String, Value>>(&text);
}

fn known() -> Vec<Vec<u8>> {
    let line = POD.replace('\n', " ");
    texts(&[&format!("{line}\n{line}\n"), &format!("{line}\n{{\"metadata\":{{\"name\":7}}}}\nx\n\n{{}}"), "null\n[]\n"])
}

fn last_known(input: &[u8]) {
    let file = Path::new("pods.jsonl");
    let lines = || input.split(|byte| *byte == b'\n');
    let items: Vec<Item<Pod>> = client::last_known(input, file);
    assert!(items.len() <= lines().count(), "an object a line at most");
    for item in items {
        let _ = item.read();
    }
    // As it is written down: nothing is said twice.
    let values = lines().filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let written: String = values.map(|value| format!("{value}\n")).collect();
    for item in client::last_known::<Pod>(written.as_bytes(), file) {
        let names = (item.meta().name.clone(), item.meta().namespace.clone());
        if let Ok(pod) = item.read() {
            assert_eq!(
                (pod.metadata.name, pod.metadata.namespace),
                names,
                "what is known of it before it is read is so"
            );
        }
    }
}
