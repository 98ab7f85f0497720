//! `node`: the nodes of this host. What is to run is written into the record, and the daemon's keeper starts it; what is
//! to end is ended here, so that it ends though the daemon doesn't run. I/O: the record, processes, the API.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli::{Node, Output};
use crate::commands::down::POD_GRACE;
use crate::commands::misc::{no_cluster, print};
use crate::component;
use crate::config::record::{self, Record};
use crate::config::{Host, Options, Roles, Which, pool};
use crate::fault::{Fault, best_effort};
use crate::nodes::life::{self, State};
use crate::nodes::{home, images, underlay, wish};
use crate::preflight;
use crate::process::Daemon;
use crate::progress::duration;

/// A node's own end after its pods.
const NODE_GRACE: Duration = Duration::from_secs(2);
/// An API server that doesn't answer a list by then is not asked for more.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(which: &Which, command: &Node) -> Result<()> {
    preflight::root("node")?;
    let host = which.load()?.ok_or_else(|| no_cluster(which))?;
    if !host.roles().has(Roles::CONTROL_PLANE) {
        let sentence =
            "this host has no part of the control plane: its nodes are listed and made where the API server is";
        return Err(Fault::failed(sentence).into());
    }
    match command {
        Node::Ls { output } => ls(&host, *output),
        Node::Add { node, label, taint } => add(&host, node.as_deref(), label, taint),
        Node::Rm { node } => rm(&host, node),
        Node::Stop { node } => stop(&host, node),
        Node::Start { node } => start(&host, node),
    }
}

fn runs(host: &Host) -> bool {
    Daemon::any(host).is_some()
}

/// Asks the API server.
fn ask<T>(host: &Host, question: impl AsyncFnOnce(Api<Object>) -> Result<T, kube::Error>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = client::from_kubeconfig(&host.kubeconfig()).await?;
        let answer = tokio::time::timeout(PATIENCE, question(Api::all(client))).await;
        Ok(answer.with_context(|| format!("the API server doesn't answer within {PATIENCE:?}"))??)
    })
}

fn add(host: &Host, name: Option<&str>, labels: &[String], taints: &[String]) -> Result<()> {
    let said = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let mut options = Options::default();
    (options.host.node_label, options.host.node_taint) = (said(labels), said(taints));
    wish::own_network(host)?;
    let wrong = |why: String| Fault::usage(why.replace("--node-label", "--label").replace("--node-taint", "--taint"));
    options.checked().map_err(wrong)?;
    let mut kubelet = kubelet::config::Config::new("");
    component::kubelet::taints(&mut kubelet, taints).map_err(|fault| wrong(fault.sentence))?;
    if let Some(name) = name.filter(|_| runs(host)) {
        let there = ask(host, async |nodes: Api<Object>| nodes.get_opt(name).await)?;
        if there.is_some() {
            let sentence = format!("the cluster has a node {name:?} already: choose another name, or remove it first");
            return Err(Fault::failed(sentence).into());
        }
    }
    let lock = record::lock(host)?;
    let mut record = match record::read(host)? {
        Some(record) => record,
        None => underlay::choose(host, None)?,
    };
    pool::beside_nodes(&host.cluster, &record).map_err(Fault::usage)?;
    let name = record.add(&host.node_name, name, labels, taints)?;
    record::write(host, &record)?;
    drop(lock);
    if !runs(host) {
        return print(&format!("The node {name} starts with the cluster: `ferrokube up`\n"));
    }
    let took = wish::wait_for(host, &name)?;
    print(&format!("The node {name} is Ready ({}).\n", duration(took)))
}

/// Writes down whether a node is to run; answers whether that is new.
fn want(host: &Host, name: &str, run: bool) -> Result<bool> {
    let _lock = record::lock(host)?;
    let mut record = known(host)?;
    let node = record.named(name).map_err(|fault| own(host, name).unwrap_or(fault))?;
    let new = std::mem::replace(&mut node.stopped, !run) == run;
    if new {
        record::write(host, &record)?;
    }
    Ok(new)
}

fn known(host: &Host) -> Result<Record> {
    Ok(record::read(host)?.unwrap_or_else(|| Record::new(host.cluster.pod_cidr.primary())))
}

/// The host's own node is none of the further ones.
fn own(host: &Host, name: &str) -> Option<Fault> {
    let sentence =
        "that is this host's own node, which is in the cluster's daemon: `down`, `up` and `reset` are for it";
    (name == host.node_name).then(|| Fault::usage(sentence))
}

fn stop(host: &Host, name: &str) -> Result<()> {
    let began = Instant::now();
    want(host, name, false)?;
    if life::end(host, name, Signal::TERM, POD_GRACE + NODE_GRACE)? {
        return print(&format!("The node {name} is stopped ({}).\n", duration(began.elapsed())));
    }
    print(&format!("The node {name} was not running.\n"))
}

fn start(host: &Host, name: &str) -> Result<()> {
    wish::forget_failure(host, name);
    if !want(host, name, true)? && State::of(host, name) == State::Running {
        return print(&format!("The node {name} runs already.\n"));
    }
    if !runs(host) {
        return print(&format!("The node {name} starts with the cluster: `ferrokube up`\n"));
    }
    let took = wish::wait_for(host, name)?;
    print(&format!("The node {name} is Ready ({}).\n", duration(took)))
}

/// The Node object first would be made again by the kubelet; so the node ends before it.
fn rm(host: &Host, name: &str) -> Result<()> {
    let began = Instant::now();
    if !runs(host) {
        let sentence = "the cluster doesn't run, and the node is in its API: `ferrokube up` first";
        return Err(Fault::failed(sentence).into());
    }
    want(host, name, false)?;
    life::end(host, name, Signal::TERM, POD_GRACE + NODE_GRACE)?;
    ask(host, async |nodes: Api<Object>| match nodes.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    })?;
    let _lock = record::lock(host)?;
    let mut record = known(host)?;
    let node = record.named(name)?.clone();
    home::remove(host, name)?;
    underlay::unplug(host, &node)?;
    record.nodes.retain(|other| other.name != name);
    record::write(host, &record)?;
    best_effort("sweeping shared layers", images::sweep(host, &record));
    print(&format!("The node {name} is gone ({}).\n", duration(began.elapsed())))
}

/// A node as it is listed.
#[derive(Debug, Default)]
struct Row {
    /// Ready, NotReady, or what the API doesn't know.
    status: String,
    roles: String,
    address: String,
    /// On this host: what its process does.
    state: Option<&'static str>,
    pid: Option<i32>,
    resident: Option<u64>,
}

fn ls(host: &Host, output: Output) -> Result<()> {
    let mut rows = BTreeMap::<String, Row>::new();
    let record = known(host)?;
    for node in &record.nodes {
        let row = rows.entry(node.name.clone()).or_default();
        row.state = Some(State::of(host, &node.name).word());
        row.address = record.address(node).to_string();
        row.pid = life::find(host, &node.name).map(|init| init.pid);
        row.resident = life::resident(host, &node.name);
    }
    let own = rows.entry(host.node_name.clone()).or_default();
    own.state = Some(crate::process::state(host));
    if let Some(daemon) = Daemon::find(host) {
        (own.pid, own.resident) = (Some(daemon.pid), life::resident_of(daemon.pid));
    }
    if runs(host) {
        match ask(host, async |nodes: Api<Object>| nodes.list(&ListParams::default()).await) {
            Ok(listed) => listed.items.iter().for_each(|node| told(&mut rows, node)),
            Err(error) => eprintln!("ferrokube: the nodes' states are not known: {error:#}"),
        }
    }
    match output {
        Output::Json => print(&format!("{:#}\n", as_json(&rows))),
        Output::Table => print(&as_table(&rows)),
    }
}

/// What the API says of a node.
fn told(rows: &mut BTreeMap<String, Row>, node: &Object) {
    const ROLE: &str = "node-role.kubernetes.io/";
    let row = rows.entry(node.metadata.name.clone().unwrap_or_default()).or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    row.status = if ready { "Ready" } else { "NotReady" }.to_owned();
    let labels = node.metadata.labels.iter().flatten();
    row.roles = labels.filter_map(|(key, _)| key.strip_prefix(ROLE)).collect::<Vec<_>>().join(",");
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    if let Some(internal) = addresses.iter().find(|address| address.type_ == "InternalIP") {
        row.address.clone_from(&internal.address);
    }
}

fn as_json(rows: &BTreeMap<String, Row>) -> Value {
    let one = |(name, row): (&String, &Row)| {
        json!({"name": name, "status": row.status, "roles": row.roles, "internalIP": row.address, "here": row.state.is_some(),
            "state": row.state, "pid": row.pid, "rss": row.resident})
    };
    rows.iter().map(one).collect()
}

fn as_table(rows: &BTreeMap<String, Row>) -> String {
    let width = rows.keys().map(String::len).max().unwrap_or(0).max(4);
    let wide = rows.values().map(|row| row.roles.len()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<width$}  {:<8}  {:<wide$}  {:<15}  {:<10}  {:>7}  {:>6}\n",
        "NAME", "STATUS", "ROLES", "INTERNAL-IP", "PROCESS", "PID", "RSS"
    );
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    for (name, row) in rows {
        let pid = row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let resident = row.resident.map_or_else(|| "-".to_owned(), |bytes| format!("{} MB", bytes / 1_000_000));
        let line = format!(
            "{name:<width$}  {:<8}  {:<wide$}  {:<15}  {:<10}  {pid:>7}  {resident:>6}",
            or(&row.status, "-"),
            or(&row.roles, "<none>"),
            or(&row.address, "-"),
            row.state.unwrap_or("elsewhere"),
        );
        text += &format!("{}\n", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_listed_wherever_they_are() {
        let mut rows = BTreeMap::new();
        rows.insert(
            "a-2".to_owned(),
            Row { state: Some("running"), pid: Some(77), resident: Some(21_500_000), ..Row::default() },
        );
        let object = |name: &str, ready: &str, role: Option<&str>| -> Object {
            let labels = role.map(|role| json!({role: ""})).unwrap_or_else(|| json!({}));
            let status = json!({"conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "192.0.2.9"}]});
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status}))
                .expect("a node")
        };
        told(&mut rows, &object("a-2", "True", None));
        told(&mut rows, &object("far", "Unknown", Some("node-role.kubernetes.io/worker")));
        let text = as_table(&rows);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "STATUS", "ROLES", "INTERNAL-IP", "PROCESS", "PID", "RSS"]);
        assert_eq!(lines[1], ["a-2", "Ready", "<none>", "192.0.2.9", "running", "77", "21", "MB"]);
        assert_eq!(lines[2], ["far", "NotReady", "worker", "192.0.2.9", "elsewhere", "-", "-"]);
        assert_eq!(as_json(&rows)[1]["here"], false);
    }

    #[test]
    fn the_hosts_own_node_is_told_from_the_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = crate::config::tests::host(dir.path());
        let said = want(&host, "node", false).expect_err("refused").to_string();
        assert!(said.contains("this host's own node"), "{said}");
        let said = want(&host, "other", false).expect_err("refused").to_string();
        assert!(said.contains("no further node \"other\": it has none"), "{said}");
        let mut record = Record::new("10.202.0.0/24".parse().expect("a range"));
        record.add("node", Some("b"), &[], &[]).expect("added");
        record::write(&host, &record).expect("written");
        assert_eq!(
            [false, false, true, true].map(|run| want(&host, "b", run).ok()),
            [true, false, true, false].map(Some)
        );
    }
}
