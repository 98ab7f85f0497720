//! Backends of flannel that need what this kernel has and the one that the other tests run on lacks: WireGuard and IPIP.
//! Two nodes of one machine, each with a network of its own. What leads there in detail is tried by the tests of flannel
//! itself, which run wherever the kernel has it.

use anyhow::{Context, Result, ensure};
use testkit::image::BUSYBOX;

use crate::guest::Guest;

/// Bytes of a page that is longer than any window.
const BIG: usize = 1 << 20;

pub fn wireguard(guest: &Guest) -> Result<()> {
    nodes(guest, "wireguard", "flannel-wg", 1420, "")?;
    // The private key is its owner's alone, and in no log.
    let key = guest.ok("cat /run/ferrokube/ferrokube/wgkey")?;
    let mode = guest.ok("stat -c %a /run/ferrokube/ferrokube/wgkey")?;
    ensure!(mode.trim() == "600" && key.trim().len() == 44, "{mode}");
    let logs = guest.ok(&format!("grep -rlF '{}' /var/lib/ferrokube /var/log /run 2>/dev/null || true", key.trim()))?;
    ensure!(logs.trim() == "/run/ferrokube/ferrokube/wgkey", "the key is in {logs}");
    gone(guest)
}

pub fn wireguard_of_two_families(guest: &Guest) -> Result<()> {
    let ranges = "--pod-cidr 10.42.0.0/16,fd42::/56 --service-cidr 10.43.0.0/16,fd43::/112";
    nodes(guest, "wireguard", "flannel-wg-v6", 1420, ranges)?;
    gone(guest)
}

pub fn ipip(guest: &Guest) -> Result<()> {
    nodes(guest, "ipip", "flannel.ipip", 1480, "")?;
    // A machine has one such link.
    let said = guest.fails("ferrokube up --name other --flannel-backend ipip")?;
    ensure!(said.contains("\"ferrokube\" has it on this host"), "{said}");
    gone(guest)
}

/// Pods of two nodes reach each other; what is deleted by hand is healed; an agent follows the way back to vxlan.
fn nodes(guest: &Guest, backend: &str, link: &str, mtu: u32, more: &str) -> Result<()> {
    guest.ok(&format!("ferrokube up --nodes 2 --flannel-backend {backend} {more}"))?;
    guest.import()?;
    let nodes = guest.kubectl("get nodes -o jsonpath='{.items[*].metadata.name}'")?;
    let nodes: Vec<&str> = nodes.split_whitespace().collect();
    ensure!(nodes.len() == 2, "{nodes:?}");
    for (pod, node) in ["one", "two"].into_iter().zip(&nodes) {
        let overrides = format!(r#"'{{"spec":{{"nodeName":"{node}","tolerations":[{{"operator":"Exists"}}]}}}}'"#);
        let serve = format!("dd if=/dev/zero of=/var/www/big bs={BIG} count=1 && exec httpd -f -p 80 -h /var/www");
        guest.kubectl(&format!("run {pod} --image {BUSYBOX} --overrides {overrides} -- sh -c '{serve}'"))?;
    }
    let shown = guest.ok(&format!("ip -d -o link show {link}"))?;
    ensure!(shown.contains(&format!("mtu {mtu} ")) && shown.contains("alias ferrokube"), "{shown}");
    both_ways(guest)?;
    guest.ok(&format!("ip link delete {link}"))?;
    both_ways(guest)?;
    guest.ok("ferrokube down && ferrokube up --flannel-backend vxlan")?;
    both_ways(guest)?;
    let left = guest.ok(&format!("ip -o link show {link} 2>/dev/null || true"))?;
    ensure!(left.is_empty(), "{left}");
    guest.ok(&format!("ferrokube down && ferrokube up --flannel-backend {backend}"))?;
    both_ways(guest)
}

fn both_ways(guest: &Guest) -> Result<()> {
    for (from, to) in [("one", "two"), ("two", "one")] {
        guest.ready(from)?;
        let pod = guest.ready(to)?;
        for address in pod["status"]["podIPs"].as_array().context("addresses")? {
            let address = address["ip"].as_str().context("an address")?;
            let get = format!(
                "exec {from} -- sh -c \"printf 'GET /big HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {address} 80 | wc -c\""
            );
            guest.until(&format!("{from} has the page of {to} from {address}"), || {
                Ok(guest.kubectl(&get)?.trim().parse::<usize>()? > BIG)
            })?;
        }
    }
    Ok(())
}

fn gone(guest: &Guest) -> Result<()> {
    guest.ok("ferrokube reset --yes")?;
    let left =
        guest.ok("ip -o link | grep flannel || true; ip route show proto 70; ls /run/ferrokube 2>/dev/null || true")?;
    ensure!(left.trim().is_empty(), "left after reset: {left}");
    Ok(())
}
