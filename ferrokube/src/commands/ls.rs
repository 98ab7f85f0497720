//! `ls`: the clusters of this host.

use anyhow::Result;
use serde_json::json;

use crate::cli::Output;
use crate::commands::misc::print;
use crate::config::{Host, Which, readable};
use crate::process::state;

pub fn run(which: &Which, output: Output) -> Result<()> {
    let clusters: Vec<_> =
        readable()?.into_iter().filter(|c| which.name.as_ref().is_none_or(|n| *n == c.cluster.name)).collect();
    let states: Vec<_> = clusters.iter().map(state).collect();
    match output {
        Output::Json => print(&format!("{:#}\n", as_json(&clusters, &states))),
        Output::Table => print(&as_table(&clusters, &states)),
    }
}

fn as_json(clusters: &[Host], states: &[&str]) -> serde_json::Value {
    let one = |(host, state): (&Host, &&str)| json!({"name": host.cluster.name, "state": state, "server": host.server_url(), "dataDir": host.data_dir});
    clusters.iter().zip(states).map(one).collect()
}

fn as_table(clusters: &[Host], states: &[&str]) -> String {
    let width = clusters.iter().map(|host| host.cluster.name.len()).max().unwrap_or(0).max(4);
    let urls: Vec<_> = clusters.iter().map(Host::server_url).collect();
    let wide = urls.iter().map(String::len).max().unwrap_or(0).max(3);
    let mut text = format!("{:<width$}  {:<10}  {:<wide$}  DATA\n", "NAME", "STATE", "API");
    for ((host, state), url) in clusters.iter().zip(states).zip(urls) {
        text += &format!("{:<width$}  {state:<10}  {url:<wide$}  {}\n", host.cluster.name, host.data_dir.display());
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
        let text = as_table(&[one.clone(), two], &["running", "stopped"]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "STATE", "API", "DATA"]);
        assert_eq!(lines[1], ["test", "running", "https://127.0.0.1:6443", "/var/lib/x"]);
        assert_eq!(lines[2][..2], ["a-second-one", "stopped"]);
        assert_eq!(as_json(&[one], &["running"])[0]["dataDir"], "/var/lib/x");
    }
}
