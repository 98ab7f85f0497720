//! The loop: what the API server has reaches the kernel, health is told, and rules that someone removes come back.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use linux::netns::NetNs;
use linux::nft::{Batch, Family, Nft};
use proxy::Config;
use serde_json::{Value, json, to_value};
use testkit::FakeApi;
use tokio_util::sync::CancellationToken;

use crate::objects::{service, slice};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const NODES: &str = "/api/v1/nodes";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const PATIENCE: Duration = Duration::from_secs(10);

/// How many elements a map of the proxy has.
fn elements(ns: &NetNs, set: &str) -> usize {
    Nft::open_in(ns).unwrap().elements(Family::Ip, "kube-proxy", set).map_or(0, |e| e.len())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn what_the_server_has_reaches_the_kernel_and_is_told() {
    let ns = NetNs::create().unwrap();
    let api = FakeApi::new();
    let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let check_port = free_port();
    let config = Config {
        hostname_override: "here".into(),
        netns: Some(format!("/proc/{}/fd/{}", std::process::id(), ns.as_fd().as_raw_fd()).into()),
        healthz_bind_address: Some(health),
        metrics_bind_address: None,
        ..Config::default()
    };
    api.put(NODES, json!({"metadata": {"name": "here"}}));
    api.put(SERVICES, to_value(&*service("web", "10.43.0.9", &[("TCP", 80, 0)], json!({}))).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let stop = CancellationToken::new();
    let running = runtime.spawn(proxy::run(config, api.client(), stop.clone()));

    until("a Service without endpoints is refused", || elements(&ns, "no-endpoint-services") == 1);
    let ends = [("10.42.0.2", "here", "ready"), ("10.42.0.3", "there", "ready")];
    api.put(SLICES, to_value(&*slice("web", &[("TCP", 80, 8080)], &ends)).unwrap());
    until("endpoints are there", || elements(&ns, "endpoints") == 2 && elements(&ns, "no-endpoint-services") == 0);
    let range = |cidrs: &[&str]| json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
    api.put(RANGES, range(&["10.43.0.0/16"]));
    // A range is its first address, and the one behind it.
    until("the range of Services is there", || elements(&ns, "service-cidrs") == 2);
    api.put(RANGES, range(&["10.43.0.0/16", "fd43::/112"]));
    until("and its other family", || {
        Nft::open_in(&ns).unwrap().elements(Family::Ip6, "kube-proxy", "service-cidrs").map_or(0, |e| e.len()) == 2
    });
    let (status, body) = get(health, "/healthz");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["nodeEligible"]), (200, &json!(true)));

    let taint = json!({"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"});
    api.put(NODES, json!({"metadata": {"name": "here"}, "spec": {"taints": [taint]}}));
    until("a node that goes away is not eligible", || get(health, "/healthz").0 == 503);
    assert_eq!(get(health, "/livez").0, 200);

    let balanced = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": check_port});
    api.put(SERVICES, to_value(&*service("web", "10.43.0.9", &[("TCP", 80, 0)], balanced)).unwrap());
    let check = SocketAddr::from((Ipv4Addr::LOCALHOST, check_port));
    until("the health check port is open", || TcpStream::connect(check).is_ok());
    let (status, body) = get(check, "/");
    let body: Value = serde_json::from_str(&body).unwrap();
    let told =
        json!({"service": {"namespace": "default", "name": "web"}, "localEndpoints": 1, "serviceProxyHealthy": true});
    assert_eq!((status, body), (200, told));

    // Someone flushes all rules of the host, or one chain: they are back without anything else happening.
    Nft::open_in(&ns).unwrap().remove_table(Family::Ip, "kube-proxy").unwrap();
    until("the rules are back at once", || elements(&ns, "endpoints") == 3);
    let rules = |ns: &NetNs| Nft::open_in(ns).unwrap().rules(Family::Ip, "kube-proxy").map_or(0, |rules| rules.len());
    let whole = rules(&ns);
    let mut batch = Batch::new(Family::Ip, "kube-proxy");
    batch.flush_chain("nat-postrouting");
    Nft::open_in(&ns).unwrap().commit(batch).unwrap();
    until("the chain is filled again", || rules(&ns) == whole);
    Nft::open_in(&ns).unwrap().remove_table(Family::Ip, "kube-proxy").unwrap();
    api.put(SERVICES, to_value(&*service("other", "10.43.0.10", &[("TCP", 80, 0)], json!({}))).unwrap());
    until("the rules are back", || elements(&ns, "endpoints") == 3 && elements(&ns, "cluster-ips") == 2);
    api.delete(SERVICES, "default", "web");
    until("a deleted Service is gone", || elements(&ns, "endpoints") == 0 && TcpStream::connect(check).is_err());
    stop.cancel();
    runtime.block_on(running).unwrap().unwrap();
    assert_eq!(elements(&ns, "cluster-ips"), 1, "the rules outlive the proxy");
}
