//! Leases as annotations of nodes: told, heard of, and told again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use flannel::{AnnotationNames, ManagerOptions, NodesOptions, Source};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use testkit::FakeApi;

use crate::world::{Host, World, eventually};

const NODES: &str = "/api/v1/nodes";

/// An API server that has nodes and takes patches of their status.
#[derive(Clone, Default)]
struct Server {
    fake: FakeApi,
    nodes: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Server {
    fn put(&self, name: &str, pod_cidr: &str, annotations: Value) {
        self.put_all(name, &[pod_cidr], annotations);
    }

    fn put_all(&self, name: &str, pod_cidrs: &[&str], annotations: Value) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "uid": self.uid(name), "annotations": annotations},
            "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs},
        });
        self.nodes.lock().unwrap().insert(name.to_owned(), node.clone());
        self.fake.put(NODES, node);
    }

    /// Of this server alone: informers of one process share objects by it, and tests run side by side.
    fn uid(&self, name: &str) -> String {
        format!("{name}-{:p}", Arc::as_ptr(&self.nodes))
    }

    fn node(&self, name: &str) -> Value {
        self.nodes.lock().unwrap()[name].clone()
    }

    fn patch(&self, name: &str, patch: &Value) -> Value {
        let mut nodes = self.nodes.lock().unwrap();
        let node = nodes.get_mut(name).unwrap();
        for (key, value) in patch["metadata"]["annotations"].as_object().into_iter().flatten() {
            node["metadata"]["annotations"][key] = value.clone();
        }
        if !patch["status"].is_null() {
            node["status"] = patch["status"].clone();
        }
        self.fake.put(NODES, node.clone());
        node.clone()
    }

    /// A client of it, made where it is used.
    fn client(&self) -> kube::Client {
        let (server, reads) = (self.clone(), self.fake.client());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, reads) = (server.clone(), reads.clone());
            async move {
                if request.method() != Method::PATCH {
                    return reads.send(request).await;
                }
                assert_eq!(request.headers()["content-type"], "application/strategic-merge-patch+json");
                let path = request.uri().path().to_owned();
                let name = path.strip_prefix("/api/v1/nodes/").and_then(|rest| rest.strip_suffix("/status")).unwrap();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let node = server.patch(name, &serde_json::from_slice(&body).unwrap());
                Ok(Response::new(Body::from(node.to_string().into_bytes())))
            }
        });
        kube::Client::new(service, "default")
    }
}

fn start(world: &World, server: &Server, n: u8) -> Host {
    let mut host = world.bare_host(n);
    restart(world, server, &mut host, n);
    host
}

fn restart(world: &World, server: &Server, host: &mut Host, n: u8) {
    let config: PathBuf = world.dir.path().join("net-conf.json");
    start_by(server, host, n, Source::File(config));
}

fn start_by(server: &Server, host: &mut Host, n: u8, config: Source) {
    let server = server.clone();
    host.start_with(move || {
        ManagerOptions::Nodes(NodesOptions {
            client: server.client(),
            node: format!("node{n}"),
            config,
            names: AnnotationNames::new("flannel.alpha.coreos.com").unwrap(),
            sets_condition: true,
        })
    });
}

#[test]
fn pods_of_nodes_reach_each_other_and_a_node_made_anew_is_told_again() {
    let world = World::new("{}");
    let conf = r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    std::fs::write(world.dir.path().join("net-conf.json"), conf).unwrap();
    let server = Server::default();
    server.put("node1", "10.5.1.0/24", json!({}));
    let mut one = start(&world, &server, 1);
    let two = start(&world, &server, 2);
    one.pod();
    // Its node comes late.
    server.put("node2", "10.5.2.0/24", json!({"flannel.alpha.coreos.com/public-ip-overwrite": "192.0.2.2"}));
    let mut two = two;
    two.pod();
    eventually(|| one.asks(&two, 1000));
    eventually(|| two.asks_by_itself(&one));
    assert_eq!((one.subnet().to_string(), two.subnet().to_string()), ("10.5.1.0/24".into(), "10.5.2.0/24".into()));
    let node = server.node("node1");
    let told = |name: &str| node["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")].clone();
    assert_eq!((told("kube-subnet-manager"), told("backend-type")), ("true".into(), "vxlan".into()));
    assert_eq!(told("public-ip"), "192.0.2.1");
    eventually(|| {
        let condition = server.node("node1")["status"]["conditions"][0].clone();
        match (&condition["type"], &condition["status"], &condition["reason"]) {
            (Value::String(kind), Value::String(no), Value::String(why))
                if kind == "NetworkUnavailable" && no == "False" && why == "FlannelIsUp" =>
            {
                Ok(())
            }
            _ => Err(condition.to_string()),
        }
    });

    // Somebody deletes node 2, and it joins again as a new one.
    server.fake.delete(NODES, "", "node2");
    eventually(|| one.route(two.subnet()).map_or(Ok(()), |route| Err(format!("{route:?}"))));
    server.put("node2", "10.5.2.0/24", json!({}));
    eventually(|| one.asks(&two, 1000));

    // It gets another range: it ends, and starts again with that.
    server.put("node2", "10.5.7.0/24", server.node("node2")["metadata"]["annotations"].clone());
    let said = two.flannel.take().unwrap().end(false).unwrap_err();
    assert_eq!(said, "the lease of 10.5.2.0/24 was taken from this host");
    restart(&world, &server, &mut two, 2);
    eventually(|| match two.subnet().to_string().as_str() {
        "10.5.7.0/24" => Ok(()),
        other => Err(other.to_owned()),
    });
}

const MAPS: &str = "/api/v1/namespaces/kube-flannel/configmaps";
const MAP: Source = Source::Map { namespace: "kube-flannel", name: "kube-flannel-cfg", key: "net-conf.json" };

/// The network has this configuration from now on.
fn publish(server: &Server, network: &str, backend: &str) {
    publish_conf(server, &json!({"Network": network, "Backend": {"Type": backend}}).to_string());
}

fn publish_conf(server: &Server, conf: &str) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-flannel-cfg", "namespace": "kube-flannel", "uid": server.uid("map")},
        "data": {"net-conf.json": conf},
    });
    server.fake.document(&format!("{MAPS}/kube-flannel-cfg"), map.clone());
    server.fake.put(MAPS, map);
}

/// Two hosts with a pod each, that go by what is published and reach each other.
fn by_a_map(world: &World, server: &Server) -> [Host; 2] {
    publish(server, "10.5.0.0/16", "vxlan");
    let mut hosts = [world.bare_host(1), world.bare_host(2)];
    for (n, host) in (1..).zip(&mut hosts) {
        server.put(&format!("node{n}"), &format!("10.5.{n}.0/24"), json!({}));
        start_by(server, host, n, MAP);
        host.pod();
    }
    eventually(|| hosts[0].asks(&hosts[1], 1000));
    hosts
}

/// The control plane was started again with another backend: nobody touches the hosts.
#[test]
fn a_configuration_that_changes_is_followed_and_one_that_cannot_be_is_told() {
    let world = World::new("{}");
    let server = Server::default();
    let [mut one, mut two] = by_a_map(&world, &server);
    let links = |host: &Host| {
        let all = host.rtnl().links().unwrap().into_iter().map(|link| link.name);
        all.filter(|name| name.starts_with("flannel")).collect::<Vec<_>>()
    };
    for (backend, link, mtu) in
        [("host-gw", None, 1500), ("udp", Some("flannel0"), 1472), ("vxlan", Some("flannel.1"), 1450)]
    {
        publish(&server, "10.5.0.0/16", backend);
        for host in [&mut one, &mut two] {
            eventually(|| match (links(host), host.told.borrow_and_update().mtu) {
                (links, now) if links.iter().map(String::as_str).eq(link) && now == Some(mtu) => Ok(()),
                other => Err(format!("{backend}: {other:?}")),
            });
            // The size is known before there is a lease, and what is written there after it.
            eventually(|| match host.told("FLANNEL_MTU") {
                told if told == mtu.to_string() => Ok(()),
                told => Err(format!("{backend}: {told}")),
            });
        }
        eventually(|| one.asks(&two, 1400).map_err(|error| format!("{backend}: {error}")));
        eventually(|| two.asks_by_itself(&one).map_err(|error| format!("{backend}: {error}")));
        let told = server.node("node1")["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-type"].clone();
        assert_eq!(told, if backend == "udp" { "" } else { backend });
    }
    let apart = |host: &Host| host.told.borrow().apart.clone();
    publish(&server, "10.6.0.0/16", "host-gw");
    eventually(|| match apart(&one) {
        Some(why) if why.contains("kube-flannel-cfg: the network is 10.6.0.0/16 now, not 10.5.0.0/16") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    server.fake.delete(MAPS, "kube-flannel", "kube-flannel-cfg");
    eventually(|| apart(&one).filter(|why| why.contains("it is gone")).map(drop).ok_or(format!("{:?}", apart(&one))));
    // It keeps what it has, and says nothing any more once that is right again.
    eventually(|| one.asks(&two, 1400));
    assert_eq!(links(&one), ["flannel.1"]);
    publish(&server, "10.5.0.0/16", "vxlan");
    eventually(|| apart(&one).map_or(Ok(()), Err));
    assert_eq!(two.subnet().to_string(), "10.5.2.0/24");
}

/// The control plane was started again with a second family: hosts follow as their nodes get ranges of it, and what goes
/// by the first family goes on by the same link.
#[test]
fn a_second_family_is_followed_and_the_first_ones_links_stay() {
    let world = World::new("{}");
    let server = Server::default();
    let [one, two] = by_a_map(&world, &server);
    let link = |host: &Host| host.rtnl().link("flannel.1").unwrap().unwrap().index;
    let before = [link(&one), link(&two)];
    let both =
        r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "vxlan"}}"#;
    publish_conf(&server, both);
    let told = |name: &str| server.node(name)["metadata"]["annotations"].clone();
    let ranges = [["10.5.1.0/24", "fd00:5:0:1::/64"], ["10.5.2.0/24", "fd00:5:0:2::/64"]];
    server.put_all("node1", &ranges[0], told("node1"));
    eventually(|| one.subnet6().ok_or("none yet".to_owned()));
    assert_eq!((two.subnet6(), two.told.borrow().apart.clone()), (None, None), "its node has no range yet");
    eventually(|| two.asks(&one, 1000));
    server.put_all("node2", &ranges[1], told("node2"));
    for (host, other) in [(&one, ranges[1][1]), (&two, ranges[0][1])] {
        let way = || host.route(other.parse().unwrap()).map(|(_, link)| link);
        eventually(|| match way().as_deref() {
            Some("flannel-v6.1") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    eventually(|| one.asks(&two, 1400));
    assert_eq!([link(&one), link(&two)], before);
    assert_eq!(one.subnet().to_string(), "10.5.1.0/24");
}

/// A file says both families, and a node of before has a range of one.
#[test]
fn a_host_begins_with_the_family_that_its_node_has() {
    let world = World::new("{}");
    let file = world.dir.path().join("net-conf.json");
    let both = r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {"Type": "host-gw"}}"#;
    std::fs::write(&file, both).unwrap();
    let server = Server::default();
    server.put("node1", "10.5.1.0/24", json!({}));
    let one = start(&world, &server, 1);
    assert_eq!((one.subnet().to_string(), one.subnet6()), ("10.5.1.0/24".to_owned(), None));
    server.put_all(
        "node1",
        &["10.5.1.0/24", "fd00:5:0:1::/64"],
        server.node("node1")["metadata"]["annotations"].clone(),
    );
    eventually(|| one.subnet6().ok_or("none yet".to_owned()));
}
