//! A DNS server for a cluster of many Services, to be measured with dnsperf: tells its address and writes questions.
//!
//! `cargo run --release -p dns --example serve -- 127.0.0.1:5300 10000 questions.txt`
//! `dnsperf -s 127.0.0.1 -p 5300 -d questions.txt -l 10`
#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use dns::Config;
use serde_json::json;
use testkit::FakeApi;
use tokio_util::sync::CancellationToken;

#[tokio::main(worker_threads = 1)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:5300".to_owned()).parse().unwrap();
    let count: u32 = args.next().map_or(10_000, |a| a.parse().unwrap());
    let file = args.next().unwrap_or_else(|| "questions.txt".to_owned());
    let api = FakeApi::new();
    let mut questions = String::new();
    for i in 0..count {
        let ip = format!("10.{}.{}.{}", 96 + (i >> 16), (i >> 8) & 255, i & 255);
        api.put(
            "/api/v1/services",
            json!({
                "metadata": {"namespace": format!("ns-{}", i % 50), "name": format!("service-{i}")},
                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
            }),
        );
        let name = format!("service-{i}.ns-{}.svc.cluster.local", i % 50);
        // What a C library asks: A and AAAA, and the search list's misses before names outside.
        writeln!(questions, "{name} A\n{name} AAAA\n_http._tcp.{name} SRV\nexample.org.{name} A").unwrap();
    }
    std::fs::write(file, questions).unwrap();
    let config = Config { bind: vec![address], ..Config::default() };
    dns::run(config, api.client(), CancellationToken::new()).await.unwrap();
}
