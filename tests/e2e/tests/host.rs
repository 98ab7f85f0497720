//! What of the host changes while a cluster runs on it: its address, its firewall.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, eventually};

pub const TESTS: &[Test] = &[
    ("a_host_that_moves_takes_its_node_along", moves),
    ("a_firewall_is_opened_and_told_of_when_it_closes_again", firewall),
    ("a_new_cluster_keeps_out_of_its_hosts_networks", networks),
];

/// As a lease that runs out, or another network: all that names the address follows, while pods run.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(5);
const ELSEWHERE: &str = "192.0.2.77";

fn moves(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("moves")?;
    let host = own.host.clone().context("a host")?;
    own.up()?;
    own.import_busybox(BUSYBOX)?;
    own.kubectl(&["run", "here", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    own.ready("here")?;
    let move_it = "ip address del 192.0.2.2/24 dev uplink; ip address add 192.0.2.77/24 dev uplink; \
                   ip route replace default via 192.0.2.1";
    host.sh(move_it)?;
    let moved = Instant::now();
    let node = |object: &serde_json::Value| object["items"][0]["status"]["addresses"][0]["address"] == ELSEWHERE;
    own.wait_for("nodes", 4 * FOLLOWS_WITHIN, node)?;
    let slice = |object: &serde_json::Value| object["endpoints"][0]["addresses"][0] == ELSEWHERE;
    own.wait_for("endpointslice kubernetes", 4 * FOLLOWS_WITHIN, slice)?;
    ensure!(moved.elapsed() < 4 * FOLLOWS_WITHIN, "it took {:?}", moved.elapsed());
    ensure!(own.kubectl(&["exec", "here", "--", "echo", "heard"])? == "heard\n");
    own.kubectl(&["logs", "here"])?;
    let url = own.status()?["server"].as_str().unwrap_or_default().replace("127.0.0.1", ELSEWHERE);
    let ca = own.data_dir().join("pki/ca.crt").display().to_string();
    let version = || host.sh(&format!("curl -s --max-time 5 --cacert {ca} {url}/version"));
    // Its certificate names the new address.
    eventually(4 * FOLLOWS_WITHIN, || {
        ensure!(version()?.contains("gitVersion"));
        Ok(())
    })?;
    // Without any address or route a start still finds one that pods reach.
    own.run(&["down"])?.ok()?;
    host.sh("ip address flush dev uplink")?;
    own.up()?;
    let address = own.get("nodes")?["items"][0]["status"]["addresses"][0]["address"].clone();
    ensure!(address.as_str().is_some_and(|a| a.starts_with("10.")), "{address}");
    own.ready("here")?;
    let asked = own.kubectl(&["exec", "here", "--", "nslookup", "kubernetes.default.svc.cluster.local"])?;
    ensure!(asked.contains("Address"), "{asked}");
    Ok(())
}

/// As a VPN, or a bridge that another program left: only who says a range that the host is in is refused.
fn networks(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("networks")?;
    let host = own.host.clone().context("a host")?;
    host.sh("ip link add left type bridge; ip link set left up; ip address add 10.42.0.1/15 dev left; \
             ip address add 10.44.0.1/15 dev left")?;
    let said = own.run(&["up", "--pod-cidr", "10.44.0.0/16"])?.fails()?;
    ensure!(said.contains("this host is in 10.44.0.0/16 already"), "{said}");
    own.up()?;
    let range = own.get("nodes")?["items"][0]["spec"]["podCIDR"].clone();
    let octet = range.as_str().and_then(|range| range.split('.').nth(1)?.parse::<u8>().ok());
    ensure!(octet.is_some_and(|octet| !(42..=45).contains(&octet)), "{range}");
    Ok(())
}

fn firewall(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("opened")?;
    let host = own.host.clone().context("a host")?;
    let guard = "nft 'table inet guard { chain fw { type filter hook forward priority 0; policy drop; }; }'";
    host.sh(guard)?;
    let rules = || host.sh("nft list table inet guard");
    let before = rules()?;
    own.run(&["up", "--open-firewall"])?.ok()?;
    ensure!(rules()?.matches("ferrokube: pods").count() == 2, "{}", rules()?);
    // Whoever loads his own rules anew shuts it again.
    host.sh(&format!("nft flush table inet guard; {guard}"))?;
    eventually(Duration::from_secs(30), || {
        ensure!(rules()?.contains("ferrokube: pods"), "not opened again");
        Ok(())
    })?;
    own.run(&["reset", "--yes"])?.ok()?;
    ensure!(rules()? == before, "{}", rules()?);
    host.sh("nft delete table inet guard")?;

    own.up()?;
    host.sh(guard)?;
    let says = |is: &'static str| {
        move |object: &serde_json::Value| {
            let conditions = object["items"][0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "PodTrafficDropped" && c["status"] == is)
        }
    };
    own.wait_for("nodes", Duration::from_secs(30), says("True"))?;
    let told = own.run(&["status"])?.ok()?;
    ensure!(told.contains("Warning: the host's firewall drops") && told.contains("--open-firewall"), "{told}");
    let event = |object: &serde_json::Value| object["items"].as_array().is_some_and(|all| !all.is_empty());
    own.wait_for("events --all-namespaces --field-selector reason=HostFirewall", Duration::from_secs(10), event)?;
    host.sh("nft delete table inet guard")?;
    own.wait_for("nodes", Duration::from_secs(30), says("False"))?;
    Ok(())
}
