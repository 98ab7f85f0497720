//! Load balancers with addresses of their own: a machine on the network of the nodes reaches a Service by an address of the
//! pool, keeps its own address on the way, and another node takes over when the one that announces it stops, or dies without
//! a word.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Host, Own, eventually};

use crate::nodes::traces;

pub const TESTS: &[Test] = &[("an_address_of_a_pool_is_announced_by_one_node_and_another_takes_over", pool)];

const PATIENCE: Duration = Duration::from_secs(60);
/// A node that stops hands its addresses over before it does anything else.
const SOON: Duration = Duration::from_secs(5);
/// One that dies without a word has them taken from it.
const DEAD: Duration = Duration::from_secs(10);
const FIRST: &str = "alpha";
const SECOND: &str = "alpha-2";
const UP: [&str; 9] = [
    "up",
    "--nodes",
    "2",
    "--node-cidr",
    "10.202.0.0/24",
    "--pod-cidr",
    "10.42.0.0/16,fd42::/56",
    "--service-cidr",
    "10.43.0.0/16,fd43::/112",
];

/// On every node a pod that says which it is, and who asks.
const WEB: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: docker.io/library/busybox:test
        command:
        - sh
        - -c
        - |
          mkdir -p /www/cgi-bin
          printf '#!/bin/sh\necho\necho node=%s client=$REMOTE_ADDR\n' $NODE > /www/cgi-bin/who
          chmod +x /www/cgi-bin/who
          exec httpd -f -p 8080 -h /www
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

fn pool(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("pool")?;
    let host = own.host.clone().context("a host")?;
    let before = traces(&host, &own)?;
    let config = own.dir.join("config.yaml");
    fs::write(&config, format!("nodeName: {FIRST}\n"))?;
    let config = config.display().to_string();
    let up = |pool: &str| own.run(&[&UP[..], &["--load-balancer-pool", pool, "--config", &config]].concat());
    for (wrong, why) in [
        ("10.42.7.0/24", "overlaps --pod-cidr 10.42.0.0/16"),
        ("10.202.0.2-10.202.0.9", "nodes of this host have or get the addresses 10.202.0.0-10.202.0.100"),
        ("192.0.2.0/24", "192.0.2.2 is this host's own; leave it out"),
        ("10.202.0.250-10.202.0.240", "ends before it begins"),
    ] {
        let said = up(wrong)?.fails()?;
        ensure!(said.contains(why), "{wrong}: {said}");
    }
    // Without one first: which addresses of IPv6 the link between nodes has is known then. The cluster gets it later.
    own.run(&[&UP[..], &["--config", &config]].concat())?.ok()?;
    let record: Value = serde_json::from_slice(&fs::read(own.data_dir().join("nodes/.record"))?)?;
    let range6 = record["range6"].as_str().and_then(|range| range.strip_suffix("::/64")).context("a range of IPv6")?;
    own.run(&["down"])?.ok()?;
    up(&format!("10.202.0.240-10.202.0.250,{range6}::f000/120"))?.ok()?;
    own.import_busybox(BUSYBOX)?;
    let client = Client::beside(&host, range6)?;
    let reached =
        announced(&own, &client, range6).and_then(|()| moved(&own, &client)).and_then(|()| dies(&own, &client));
    let reached = reached.and_then(|()| let_go(&own, &client));
    host.sh("ip link delete client")?;
    reached?;
    own.run(&["reset", "--yes"])?.ok()?;
    eventually(PATIENCE, || {
        let after = traces(&host, &own)?;
        ensure!(after == before, "left behind: {:#?}", after.difference(&before).collect::<Vec<_>>());
        Ok(())
    })
}

/// A machine beside the nodes, on their link.
struct Client {
    machine: Host,
    /// Its own, IPv4's first.
    addresses: [String; 2],
}

impl Client {
    fn beside(host: &Host, range6: &str) -> Result<Client> {
        let machine = Host::new()?;
        let bridge = host.sh("ip -o link show type bridge | grep -o 'fk[0-9]*-nodes' | head -n 1")?;
        let (pid, bridge) = (machine.pid(), bridge.trim());
        host.sh(&format!(
            "ip link add client type veth peer name eth0 netns {pid}; ip link set client master {bridge} up"
        ))?;
        // What a switch passes on is no business of the rules of the host that it happens to be on.
        host.sh("for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do [ ! -e $f ] || echo 0 > $f; done")?;
        let addresses = ["10.202.0.230".to_owned(), format!("{range6}::e000")];
        let [v4, v6] = &addresses;
        let add =
            format!("ip address add {v4}/24 dev eth0; ip address add {v6}/64 dev eth0 nodad; ip link set eth0 up");
        machine.sh(&add)?;
        Ok(Client { machine, addresses })
    }

    /// What it hears at an address.
    fn asks(&self, address: &str) -> Result<String> {
        let at = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        self.machine.sh(&format!("curl -s --max-time 2 http://{at}/cgi-bin/who"))
    }
}

/// The addresses of the Service, IPv4's first, and who announces each.
fn given(own: &Own) -> Result<Vec<(String, String)>> {
    let service = own.get("service web")?;
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let announced = service["metadata"]["annotations"]["ferrokube.io/announced-by"].as_str().unwrap_or_default();
    let by = |ip: &str| {
        let found = announced.split(',').filter_map(|pair| pair.split_once('=')).find(|(address, _)| *address == ip);
        found.map(|(_, node)| node.to_owned()).unwrap_or_default()
    };
    let text = |one: &Value| one["ip"].as_str().unwrap_or_default().to_owned();
    Ok(ingress.iter().map(text).map(|ip| (ip.clone(), by(&ip))).collect())
}

/// Every address leads to the node that announces it, and the machine is seen as itself.
fn leads(own: &Own, client: &Client) -> Result<Vec<(String, String)>> {
    let all = given(own)?;
    ensure!(all.len() == 2 && all.iter().all(|(_, node)| !node.is_empty()), "{all:?}");
    for ((address, node), own) in all.iter().zip(&client.addresses) {
        let said = client.asks(address)?;
        ensure!(said.contains(&format!("node={node} ")) && said.contains(own), "{address} of {node}: {said}");
    }
    Ok(all)
}

fn announced(own: &Own, client: &Client, range6: &str) -> Result<()> {
    own.apply(WEB)?;
    own.kubectl(&["rollout", "status", "daemonset/web", "--timeout=90s"])?;
    let all = eventually(PATIENCE, || leads(own, client))?;
    ensure!(all[0].0 == "10.202.0.240" && all[1].0 == format!("{range6}::f000"), "the first of the pool: {all:?}");
    for node in [FIRST, SECOND] {
        let networks = own.get(&format!("node {node}"))?["metadata"]["annotations"]["ferrokube.io/networks"].clone();
        ensure!(networks.as_str().is_some_and(|text| text.contains("10.202.0.0/24")), "{node}: {networks}");
    }
    // Whoever takes it away finds it there again.
    own.kubectl(&["annotate", "node", SECOND, "ferrokube.io/networks-"])?;
    own.kubectl(&["annotate", "service", "web", "ferrokube.io/announced-by-"])?;
    eventually(PATIENCE, || leads(own, client))?;
    let events = own.kubectl(&["get", "events", "-o", "wide"])?;
    ensure!(events.contains("NodeAssigned"), "{events}");
    // Nobody has the host itself by it.
    let refused = client.machine.sh("curl -s --max-time 1 -k https://10.202.0.240:6443/ || echo nothing")?;
    ensure!(refused.contains("nothing"), "{refused}");
    Ok(())
}

/// Asks for another address until the second node announces it.
fn of_second(own: &Own) -> Result<String> {
    for last in 240..=250 {
        let address = format!("10.202.0.{last}");
        let patch = format!(r#"{{"spec":{{"loadBalancerIP":"{address}"}}}}"#);
        own.kubectl(&["patch", "service", "web", "-p", &patch])?;
        let node = eventually(PATIENCE, || {
            let first = given(own)?.into_iter().next().context("no address")?;
            ensure!(first.0 == address && !first.1.is_empty(), "{first:?}");
            Ok(first.1)
        })?;
        if node == SECOND {
            return Ok(address);
        }
    }
    anyhow::bail!("the first node announces all of them")
}

fn moved(own: &Own, client: &Client) -> Result<()> {
    let address = of_second(own)?;
    let leads_to = |node: &str| {
        let said = client.asks(&address)?;
        ensure!(said.contains(&format!("node={node} ")) && said.contains(&client.addresses[0]), "{said}");
        Ok(())
    };
    eventually(PATIENCE, || leads_to(SECOND))?;
    own.run(&["node", "stop", SECOND])?.ok()?;
    let stopped = Instant::now();
    eventually(PATIENCE, || leads_to(FIRST))?;
    ensure!(stopped.elapsed() < SOON, "it took {:?}", stopped.elapsed());
    ensure!(given(own)?[0] == (address.clone(), FIRST.to_owned()), "{:?}", given(own)?);
    own.run(&["node", "start", SECOND])?.ok()?;
    eventually(PATIENCE, || leads_to(SECOND)).context("it is back")?;
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    own.kubectl(&["label", "node", SECOND, &format!("{label}=")])?;
    eventually(SOON, || leads_to(FIRST)).context("it is not to be used")?;
    own.kubectl(&["label", "node", SECOND, &format!("{label}-")])?;
    eventually(SOON, || leads_to(SECOND))
}

/// The second node, which announces the address of IPv4, is as dead as one can be whose machine goes on: all of its processes
/// stand still. It counts as ready for most of a minute. When it wakes up it is elected again, and says nothing wrong before.
fn dies(own: &Own, client: &Client) -> Result<()> {
    let address = given(own)?[0].0.clone();
    let leads_to = |node: &str| {
        let said = client.asks(&address)?;
        ensure!(said.contains(&format!("node={node} ")), "{said}");
        Ok(())
    };
    eventually(PATIENCE, || leads_to(SECOND))?;
    let host = own.host.as_ref().context("a host")?;
    let file = format!("/run/ferrokube/{}/nodes/{SECOND}", own.name);
    let all = |signal: &str| {
        host.sh(&format!(
            "ns=$(readlink /proc/$(grep -oE '[0-9]+' {file} | head -n 1)/ns/pid); for p in /proc/[0-9]*; do \
             [ \"$(readlink $p/ns/pid)\" != \"$ns\" ] || kill -{signal} ${{p#/proc/}}; done"
        ))
    };
    all("STOP")?;
    let died = Instant::now();
    let taken = eventually(PATIENCE, || leads_to(FIRST)).context("it died");
    let took = died.elapsed();
    let ready = own.kubectl(&["get", "node", SECOND, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"]);
    all("CONT")?;
    taken?;
    ensure!(took < DEAD, "it took {took:?}");
    ensure!(ready? == "True", "it still counted as ready");
    eventually(PATIENCE, || leads_to(SECOND)).context("it lives again")
}

fn let_go(own: &Own, client: &Client) -> Result<()> {
    let address = given(own)?[0].0.clone();
    own.kubectl(&["delete", "service", "web", "--timeout=20s"])?;
    eventually(SOON, || {
        // What it knew of the address counts no more.
        client.machine.sh("ip neigh flush dev eth0")?;
        ensure!(client.asks(&address).is_err(), "nobody has it");
        Ok(())
    })?;
    let known = client.machine.sh(&format!("ip neigh show {address}"))?;
    ensure!(known.is_empty() || known.contains("FAILED") || known.contains("INCOMPLETE"), "{known}");
    Ok(())
}
