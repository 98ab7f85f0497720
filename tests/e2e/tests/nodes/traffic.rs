//! What goes between the pods of three nodes: TCP, UDP, small and big packets, by addresses, Services, names and node ports,
//! from every pod and from the host; and kubectl's ways into pods of every node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use linux::netns::NetNs;
use serde_json::Value;
use testkit::{Own, Running, eventually};

use super::{ALL, SOON, pod_on};

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;
/// More than any packet on the way holds.
const BIG: usize = 5_000_000;
/// A datagram of several packets.
const DATAGRAM: usize = 8000;

/// The pod of each node, by the node's name: name and address.
fn pods(own: &Own) -> Result<BTreeMap<&'static str, (String, String)>> {
    let mut all = BTreeMap::new();
    for node in ALL {
        let name = pod_on(own, node)?;
        let address = own.get(&format!("pod {name}"))?["status"]["podIP"].as_str().context("an address")?.to_owned();
        all.insert(node, (name, address));
    }
    Ok(all)
}

/// A page by nc: busybox's wget needs a getaddrinfo that a static glibc doesn't have. `to` is an address and a port.
fn get(to: &str, path: &str) -> String {
    format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {to}")
}

fn inside(own: &Own, pod: &str, script: &str) -> Result<String> {
    own.kubectl(&["exec", pod, "--", "sh", "-c", script])
}

/// Every pod reaches every pod by its address.
pub fn between_pods(own: &Own) -> Result<()> {
    let pods = pods(own)?;
    for (name, _) in pods.values() {
        inside(own, name, &format!("dd if=/dev/zero of=/www/big bs=1000 count={} 2>/dev/null", BIG / 1000))?;
    }
    for (from, (pod, _)) in &pods {
        for (to, (other, address)) in &pods {
            let script = format!(
                "set -e; [ $({}) = {to} ]; [ $({} | wc -c) -gt {BIG} ]; \
                 ping -c 1 -W 3 {address} > /dev/null; ping -c 1 -W 3 -s {DATAGRAM} {address} > /dev/null; echo well",
                get(&format!("{address} 8080"), "/") + " | tail -n 1",
                get(&format!("{address} 8080"), "/big"),
            );
            let which = || format!("from the pod of {from} to that of {to}");
            eventually(SOON, || {
                ensure!(inside(own, pod, &script)? == "well\n");
                Ok(())
            })
            .with_context(which)?;
            let (near, far) = (network_of(pod)?, network_of(other)?);
            for size in [1, 1400, DATAGRAM] {
                // A datagram may be lost once: nobody knows the way yet.
                eventually(SOON, || datagram(&near, &far, address.parse()?, size))
                    .with_context(|| format!("{size} bytes {}", which()))?;
            }
        }
    }
    Ok(())
}

/// The network of a pod, whose name is the host name of what runs in it.
fn network_of(pod: &str) -> Result<NetNs> {
    let is_of = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == format!("HOSTNAME={pod}").as_bytes())
    };
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.into_iter().find(is_of).with_context(|| format!("no process of {pod}"))?;
    Ok(NetNs::open(format!("/proc/{pid}/ns/net"))?)
}

/// A datagram from one pod to another, and its answer.
fn datagram(near: &NetNs, far: &NetNs, to: IpAddr, size: usize) -> Result<()> {
    let socket = |network: &NetNs| -> Result<UdpSocket> {
        let socket = network.run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    };
    let (asks, answers, mut buffer) = (socket(near)?, socket(far)?, vec![0; 2 * DATAGRAM]);
    asks.send_to(&vec![7; size], (to, answers.local_addr()?.port()))?;
    let (length, from) = answers.recv_from(&mut buffer)?;
    ensure!(length == size, "{length} bytes came");
    answers.send_to(&buffer[..length], from)?;
    let (length, _) = asks.recv_from(&mut buffer)?;
    ensure!(length == size, "{length} bytes came back");
    Ok(())
}

/// A Service leads to the pods of every node, by its name, its address and the port of each node.
pub fn services(own: &Own) -> Result<()> {
    own.apply(SERVICE)?;
    let service = own.get("service web")?;
    let address = service["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("a port")?;
    let mut nodes = Vec::new();
    for node in ALL {
        let addresses =
            own.get(&format!("node {node}"))?["status"]["addresses"].as_array().cloned().unwrap_or_default();
        let internal = addresses.iter().find(|a| a["type"] == "InternalIP").context("an address")?;
        nodes.push(format!("{} {port}", internal["address"].as_str().unwrap_or_default()));
    }
    let places: Vec<String> = nodes.into_iter().chain([format!("{address} 80")]).collect();
    let all: BTreeSet<&str> = ALL.into();
    for (node, (pod, _)) in pods(own)? {
        eventually(SOON, || {
            let found = inside(own, &pod, "nslookup web.default.svc.cluster.local")?;
            ensure!(found.contains(&address), "{found}");
            Ok(())
        })
        .with_context(|| format!("the name from the pod of {node}"))?;
        for place in &places {
            let script = format!("for i in $(seq 20); do {} | tail -n 1; done", get(place, "/"));
            eventually(SOON, || {
                let said = inside(own, &pod, &script)?;
                let heard: BTreeSet<&str> = said.lines().collect();
                ensure!(heard == all, "{heard:?}");
                Ok(())
            })
            .with_context(|| format!("from the pod of {node} to {place}"))?;
        }
    }
    let host = own.host.as_ref().context("a host")?;
    for place in &places {
        let url = place.replace(' ', ":");
        eventually(SOON, || {
            let said = host.sh(&format!("for i in $(seq 20); do curl -sS --max-time 3 http://{url}/; done"))?;
            let heard: BTreeSet<&str> = said.lines().collect();
            ensure!(heard == all, "{heard:?}");
            Ok(())
        })
        .with_context(|| format!("from the host to {url}"))?;
    }
    own.kubectl(&["delete", "service", "web"]).map(drop)
}

/// `port-forward` and the API server's proxy to the pod of every node.
pub fn into_pods(own: &Own) -> Result<()> {
    let host = own.host.as_ref().context("a host")?;
    for (node, (pod, _)) in pods(own)? {
        let page = own.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/")])?;
        ensure!(page == format!("{node}\n"), "{page}");
        let forward = Running::start(&mut own.kubectl_command(&["port-forward", &format!("pod/{pod}"), ":8080"]))?;
        let said = forward.expect(SOON, "Forwarding from 127.0.0.1:")?;
        let port: String =
            said.split("127.0.0.1:").nth(1).unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        let page = host.sh(&format!("curl -sS --max-time 5 http://127.0.0.1:{port}/"))?;
        ensure!(page == format!("{node}\n"), "{page}");
    }
    Ok(())
}

/// `check` on a cluster whose nodes' packets are dropped: all that are in packets, then the large ones of them.
pub fn checked(own: &Own) -> Result<()> {
    let host = own.host.as_ref().context("a host")?;
    let told = |what: &str| -> Result<(String, String)> {
        let said: Value = serde_json::from_str(&own.run(&["check", "--exit-code", "0", "-o", "json"])?.ok()?)?;
        let all = said["findings"].as_array().context("findings")?;
        let row = all.iter().find(|row| row["what"] == what).with_context(|| format!("no {what}: {said:#}"))?;
        Ok((row["state"].as_str().unwrap_or("").to_owned(), format!("{} {}", row["why"], row["cure"])))
    };
    let way = || told("way to other nodes");
    let (state, why) = way()?;
    ensure!(state == "good" && ALL[1..].iter().all(|node| why.contains(node)), "{state}: {why}");
    for row in ["kernel", "firewall", "forwarding", "MTU", "nodes", "other clocks", "cluster DNS", "a start"] {
        let (state, why) = told(row)?;
        ensure!(state == "good", "{row}: {state}: {why}");
    }
    host.sh("nft 'add table inet wall; add chain inet wall out { type filter hook output priority 0; }'")?;
    let drops = |what: &str, words: &str| -> Result<()> {
        host.sh(&format!("nft 'flush chain inet wall out; add rule inet wall out udp dport 8000-9000 {what} drop'"))?;
        let (state, why) = way()?;
        ensure!(state == "fault" && why.contains(words), "{what}: {state}: {why}");
        ensure!(own.run(&["check"])?.code == 1, "a fault is told by the exit code");
        Ok(())
    };
    let found = drops("", "UDP port").and_then(|()| drops("meta length > 1000", "whole ones of"));
    host.sh("nft delete table inet wall")?;
    found?;
    ensure!(way()?.0 == "good", "{:?}", way()?);
    Ok(())
}
