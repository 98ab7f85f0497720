//! Files that people write and programs edit: kubeconfigs.

use std::collections::BTreeMap;

use kube::config::Kubeconfig;
use serde_json::Value;

use super::objects::POD;
use crate::input::{text, texts};
use crate::table::{DEEP, Target, YAML};

pub const TARGETS: &[Target] = &[Target {
    name: "kubeconfig",
    what: "kubeconfigs, as every component reads them",
    run: kubeconfig,
    seeds: kubeconfigs,
    memory: 3000,
    nests: YAML,
    depth: DEEP,
}];

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\n# a comment\nclusters:\n- name: a\n  cluster:\n    server: https://127.0.0.1:6443\n    certificate-authority-data: YQ==\n\
    users:\n- name: a\n  user: {token: x}\ncontexts:\n- context: {cluster: a, user: a, namespace: n}\n  name: a\ncurrent-context: a\npreferences: {}\n";

fn kubeconfigs() -> Vec<Vec<u8>> {
    texts(&[KUBECONFIG, "clusters: null\nusers: []\n", POD])
}

fn kubeconfig(input: &[u8]) {
    let text = text(input);
    let _ = Kubeconfig::from_yaml(&text);
    let _ = serde_saphyr::from_str::<Value>(&text);
    let _ = serde_saphyr::from_str::<BTreeMap<String, Value>>(&text);
}
