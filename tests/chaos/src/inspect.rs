//! What a cluster has of the machine, and what its steady pods are: before and after. I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::eventually;

use crate::cluster::{Cluster, sh};

/// Containers that nobody touches: by pod, their ID and how often they were started again.
pub type Steady = BTreeMap<String, (String, u64)>;

/// Pods of this label, which must all be ready.
pub fn steady(cluster: &Cluster) -> Result<Steady> {
    let list = cluster.testkit.get("pods -l role=steady")?;
    let pods = list["items"].as_array().context("a list")?;
    let one = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["ready"] == true, "{} is not ready: {status}", pod["metadata"]["name"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let state = (text(&status["containerID"]), status["restartCount"].as_u64().unwrap_or(0));
        Ok((text(&pod["metadata"]["name"]), state))
    };
    pods.iter().map(one).collect()
}

/// No address belongs to two pods, and each pod that runs has one.
pub fn addresses(cluster: &Cluster) -> Result<()> {
    let list = cluster.testkit.get("pods -A")?;
    let mut seen = BTreeMap::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        let running = pod["status"]["phase"] == "Running" && pod["spec"]["hostNetwork"] != true;
        let (Some(address), true) = (pod["status"]["podIP"].as_str(), running) else { continue };
        let name = pod["metadata"]["name"].to_string();
        let other = seen.insert(address.to_owned(), name.clone());
        ensure!(other.is_none(), "{address} belongs to {name} and {other:?}");
    }
    Ok(())
}

/// Everything of the machine that pods and Services take, a line each.
pub fn taken(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let name = &cluster.testkit.name;
    let mut taken = BTreeSet::new();
    let mut add = |what: &str, text: String| taken.extend(text.lines().map(|line| format!("{what} {line}")));
    let entries = fs::read_dir(cluster.testkit.data_dir().join("cni/addresses"))?.flatten();
    add("address", entries.map(|e| e.file_name().to_string_lossy().into_owned() + "\n").collect());
    add("link", sh("ip -o link | grep -o 'veth[^@:]*' || true")?);
    add("mount", sh(&format!("cut -d' ' -f5 /proc/self/mountinfo | grep {name} || true"))?);
    add("neighbour", sh("ip neigh show nud permanent | grep -v ' dev uplink' || true")?);
    add("rule", sh("nft list ruleset | grep -v -e 'counter packets' || true")?);
    add("cgroup", sh(&format!("find /sys/fs/cgroup -depth -type d -path '*{name}*' || true"))?);
    for pid in cluster.testkit.pids("monitor")? {
        add("monitor", pid.to_string());
    }
    Ok(taken)
}

/// Nothing more is taken than `before`, and nothing less, within a while.
pub fn nothing_left(cluster: &Cluster, before: &BTreeSet<String>) -> Result<()> {
    eventually(Duration::from_secs(30), || {
        let after = taken(cluster)?;
        let leaks: Vec<_> = after.difference(before).collect();
        let lost: Vec<_> = before.difference(&after).collect();
        ensure!(leaks.is_empty() && lost.is_empty(), "left behind: {leaks:#?}; lost: {lost:#?}");
        Ok(())
    })
}
