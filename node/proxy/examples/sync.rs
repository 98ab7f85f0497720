//! How long the proxy takes for many Services: the full set from nothing, and one changed endpoint. Needs root; works
//! in a network namespace of its own.
//!
//! `cargo run --release -p proxy --example sync -- [SERVICES] [ENDPOINTS OF EACH]`
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use linux::netns::NetNs;
use proxy::{Applier, Config, Model, Name, Node, Settings, render_service};
use serde_json::json;

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u32>().unwrap());
    let (services, endpoints) = (args.next().unwrap_or(10_000), args.next().unwrap_or(4));
    NetNs::create().unwrap().run(|| measure(services, endpoints)).unwrap();
}

fn measure(count: u32, endpoints: u32) {
    let objects: Vec<_> = (0..count).map(|i| (name(i), service(i), slice(i, 0..endpoints))).collect();
    let settings = Settings { node: Node { name: "node-0".into(), zone: None }, node_local: Vec::new() };
    let mut applier = Applier::open(Config::default(), Vec::new()).unwrap();
    let mut model = Model::default();

    let start = Instant::now();
    for (name, service, slice) in &objects {
        model.set(name, render_service(service, &[slice], &settings, None));
    }
    let rendered = start.elapsed();
    applier.replace(&model.whole()).unwrap();
    let full = start.elapsed();
    let mut out = std::io::stdout();
    writeln!(out, "{count} services x {endpoints} endpoints").unwrap();
    writeln!(out, "full sync        {full:>10.2?} (of it rendering {rendered:.2?})").unwrap();

    let mut change = |what: &str, ends: &dyn Fn(u32) -> std::ops::Range<u32>| {
        let mut times: Vec<Duration> = (0..200)
            .map(|i| {
                let i = i * 37 % count;
                let slice = slice(i, ends(i));
                let (name, service, _) = &objects[i as usize];
                let start = Instant::now();
                let rendered = render_service(service, &[&slice], &settings, model.rendered(name));
                let change = model.set(name, rendered);
                applier.apply([&change.transaction]).unwrap();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        writeln!(out, "{what:16} {:>10.2?} p50, {:.2?} p99", times[100], times[198]).unwrap();
    };
    change("one replaced", &|_| 1..endpoints + 1);
    change("one more", &|_| 1..endpoints + 2);
    change("one less", &|_| 1..endpoints + 1);
    let start = Instant::now();
    applier.replace(&model.whole()).unwrap();
    writeln!(out, "full resync      {:>10.2?}", start.elapsed()).unwrap();
}

fn name(i: u32) -> Name {
    format!("bench/service-{i}").into()
}

fn service(i: u32) -> Arc<Service> {
    let object = json!({
        "metadata": {"namespace": "bench", "name": format!("service-{i}")},
        "spec": {
            "clusterIP": format!("10.{}.{}.{}", 96 + (i >> 16), (i >> 8) & 255, i & 255),
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn slice(i: u32, ends: std::ops::Range<u32>) -> EndpointSlice {
    let endpoints: Vec<_> = ends
        .map(|e| {
            let n = i * 8 + e;
            json!({
                "addresses": [format!("10.{}.{}.{}", 128 + (n >> 16), (n >> 8) & 255, n & 255)],
                "nodeName": format!("node-{}", n % 100), "conditions": {"ready": true},
            })
        })
        .collect();
    let object = json!({
        "metadata": {"namespace": "bench", "name": format!("service-{i}-x"), "labels": {"kubernetes.io/service-name": format!("service-{i}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    });
    serde_json::from_value(object).unwrap()
}
