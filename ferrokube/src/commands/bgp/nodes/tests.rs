//! A reflector between speakers in network namespaces of their own, whose clients come from an API; and Calico's keys in an
//! etcd that goes away and comes back.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::etcd::daemon::{Config as EtcdConfig, Daemon};
use bgpd::config::Kind;
use bgpd::control::client::ask;
use bgpd::control::{Command, Which};
use bgpd::daemon::Farewell;
use bgpd::{Options, Place};
use flannel::{Endpoints, EtcdClient};
use linux::netlink::{Mac, NewVeth, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::FakeApi;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::etcd::{DeleteRangeRequest, PutRequest};

use super::node::Node;
use super::{Found, Nodes, Teller, api, etcd};

/// Long enough for a loaded machine; only waited for when something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
const NODES: &str = "/api/v1/nodes";

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A switch, and who is on it.
struct Lab {
    switch: NetNs,
    dir: TempDir,
}

/// A speaker on a host of the switch, 10.0.0.N.
struct Speaker {
    socket: PathBuf,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    fn new() -> Lab {
        let switch = NetNs::create().expect("a namespace");
        let mut rtnl = Rtnl::open_in(&switch).expect("netlink");
        rtnl.add_bridge("switch", Mac([2, 0, 0, 0, 1, 1]), 1500).expect("a bridge");
        Lab { switch, dir: tempfile::tempdir().expect("a folder") }
    }

    fn host(&self, n: u8) -> NetNs {
        let ns = NetNs::create().expect("a namespace");
        let mut rtnl = Rtnl::open_in(&self.switch).expect("netlink");
        let master = rtnl.link("switch").expect("links").map(|link| link.index);
        let (name, peer_ns) = (format!("port{n}"), Some(ns.as_fd()));
        let veth = NewVeth { name: &name, mac: None, master, mtu: 1500, peer_name: "eth0", peer_mac: None, peer_ns };
        rtnl.add_veth(&veth).expect("a cable");
        let mut inside = Rtnl::open_in(&ns).expect("netlink");
        for name in ["lo", "eth0"] {
            let index = inside.link(name).expect("links").expect("it").index;
            inside.set_up(index, true).expect("up");
        }
        let eth0 = inside.link("eth0").expect("links").expect("it").index;
        inside.put_address(eth0, Prefix::new(Ipv4Addr::new(10, 0, 0, n), 24)).expect("an address");
        ns
    }

    /// One with this file, and neighbours from an API where there is one.
    fn speaker(&self, n: u8, rest: &str, nodes: Option<FakeApi>) -> Speaker {
        let (file, socket) = (self.dir.path().join(format!("{n}.yaml")), self.dir.path().join(format!("{n}.sock")));
        let text = format!("router-id: 10.0.0.{n}\nas: 64512\ncontrol-socket: {}\n{rest}", socket.display());
        std::fs::write(&file, text).expect("written");
        let (ns, stop) = (self.host(n), CancellationToken::new());
        let (told, kind) = (stop.clone(), if nodes.is_some() { Kind::Reflector } else { Kind::Speaker });
        let thread = std::thread::spawn(move || {
            ns.enter().expect("inside");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let place = nodes.map(|nodes| {
                    let (teller, all) = Teller::new();
                    tokio::spawn(api::follow(nodes.client(), teller, told.clone()));
                    Place { group: Some("nodes".to_owned()), all }
                });
                let (_again, reloads) = mpsc::channel(1);
                let options = Options { file, kind, farewell: Farewell::Told };
                bgpd::run_with(options, place, reloads, told).await.expect("no error");
            });
        });
        Speaker { socket, stop, thread: Some(thread) }
    }

    /// A node's speaker, which tells one route of its own.
    fn node(&self, n: u8) -> Speaker {
        let reflector = "{address: 10.0.0.1, remote-as: internal, connect-retry-time: 500ms, idle-hold-time: 200ms}";
        let rest =
            format!("kernel: {{routes: false}}\nnetworks: [{{prefix: 10.{n}.0.0/24}}]\nneighbors: [{reflector}]\n");
        self.speaker(n, &rest, None)
    }
}

impl Speaker {
    fn ask(&self, command: &Command) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        ask(&self.socket, command, |item| {
            all.push(item);
            Ok(())
        })
        .map(|()| all)
    }

    /// Waits until it has these prefixes and no others.
    fn has(&self, wanted: &[&str]) -> Vec<Value> {
        eventually("routes", || {
            let routes = self.ask(&Command::Routes(Which::default()))?;
            let prefixes: Vec<&str> = routes.iter().filter_map(|route| route["prefix"].as_str()).collect();
            if prefixes == wanted { Ok(routes) } else { Err(format!("{prefixes:?}, not {wanted:?}")) }
        })
    }

    /// Waits until it has these neighbours, by description, address and how often there was a session.
    fn knows(&self, wanted: &[(&str, &str, u64)]) {
        eventually("neighbors", || {
            let all = self.ask(&Command::Neighbors { neighbor: None })?;
            let row = |n: &Value| {
                let text = |field: &str| n[field].as_str().unwrap_or_default().to_owned();
                (text("description"), text("address"), n["sessions"].as_u64().unwrap_or_default())
            };
            let rows: Vec<_> = all.iter().map(row).collect();
            let same = rows
                .iter()
                .map(|(name, address, ups)| (name.as_str(), address.as_str(), *ups))
                .eq(wanted.iter().copied());
            if same { Ok(()) } else { Err(format!("{rows:?}, not {wanted:?}")) }
        });
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn put(api: &FakeApi, n: u8, annotations: &Value) {
    let addresses = json!([{"type": "InternalIP", "address": format!("10.0.0.{n}")}]);
    // Of this test alone: informers of one process share objects by it.
    let uid = format!("reflector-{n}");
    let metadata = json!({"name": format!("node{n}"), "uid": uid, "annotations": annotations});
    api.put(
        NODES,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": addresses}}),
    );
}

#[test]
fn all_do_not_go_at_once_but_the_last_one_does() {
    let (mut teller, all) = Teller::new();
    let node = |n: u8| Node { addresses: vec![Ipv4Addr::new(10, 0, 0, n).into()], ..Node::default() };
    let mut nodes: Nodes = (1..=3).map(|n| (format!("node{n}"), Ok(node(n)))).collect();
    let mut left = |nodes: &Nodes| {
        teller.tell(nodes, None);
        all.borrow().as_deref().map_or(0, <[Found]>::len)
    };
    assert_eq!((left(&nodes), left(&Nodes::new()), left(&Nodes::new())), (3, 3, 3));
    nodes.retain(|name, _| name == "node2");
    assert_eq!((left(&nodes), left(&Nodes::new())), (1, 0));
}

#[test]
fn nodes_of_an_api_exchange_routes_through_the_reflector() {
    let (lab, api) = (Lab::new(), FakeApi::new());
    // The reflector is a node itself.
    put(&api, 1, &json!({"projectcalico.org/RouteReflectorClusterID": "9.9.9.9"}));
    put(&api, 2, &json!({"projectcalico.org/IPv4Address": "10.0.0.2/24", "projectcalico.org/ASNumber": "64512"}));
    put(&api, 3, &json!({}));
    put(&api, 9, &json!({"projectcalico.org/IPv4Address": "127.0.0.1/8"}));
    // Nodes connect: where both do, one connection may take the place of the other, and that is another session.
    let group = "groups: [{name: nodes, passive: true, idle-hold-time: 200ms, hold-time: 30s}]";
    let reflector = lab.speaker(1, &format!("cluster-id: 9.9.9.9\n{group}\n"), Some(api.clone()));
    let (two, three) = (lab.node(2), lab.node(3));
    let routes = three.has(&["10.2.0.0/24", "10.3.0.0/24"]);
    let path = &routes[0]["paths"][0];
    assert_eq!((&path["nextHop"], &path["originatorId"]), (&json!("10.0.0.2"), &json!("10.0.0.2")), "{path}");
    assert_eq!(path["clusterList"], json!(["9.9.9.9"]), "{path}");
    two.has(&["10.2.0.0/24", "10.3.0.0/24"]);
    reflector.knows(&[("node2", "10.0.0.2", 1), ("node3", "10.0.0.3", 1)]);

    // One joins, and one is taken out while it runs; the third has the session that it had.
    put(&api, 4, &json!({}));
    let four = lab.node(4);
    three.has(&["10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24"]);
    api.delete(NODES, "", "node2");
    three.has(&["10.3.0.0/24", "10.4.0.0/24"]);
    reflector.knows(&[("node3", "10.0.0.3", 1), ("node4", "10.0.0.4", 1)]);
    // Another reflector of the same cluster is no client: what the nodes told it, it is told by them.
    put(&api, 4, &json!({"projectcalico.org/RouteReflectorClusterID": "9.9.9.9"}));
    eventually("no client", || {
        let all = reflector.ask(&Command::Neighbors { neighbor: Some(IpAddr::from([10, 0, 0, 4]).into()) })?;
        if all[0]["client"] == json!(false) { Ok(()) } else { Err(all[0].to_string()) }
    });

    // The API is away: whoever was known stays, also when the file is read again.
    api.unserve(NODES);
    let told = reflector.ask(&Command::Reload).expect("an answer");
    assert!(told[0].as_str().is_some_and(|told| told.contains("0 added, 0 removed, 0 with a new session")), "{told:?}");
    reflector.knows(&[("node3", "10.0.0.3", 1), ("node4", "10.0.0.4", 1)]);
    three.has(&["10.3.0.0/24", "10.4.0.0/24"]);
    drop(four);
}

/// An etcd of ours on loopback; `first` looks at its store before anybody is served.
async fn etcd_at(port: u16, dir: &Path, first: impl AsyncFnOnce(&::etcd::Etcd)) -> Etcd {
    let config = EtcdConfig {
        data_dir: dir.join("etcd"),
        listen_client_urls: vec![format!("http://127.0.0.1:{port}")],
        unsafe_no_fsync: true,
        ..EtcdConfig::default()
    };
    let daemon = Daemon::start(config).await.expect("an etcd");
    let url = daemon.urls().remove(0);
    first(daemon.store()).await;
    let (store, stop) = (daemon.store().clone(), CancellationToken::new());
    let serving = tokio::spawn(daemon.serve(stop.clone()));
    Etcd { store, url, stop, serving }
}

struct Etcd {
    store: ::etcd::Etcd,
    url: String,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Etcd {
    async fn end(self) {
        self.stop.cancel();
        self.serving.await.expect("no panic");
        self.store.close();
    }
}

async fn put_key(store: &::etcd::Etcd, key: &str, value: &Value) {
    let key = format!("/calico/resources/v3/projectcalico.org/{key}").into();
    store.put(PutRequest { key, value: value.to_string().into(), ..PutRequest::default() }).await.expect("put");
}

async fn delete_key(store: &::etcd::Etcd, key: &str) {
    let key = format!("/calico/resources/v3/projectcalico.org/{key}").into();
    store.delete(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }).await.expect("deleted");
}

async fn until(all: &mut watch::Receiver<Option<Arc<[Found]>>>, what: &str, fits: impl Fn(&[Found]) -> bool) {
    let told = all.wait_for(|all| all.as_deref().is_some_and(&fits));
    if tokio::time::timeout(PATIENCE, told).await.is_err() {
        panic!("{what}: {:?}", all.borrow().as_deref());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calicos_keys_are_followed_across_an_outage_and_a_compaction() {
    let dir = tempfile::tempdir().expect("a folder");
    let node =
        |n: u8, number: Value| json!({"spec": {"bgp": {"ipv4Address": format!("10.0.0.{n}/24"), "asNumber": number}}});
    let etcd = etcd_at(0, dir.path(), async |store| {
        put_key(store, "bgpconfigurations/default", &json!({"spec": {"asNumber": 64600}})).await;
        // More than a page.
        for n in 1..=150 {
            put_key(store, &format!("nodes/node{n:03}"), &node(n, Value::Null)).await;
        }
    })
    .await;
    let stop = CancellationToken::new();
    let (teller, mut all) = Teller::new();
    let client =
        EtcdClient::new(&Endpoints { urls: vec![etcd.url.clone()], ..Endpoints::default() }).expect("a client");
    let following = tokio::spawn(etcd::follow(client, teller, stop.clone()));
    until(&mut all, "all", |all| all.len() == 150 && all.iter().all(|found| found.number == Some(64600))).await;

    put_key(&etcd.store, "nodes/node001", &node(1, json!(65001))).await;
    delete_key(&etcd.store, "nodes/node002").await;
    put_key(&etcd.store, "nodes/node003", &json!("rubbish")).await;
    let changed = |all: &[Found]| all.len() == 148 && all[0].number == Some(65001);
    until(&mut all, "changes", changed).await;
    delete_key(&etcd.store, "bgpconfigurations/default").await;
    until(&mut all, "Calico's own number", |all| all.iter().skip(1).all(|found| found.number == Some(64512))).await;

    let port = etcd.url.rsplit(':').next().and_then(|port| port.trim_matches('/').parse().ok()).expect("a port");
    etcd.end().await;
    assert!(changed(all.borrow().as_deref().expect("known")), "an etcd that is away changes nothing");
    // What happens meanwhile is compacted before anybody hears of it.
    let etcd = etcd_at(port, dir.path(), async |store| {
        delete_key(store, "nodes/node150").await;
        put_key(store, "nodes/node200", &node(200, Value::Null)).await;
        store.compact(store.revision(), true).await.expect("compacted");
    })
    .await;
    let name = |all: &[Found]| all.last().map(|found| found.name.clone());
    until(&mut all, "what happened meanwhile", |all| name(all).as_deref() == Some("node200") && all.len() == 148).await;
    stop.cancel();
    following.await.expect("no panic");
    etcd.end().await;
}
