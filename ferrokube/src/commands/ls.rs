//! `ls`: the clusters of this host.

use anyhow::Result;
use serde_json::json;

use crate::cli::Output;
use crate::commands::misc::print;
use crate::config::{Host, Which, readable, record};
use crate::process::state;

pub fn run(which: &Which, output: Output) -> Result<()> {
    let clusters: Vec<_> =
        readable()?.into_iter().filter(|c| which.name.as_ref().is_none_or(|n| *n == c.cluster.name)).collect();
    let states: Vec<_> = clusters.iter().map(|host| (state(host), nodes(host))).collect();
    match output {
        Output::Json => print(&format!("{:#}\n", as_json(&clusters, &states))),
        Output::Table => print(&as_table(&clusters, &states)),
    }
}

/// Nodes of the cluster on this host, its own among them.
fn nodes(host: &Host) -> usize {
    record::nodes(host).map_or(0, |nodes| nodes.len()) + 1
}

fn as_json(clusters: &[Host], states: &[(&str, usize)]) -> serde_json::Value {
    let one = |(host, (state, nodes)): (&Host, &(&str, usize))| {
        json!({"name": host.cluster.name, "state": state, "nodes": nodes, "server": host.server_url(),
            "dataDir": host.data_dir})
    };
    clusters.iter().zip(states).map(one).collect()
}

fn as_table(clusters: &[Host], states: &[(&str, usize)]) -> String {
    let width = clusters.iter().map(|host| host.cluster.name.len()).max().unwrap_or(0).max(4);
    let urls: Vec<_> = clusters.iter().map(Host::server_url).collect();
    let wide = urls.iter().map(String::len).max().unwrap_or(0).max(3);
    let mut text = format!("{:<width$}  {:<10}  {:>5}  {:<wide$}  DATA\n", "NAME", "STATE", "NODES", "API");
    for ((host, (state, nodes)), url) in clusters.iter().zip(states).zip(urls) {
        let (name, data) = (&host.cluster.name, host.data_dir.display());
        text += &format!("{name:<width$}  {state:<10}  {nodes:>5}  {url:<wide$}  {data}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_listed_with_state_and_place() {
        let one = crate::config::tests::host(std::path::Path::new("/var/lib/x"));
        let mut two = one.clone();
        (two.cluster.name, two.cluster.api_port) = ("a-second-one".into(), 6444);
        let text = as_table(&[one.clone(), two], &[("running", 3), ("stopped", 1)]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "STATE", "NODES", "API", "DATA"]);
        assert_eq!(lines[1], ["test", "running", "3", "https://127.0.0.1:6443", "/var/lib/x"]);
        assert_eq!(lines[2][..2], ["a-second-one", "stopped"]);
        assert_eq!(as_json(&[one], &[("running", 1)])[0]["dataDir"], "/var/lib/x");
    }
}
