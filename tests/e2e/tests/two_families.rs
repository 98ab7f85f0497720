//! Clusters of two families: nodes, pods, Services, names and node ports have addresses of IPv4 and of IPv6, on one host's
//! nodes and on two hosts, by each of flannel's backends that carries both.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Own, Running, Signal, eventually};

use crate::nodes::traces;
use crate::pods_of_hosts::etcd_of_leases;
use crate::two_hosts::{FIRST, NODE, SECOND, SOON, agent, ready, up_at, wire};

pub const TESTS: &[Test] = &[
    ("a_cluster_of_two_families_has_addresses_of_both_on_every_node", one_host),
    ("a_cluster_of_ipv6_alone_works_on_every_node", ipv6_alone),
    ("pods_of_two_hosts_reach_each_other_in_both_families", two_hosts),
    ("a_cluster_that_runs_gets_a_second_family_and_its_pods_go_on", gains_family),
    ("machines_that_joined_follow_their_cluster_to_a_second_family", joined_follow),
    ("subnets_leased_in_etcd_get_a_second_family_while_pods_run", leases_follow),
];

pub const PODS: &str = "10.42.0.0/16,fd42::/56";
pub const SERVICES: &str = "10.43.0.0/16,fd43::/112";
const RANGES: [&str; 4] = ["--pod-cidr", PODS, "--service-cidr", SERVICES];
/// Bytes of a page that is longer than any window.
const BIG: usize = 5_000_000;

/// One pod on every node, and a Service of both families.
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
      tolerations: [{operator: Exists}]
      containers:
      - name: c
        image: docker.io/library/busybox:test
        command: [sh, -c, "mkdir -p /www; echo $NODE > /www/index.html; dd if=/dev/zero of=/www/big bs=1000 count=5000 2>/dev/null; exec httpd -f -p 8080 -h /www"]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

fn texts(list: &Value, field: &str) -> Vec<String> {
    let all = list.as_array().into_iter().flatten();
    all.map(|one| if field.is_empty() { one } else { &one[field] })
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// An address of each family in this order: IPv6 or not.
fn each(families: &[bool], addresses: &[String], of: &str) -> Result<Vec<IpAddr>> {
    let parsed = addresses.iter().map(|text| Ok(text.parse()?)).collect::<Result<Vec<IpAddr>>>()?;
    ensure!(parsed.iter().map(IpAddr::is_ipv6).eq(families.iter().copied()), "{of} has {addresses:?}");
    Ok(parsed)
}

const FOUR: &[bool] = &[false];
const BOTH: &[bool] = &[false, true];
const SIX: &[bool] = &[true];
const SIX_FIRST: &[bool] = &[true, false];

/// A page, by what every pod has.
fn get(to: SocketAddr, path: &str) -> String {
    format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} {}", to.ip(), to.port())
}

fn inside(own: &Own, pod: &str, script: &str) -> Result<String> {
    own.kubectl(&["exec", pod, "--", "sh", "-c", script])
}

/// A pod of the Service.
struct Pod {
    name: String,
    node: String,
    addresses: Vec<IpAddr>,
}

fn pods(own: &Own, families: &[bool], nodes: usize) -> Result<Vec<Pod>> {
    pods_of(own, "web", families, nodes)
}

fn pods_of(own: &Own, set: &str, families: &[bool], nodes: usize) -> Result<Vec<Pod>> {
    own.kubectl(&["rollout", "status", &format!("daemonset/{set}"), "--timeout=90s"])?;
    let listed = own.get(&format!("pods -l app={set}"))?;
    let pods = listed["items"].as_array().context("pods")?.iter().map(|pod| {
        let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
        let node = pod["spec"]["nodeName"].as_str().context("a node")?.to_owned();
        let addresses = each(families, &texts(&pod["status"]["podIPs"], "ip"), &name)?;
        Ok(Pod { name, node, addresses })
    });
    let pods = pods.collect::<Result<Vec<_>>>()?;
    ensure!(pods.len() == nodes, "{} pods on {nodes} nodes", pods.len());
    Ok(pods)
}

/// Every pod reaches every pod by both addresses, and pages of many packets come whole.
fn between(own: &Own, pods: &[Pod]) -> Result<()> {
    for from in pods {
        for (to, address) in pods.iter().flat_map(|to| to.addresses.iter().map(move |address| (to, *address))) {
            let at = SocketAddr::new(address, 8080);
            let script = format!("[ $({} | tail -n 1) = {} ] && {} | wc -c", get(at, "/"), to.node, get(at, "/big"));
            eventually(SOON, || {
                let bytes: usize = inside(own, &from.name, &script)?.trim().parse()?;
                ensure!(bytes > BIG, "{bytes} bytes came");
                Ok(())
            })
            .with_context(|| format!("from the pod of {} to {at} of {}", from.node, to.node))?;
        }
    }
    Ok(())
}

/// The API server of the host is reached at each of these addresses, its own and the first of the Services' range of the
/// first family, and proves itself there by the cluster's CA: to curl and to kubectl.
fn api_at(own: &Own, families: &[bool]) -> Result<()> {
    let node = own.get("nodes -l node-role.kubernetes.io/control-plane")?;
    let all = node["items"][0]["status"]["addresses"].as_array().context("addresses")?.clone();
    let internal: Vec<Value> = all.into_iter().filter(|address| address["type"] == "InternalIP").collect();
    let node = each(families, &texts(&internal.into(), "address"), "the API server's node")?;
    let record: Value = serde_json::from_slice(&std::fs::read(own.data_dir().join("cluster.json"))?)?;
    let port = u16::try_from(record["apiPort"].as_u64().context("a port")?)?;
    let loopback =
        families.iter().map(|v6| if *v6 { IpAddr::from(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::LOCALHOST.into() });
    let ca = own.data_dir().join("pki/ca.crt").display().to_string();
    let host = own.host.as_ref().context("a host")?;
    for at in node.into_iter().chain(loopback).map(|address| SocketAddr::new(address, port)) {
        eventually(SOON, || {
            let said = host.sh(&format!("curl -gsS --max-time 3 --cacert {ca} https://{at}/version"))?;
            ensure!(said.contains("gitVersion"), "{said}");
            let said = own.kubectl(&["--server", &format!("https://{at}"), "auth", "whoami"])?;
            ensure!(said.contains("kubernetes-admin"), "{said}");
            Ok(())
        })
        .with_context(|| format!("the API server at {at}"))?;
    }
    // Who is led there by a Service of somebody's own.
    let firsts = families.iter().map(|v6| if *v6 { "fd43::1" } else { "10.43.0.1" });
    let certificate = host.sh(&format!(
        "openssl s_client -connect 127.0.0.1:{port} < /dev/null 2> /dev/null | openssl x509 -noout -ext subjectAltName"
    ))?;
    let named: BTreeSet<IpAddr> =
        certificate.split([',', '\n']).filter_map(|san| san.trim().strip_prefix("IP Address:")?.parse().ok()).collect();
    for first in firsts {
        ensure!(named.contains(&first.parse()?), "{first} is not in {certificate}");
    }
    Ok(())
}

/// The Service leads to the pods of all nodes: by its name, both addresses, and the port of every node, from every pod and
/// from the host.
fn service(own: &Own, families: &[bool], pods: &[Pod]) -> Result<()> {
    let service = own.get("service web")?;
    let addresses = each(families, &texts(&service["spec"]["clusterIPs"], ""), "the Service")?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("a port")? as u16;
    let mut places: Vec<SocketAddr> = addresses.iter().map(|ip| SocketAddr::new(*ip, 80)).collect();
    let nodes = own.get("nodes")?;
    for node in nodes["items"].as_array().context("nodes")? {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let all = node["status"]["addresses"].as_array().context("addresses")?;
        let internal: Vec<Value> = all.iter().filter(|a| a["type"] == "InternalIP").cloned().collect();
        let own_addresses = each(families, &texts(&internal.into(), "address"), name)?;
        let shares = texts(&node["spec"]["podCIDRs"], "");
        let shares: Vec<String> = shares.iter().filter_map(|c| Some(c.split_once('/')?.0.to_owned())).collect();
        if !node["spec"]["podCIDRs"].is_null() {
            each(families, &shares, name)?;
        }
        places.extend(own_addresses.iter().map(|ip| SocketAddr::new(*ip, port)));
    }
    let all: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    let host = own.host.as_ref().context("a host")?;
    for pod in pods {
        let servers = families.iter().map(|v6| if *v6 { " fd43::a" } else { " 10.43.0.10" });
        for server in servers.chain([""]) {
            eventually(SOON, || {
                let found = inside(own, &pod.name, &format!("nslookup web.default.svc.cluster.local{server}"))?;
                ensure!(addresses.iter().all(|ip| found.contains(&ip.to_string())), "{found}");
                Ok(())
            })
            .with_context(|| format!("the name from the pod of {}, asked{server}", pod.node))?;
        }
    }
    for place in places {
        for pod in pods {
            let script = format!("for i in $(seq 20); do {} | tail -n 1; done", get(place, "/"));
            eventually(SOON, || {
                let said = inside(own, &pod.name, &script)?;
                let heard: BTreeSet<&str> = said.lines().collect();
                ensure!(heard == all, "{heard:?}");
                Ok(())
            })
            .with_context(|| format!("from the pod of {} to {place}", pod.node))?;
        }
        eventually(SOON, || {
            let said = host.sh(&format!("for i in $(seq 20); do curl -gsS --max-time 3 http://{place}/; done"))?;
            let heard: BTreeSet<&str> = said.lines().collect();
            ensure!(heard == all, "{heard:?}");
            Ok(())
        })
        .with_context(|| format!("from the host to {place}"))?;
    }
    Ok(())
}

/// What the cluster says of itself.
fn objects(own: &Own) -> Result<()> {
    let cidrs = texts(&own.get("servicecidr kubernetes")?["spec"]["cidrs"], "");
    ensure!(cidrs.join(",") == SERVICES, "{cidrs:?}");
    let dns = own.get("service kube-dns -n kube-system")?;
    ensure!(texts(&dns["spec"]["clusterIPs"], "") == ["10.43.0.10", "fd43::a"], "{dns:#}");
    let api = own.get("service kubernetes")?;
    ensure!(texts(&api["spec"]["ipFamilies"], "") == ["IPv4"], "{api:#}");
    let status = own.status()?;
    ensure!(status["podCIDR"] == PODS && status["serviceCIDR"] == SERVICES, "{status:#}");
    Ok(())
}

fn one_host(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("both")?;
    let host = own.host.clone().context("a host")?;
    let before = traces(&host, &own)?;
    let forwarding = || host.sh("sysctl -n net.ipv6.conf.all.forwarding net.ipv4.ip_forward");
    let settings = forwarding()?;
    for (ranges, says) in [
        (["--pod-cidr", PODS, "--service-cidr", "10.43.0.0/16"], "not of the same families"),
        (["--pod-cidr", "fd42::/56,10.42.0.0/16", "--service-cidr", SERVICES], "in the same order"),
        (["--pod-cidr", "10.42.0.0/16,10.44.0.0/16", "--service-cidr", SERVICES], "of one family"),
        (["--pod-cidr", PODS, "--service-cidr", "10.43.0.0/16,fd43::/64"], "between /108 and /120"),
    ] {
        let said = own.run(&[&["up"], &ranges[..]].concat())?.fails()?;
        ensure!(said.contains(says), "{said}");
    }
    let said = own.run(&[&["up", "--flannel-backend", "udp"], &RANGES[..]].concat())?.fails()?;
    ensure!(said.contains("udp carries IPv4 alone"), "{said}");
    own.run(&[&["up", "--nodes", "2"], &RANGES[..]].concat())?.ok()?;
    let log = |own: &Own| own.run(&["logs", "--tail", "30"]).map(|o| o.stdout).unwrap_or_default();
    objects(&own)?;
    own.import_busybox(BUSYBOX)?;
    own.apply(WEB)?;
    let works = || -> Result<()> {
        let pods = pods(&own, BOTH, 2)?;
        between(&own, &pods)?;
        service(&own, BOTH, &pods)
    };
    works().with_context(|| log(&own))?;
    api_at(&own, BOTH).with_context(|| log(&own))?;
    let said = own.run(&["up", "--pod-cidr", "10.42.0.0/16", "--service-cidr", "10.43.0.0/16"])?.fails()?;
    ensure!(said.contains("they can't change"), "{said}");
    own.run(&["down"])?.ok()?;
    own.run(&["up"])?.ok()?;
    works().context("after down and up").with_context(|| {
        let described = own.kubectl(&["describe", "pods"]).unwrap_or_default();
        let theirs = own.run(&["logs", "--node", "vm-2", "--tail", "30"]).map(|o| o.stdout).unwrap_or_default();
        format!("{}\n{theirs}\n{described}", log(&own))
    })?;
    own.run(&["reset", "--yes"])?.ok()?;
    ensure!(forwarding()? == settings, "{}", forwarding()?);
    eventually(SOON, || {
        let after = traces(&host, &own)?;
        let left: Vec<_> = after.difference(&before).collect();
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    })
}

/// IPv6 alone, and IPv6 before IPv4: kubectl's ways into pods too, from an API server and kubelets that are reached by it.
fn ipv6_alone(cluster: &Cluster) -> Result<()> {
    for (families, pod_cidr, service_cidr) in
        [(SIX, "fd42::/56", "fd43::/112"), (SIX_FIRST, "fd42::/56,10.42.0.0/16", "fd43::/112,10.43.0.0/16")]
    {
        let own = cluster.elsewhere("six")?;
        own.run(&["up", "--nodes", "2", "--pod-cidr", pod_cidr, "--service-cidr", service_cidr])?.ok()?;
        own.import_busybox(BUSYBOX)?;
        own.apply(WEB)?;
        let works = || -> Result<()> {
            let pods = pods(&own, families, 2)?;
            between(&own, &pods)?;
            service(&own, families, &pods)?;
            api_at(&own, families)?;
            for pod in &pods {
                let page = format!("/api/v1/namespaces/default/pods/{}:8080/proxy/", pod.name);
                let page = own.kubectl(&["get", "--raw", &page])?;
                ensure!(page.trim() == pod.node, "{page}");
                let api = inside(
                    &own,
                    &pod.name,
                    "nc -w 5 $KUBERNETES_SERVICE_HOST 443 < /dev/null && echo $KUBERNETES_PORT",
                )?;
                ensure!(api.trim() == "tcp://[fd43::1]:443", "{api}");
            }
            Ok(())
        };
        let log = || own.run(&["logs", "--tail", "30"]).map(|o| o.stdout).unwrap_or_default();
        works().with_context(|| format!("with {pod_cidr}\n{}", log()))?;
        let api = own.get("service kubernetes")?;
        ensure!(texts(&api["spec"]["clusterIPs"], "") == ["fd43::1"], "{api:#}");
        own.run(&["reset", "--yes"])?.ok()?;
    }
    Ok(())
}

/// The hosts have addresses of both families on the wire between them. By IPv6 the second joins, too.
fn two_hosts(cluster: &Cluster) -> Result<()> {
    for backend in ["vxlan", "host-gw"] {
        let (first, second) = wired(cluster)?;
        up_at(&first, &[&["--flannel-backend", backend], &RANGES[..]].concat())?;
        let agent = agent(&first, &second)?;
        let addresses = [[FIRST, FIRST6], [SECOND, SECOND6]];
        works_on_hosts([&first, &second], BOTH, &addresses.map(|both| both.to_vec()))
            .with_context(|| format!("by {backend}\n{}", agent.said()))?;
        end(&first, &second, &agent)?;
    }
    let (first, second) = wired(cluster)?;
    let config = first.dir.join("config.yaml");
    std::fs::write(&config, format!("nodeName: first\nnodeIP: '{FIRST6}'\n"))?;
    let config = config.display().to_string();
    let alone = ["--pod-cidr", "fd42::/56", "--service-cidr", "fd43::/112", "--config", &config];
    first.run(&[&["up", "--flannel-backend", "host-gw"], &alone[..]].concat())?.ok()?;
    let record: Value = serde_json::from_slice(&std::fs::read(first.data_dir().join("cluster.json"))?)?;
    let server = format!("https://[{FIRST6}]:{}", record["apiPort"]);
    let token = first.run(&["token", "create"])?.ok()?.trim().to_owned();
    let join = ["agent", "--server", &server, "--token", &token, "--node-name", NODE, "--node-ip"];
    let said = second.run(&[&join[..], &[SECOND]].concat())?.fails()?;
    ensure!(said.contains("nodeIP 198.51.100.2: pods of the cluster are in fd42::/56"), "{said}");
    let agent = Running::start(&mut second.command(&[&join[..], &[SECOND6]].concat()))?;
    ready(&agent)?;
    works_on_hosts([&first, &second], SIX, &[vec![FIRST6], vec![SECOND6]])
        .with_context(|| format!("by IPv6 alone\n{}", agent.said()))?;
    end(&first, &second, &agent)
}

/// What of pods is the same as long as they run.
fn lives(own: &Own) -> Result<BTreeSet<String>> {
    let listed = own.get("pods -l app=web")?;
    let lives = listed["items"].as_array().context("pods")?.iter().map(|pod| {
        let container = &pod["status"]["containerStatuses"][0];
        format!(
            "{} {} {} {} restarts={}",
            pod["metadata"]["uid"],
            pod["status"]["podIPs"],
            pod["spec"]["nodeName"],
            container["containerID"],
            container["restartCount"]
        )
    });
    Ok(lives.collect())
}

/// Every node has a range and an address of each family, and the first are those of before. Where subnets are leased in etcd
/// nodes have no ranges.
fn nodes_have_both(own: &Own, before: &Value, leased: bool) -> Result<()> {
    let now = own.get("nodes")?;
    for old in before["items"].as_array().context("nodes")? {
        let name = old["metadata"]["name"].as_str().context("a name")?;
        let items = now["items"].as_array().context("nodes")?;
        let node = items.iter().find(|node| node["metadata"]["name"] == name).context("it is gone")?;
        let (was, has) = (texts(&old["spec"]["podCIDRs"], ""), texts(&node["spec"]["podCIDRs"], ""));
        ensure!(
            leased && has.is_empty()
                || has.len() == 2 && was.len() == 1 && was[0] == has[0] && node["spec"]["podCIDR"] == was[0].as_str(),
            "{name}: {has:?}"
        );
        let addresses = node["status"]["addresses"].as_array().context("addresses")?;
        let internal: Vec<Value> = addresses.iter().filter(|a| a["type"] == "InternalIP").cloned().collect();
        let own_addresses = each(BOTH, &texts(&internal.into(), "address"), name)?;
        // Not its pods' bridge's: others reach it by them.
        ensure!(!own_addresses[1].to_string().starts_with("fd42:"), "{own_addresses:?}");
        let conditions = node["status"]["conditions"].as_array().context("conditions")?;
        ensure!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{name}: {conditions:#?}");
    }
    Ok(())
}

/// Pods of before go on as they were; those that come now have addresses of both families, and reach all.
fn old_and_new(own: &Own, lived: &BTreeSet<String>, old: &[Pod]) -> Result<()> {
    let now = lives(own)?;
    ensure!(now == *lived, "before: {lived:#?}; now: {now:#?}");
    between(own, old).context("pods of before among themselves")?;
    own.apply(&WEB.replace("web", "fresh"))?;
    let fresh = pods_of(own, "fresh", BOTH, old.len())?;
    between(own, &fresh).context("pods of now among themselves")?;
    for (from, to) in fresh.iter().flat_map(|new| old.iter().flat_map(move |old| [(new, old), (old, new)])) {
        let at = SocketAddr::new(to.addresses[0], 8080);
        eventually(SOON, || {
            let said = inside(own, &from.name, &format!("{} | tail -n 1", get(at, "/")))?;
            ensure!(said.trim() == to.node, "{said}");
            Ok(())
        })
        .with_context(|| format!("between pods of before and of now: from {} to {}", from.name, to.name))?;
    }
    ensure!(lives(own)? == *lived, "they were started again");
    Ok(())
}

/// Somebody asks for both families of a Service that was there, and has its pods made anew.
fn service_gains(own: &Own, nodes: usize) -> Result<()> {
    let before = own.get("service web")?;
    ensure!(texts(&before["spec"]["clusterIPs"], "").len() == 1, "nobody has asked yet: {before:#}");
    own.kubectl(&["patch", "service", "web", "-p", r#"{"spec": {"ipFamilyPolicy": "RequireDualStack"}}"#])?;
    let now = own.get("service web")?;
    ensure!(now["spec"]["clusterIP"] == before["spec"]["clusterIP"], "{now:#}");
    own.kubectl(&["rollout", "restart", "daemonset/web"])?;
    eventually(SOON, || pods(own, BOTH, nodes).map(drop))?;
    service(own, BOTH, &pods(own, BOTH, nodes)?)
}

const ONE_RANGE: [&str; 4] = ["--pod-cidr", "10.42.0.0/16", "--service-cidr", "10.43.0.0/16"];

fn gains_family(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("gains")?;
    let host = own.host.clone().context("a host")?;
    let before = traces(&host, &own)?;
    own.run(&[&["up", "--nodes", "2"], &ONE_RANGE[..]].concat())?.ok()?;
    own.import_busybox(BUSYBOX)?;
    own.apply(WEB)?;
    let old = pods(&own, FOUR, 2)?;
    between(&own, &old)?;
    api_at(&own, FOUR)?;
    let (lived, nodes) = (lives(&own)?, own.get("nodes")?);
    for ranges in [
        ["--pod-cidr", "10.44.0.0/16,fd42::/56", "--service-cidr", SERVICES],
        ["--pod-cidr", "fd42::/56,10.42.0.0/16", "--service-cidr", "fd43::/112,10.43.0.0/16"],
        ["--pod-cidr", PODS, "--service-cidr", "10.43.0.0/16"],
    ] {
        let said = own.run(&[&["up"], &ranges[..]].concat())?.fails()?;
        ensure!(said.contains("a range of the other family may be said behind each"), "{said}");
    }
    let said = own.run(&[&["up"], &RANGES[..]].concat())?.ok()?;
    ensure!(said.contains(&format!("gets pods in {PODS} and Services in {SERVICES}")), "{said}");
    let log = |what: &str| {
        let theirs = own.run(&["logs", "--node", "vm-2", "--tail", "40"]).map(|o| o.stdout).unwrap_or_default();
        let ours = own.run(&["logs", "--tail", "40"]).map(|o| o.stdout).unwrap_or_default();
        format!("{what}\n--- the host\n{ours}\n--- the further node\n{theirs}")
    };
    eventually(SOON, || nodes_have_both(&own, &nodes, false)).with_context(|| log("the nodes"))?;
    objects(&own).with_context(|| log("what the cluster says"))?;
    api_at(&own, BOTH).with_context(|| log("the API server at the new address"))?;
    old_and_new(&own, &lived, &old).with_context(|| log("old pods and new"))?;
    service_gains(&own, 2).with_context(|| log("the Service"))?;
    let told = own.status()?;
    ensure!(told["crashes"].as_array().is_none_or(Vec::is_empty), "nothing broke: {told:#}");
    let said = own.run(&[&["up"], &ONE_RANGE[..]].concat())?.fails()?;
    ensure!(said.contains("they can't change"), "{said}");
    own.run(&["down"])?.ok()?;
    own.run(&["up"])?.ok()?;
    let works = || -> Result<()> {
        let pods = pods(&own, BOTH, 2)?;
        between(&own, &pods)?;
        service(&own, BOTH, &pods)
    };
    works().with_context(|| log("after down and up"))?;
    own.run(&["reset", "--yes"])?.ok()?;
    eventually(SOON, || {
        let after = traces(&host, &own)?;
        let left: Vec<_> = after.difference(&before).collect();
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    })
}

/// A cluster of two machines and of IPv4, whose pods reach each other.
fn joined(first: &Own, second: &Own, flags: &[&str]) -> Result<(Running, Vec<Pod>)> {
    up_at(first, flags)?;
    let agent = agent(first, second)?;
    for host in [first, second] {
        host.import_busybox(BUSYBOX)?;
    }
    first.apply(WEB)?;
    let pods = pods(first, FOUR, 2)?;
    between(first, &pods)?;
    Ok((agent, pods))
}

/// The agent runs in the foreground, and nobody touches its machine.
fn joined_follow(cluster: &Cluster) -> Result<()> {
    let (first, second) = wired(cluster)?;
    let (agent, old) = joined(&first, &second, &ONE_RANGE)?;
    let (lived, nodes) = (lives(&first)?, first.get("nodes")?);
    first.run(&[&["up"], &RANGES[..]].concat())?.ok()?;
    let told = || format!("{}\n--- the first\n{}", agent.said(), first.log_tail());
    eventually(SOON, || nodes_have_both(&first, &nodes, false)).with_context(told)?;
    api_at(&first, BOTH).with_context(told)?;
    old_and_new(&first, &lived, &old).with_context(told)?;
    service_gains(&first, 2).with_context(told)?;
    end(&first, &second, &agent)
}

/// The same where subnets are leased in an etcd of somebody's: its network gets the family, and each host one lease of both.
fn leases_follow(cluster: &Cluster) -> Result<()> {
    let (first, second) = wired(cluster)?;
    let (_etcd, url) = etcd_of_leases(&first)?;
    let leased = ["--flannel-backend", "vxlan", "--flannel-subnet-manager", "etcd", "--flannel-etcd-endpoints", &url];
    let (agent, old) = joined(&first, &second, &[&leased[..], &ONE_RANGE].concat())?;
    let host = first.host.as_ref().context("a host")?;
    let keys = || {
        host.sh(&format!(
            "ETCDCTL_API=3 etcdctl --endpoints {url} get --prefix --keys-only /coreos.com/network/subnets"
        ))
    };
    let subnets =
        |keys: &str| keys.lines().filter_map(|key| Some(key.rsplit_once('/')?.1.to_owned())).collect::<Vec<_>>();
    let before = subnets(&keys()?);
    let (lived, nodes) = (lives(&first)?, first.get("nodes")?);
    first.run(&[&["up"], &RANGES[..]].concat())?.ok()?;
    let told = || format!("{}\n--- the first\n{}", agent.said(), first.log_tail());
    eventually(SOON, || nodes_have_both(&first, &nodes, true)).with_context(told)?;
    eventually(SOON, || {
        let now = subnets(&keys()?);
        let grown = now.iter().zip(&before).all(|(now, before)| now.starts_with(&format!("{before}&fd42:")));
        ensure!(now.len() == 2 && before.len() == 2 && grown, "before: {before:?}; now: {now:?}");
        Ok(())
    })
    .with_context(told)?;
    old_and_new(&first, &lived, &old).with_context(told)?;
    service_gains(&first, 2).with_context(told)?;
    end(&first, &second, &agent)
}

const FIRST6: &str = "2001:db8:99::1";
pub const SECOND6: &str = "2001:db8:99::2";

pub fn wired(cluster: &Cluster) -> Result<(Own, Own)> {
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    for (own, address) in [(&first, FIRST6), (&second, SECOND6)] {
        let host = own.host.as_ref().context("a host")?;
        host.sh(&format!("ip address add {address}/64 dev wire nodad; ip -6 route add default dev wire"))?;
    }
    Ok((first, second))
}

fn works_on_hosts(hosts: [&Own; 2], families: &[bool], addresses: &[Vec<&str>; 2]) -> Result<()> {
    let first = hosts[0];
    for host in hosts {
        host.import_busybox(BUSYBOX)?;
    }
    first.apply(WEB)?;
    let pods = pods(first, families, 2)?;
    between(first, &pods)?;
    service(first, families, &pods)?;
    for (node, expected) in ["first", NODE].into_iter().zip(addresses) {
        let told = first.get(&format!("node {node}"))?;
        let all = told["status"]["addresses"].as_array().context("addresses")?;
        let internal: Vec<Value> = all.iter().filter(|a| a["type"] == "InternalIP").cloned().collect();
        ensure!(texts(&internal.into(), "address") == *expected, "{:#}", told["status"]["addresses"]);
        let public = &told["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ipv6"];
        ensure!(public.as_str() == expected.last().copied(), "{:#}", told["metadata"]["annotations"]);
    }
    Ok(())
}

fn end(first: &Own, second: &Own, agent: &Running) -> Result<()> {
    agent.signal(Signal::TERM)?;
    eventually(Duration::from_secs(20), || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })?;
    for own in [second, first] {
        own.run(&["reset", "--yes"])?.ok()?;
        let host = own.host.as_ref().context("a host")?;
        let left = host.sh(
            "ip -o link | grep -E 'flannel|fk[0-9]' || true; ip route show proto 70; ip -6 route show proto 70; nft list tables",
        )?;
        ensure!(left.trim().is_empty(), "left after reset: {left}");
    }
    Ok(())
}
