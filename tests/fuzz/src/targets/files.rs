//! Files that people write and programs edit: kubeconfigs, the description of registries.

use std::collections::BTreeMap;

use kube::config::Kubeconfig;
use serde_json::Value;

use super::objects::POD;
use crate::input::{text, texts};
use crate::table::{DEEP, Target, YAML};

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
