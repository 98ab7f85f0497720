//! Configurations from the ConfigMap: in force at once, or not at all.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use serde_json::json;

use crate::forwarding::{Manner, upstream};
use crate::serving::Server;
use crate::world::{question, service, told};

const SERVICES: &str = "/api/v1/services";

fn answers(server: &Server, name: &str, kind: &str) -> (String, Vec<String>) {
    let (code, answers, ..) = told(&server.udp(&question(name, kind)));
    (code, answers)
}

/// Until the answers are these.
fn becomes(server: &Server, name: &str, kind: &str, expected: &[&str]) {
    server.eventually(&question(name, kind), |(_, answers, ..)| answers == expected);
}

#[test]
fn a_stub_domain_and_hosts_come_and_go_with_the_config_map() {
    let (corp, rest) = (upstream(Manner::Answers), upstream(Manner::Denies));
    let port = |server: &Server| server.address.port();
    let server = Server::start(&[rest.address]);
    assert_eq!(answers(&server, "a.corp.example.", "A").0, "Non-Existent Domain");
    server.configure(&format!(
        ".:{} {{\n hosts {{\n  192.0.2.9 fixed.example *.wild.example\n  fallthrough\n }}\n kubernetes cluster.local\n \
         forward . {}\n}}\ncorp.example {{\n forward . {}\n}}\n",
        port(&server),
        rest.address,
        corp.address
    ));
    becomes(&server, "a.corp.example.", "A", &["a.corp.example. A 192.0.2.1"]);
    assert_eq!(answers(&server, "fixed.example.", "A").1, ["fixed.example. A 192.0.2.9"]);
    assert_eq!(answers(&server, "fixed.example.", "AAAA"), ("No Error".to_owned(), vec![]), "the name is there");
    assert_eq!(answers(&server, "x.wild.example.", "A").1, ["x.wild.example. A 192.0.2.9"]);
    assert_eq!(answers(&server, "9.2.0.192.in-addr.arpa.", "PTR").1, ["9.2.0.192.in-addr.arpa. PTR fixed.example."]);
    assert_eq!(answers(&server, "other.example.", "A").0, "Non-Existent Domain");
    assert_eq!(answers(&server, "dns-version.cluster.local.", "TXT").0, "No Error");
    // What can't be read changes nothing, and is told.
    server.configure(". {\n forward . nowhere\n}\n");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(answers(&server, "fixed.example.", "A").1, ["fixed.example. A 192.0.2.9"]);
    server.api.delete("/api/v1/namespaces/kube-system/configmaps", "kube-system", "coredns");
    server.eventually(&question("fixed.example.", "A"), |(code, ..)| code == "Non-Existent Domain");
}

#[test]
fn questions_are_rewritten_and_answers_changed_back() {
    let server = Server::configured(
        ". {\n rewrite name suffix .mesh.example .default.svc.cluster.local answer auto\n rewrite name web.example \
         web.default.svc.cluster.local\n rewrite ttl web.default.svc.cluster.local 7\n kubernetes cluster.local\n}\n",
    );
    let web = json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80}]});
    server.api.put(SERVICES, serde_json::to_value(service("web", web)).unwrap());
    becomes(&server, "Web.example.", "A", &["Web.example. A 10.43.0.9"]);
    becomes(&server, "web.mesh.example.", "A", &["web.mesh.example. A 10.43.0.9"]);
    let (_, answers, _, additional) = told(&server.udp(&question("_http._tcp.web.mesh.example.", "SRV")));
    assert_eq!(answers, ["_http._tcp.web.mesh.example. SRV 0 100 80 web.mesh.example."]);
    assert_eq!(additional, ["web.mesh.example. A 10.43.0.9"]);
    let direct = Message::from_vec(&server.udp(&question("web.default.svc.cluster.local.", "A"))).unwrap();
    assert_eq!(direct.answers[0].ttl, 7);
    let (code, .., authority, _) = told(&server.udp(&question("none.mesh.example.", "A")));
    assert_eq!((code.as_str(), authority.len()), ("Non-Existent Domain", 1));
}

#[test]
fn names_of_the_cluster_are_made_as_it_says() {
    let server = Server::configured(". {\n kubernetes cluster.local {\n  ttl 9\n  endpoint_pod_names\n }\n}\n");
    let pod = "10-42-0-5.default.pod.cluster.local.";
    server.api.put("/api/v1/namespaces", json!({"metadata": {"name": "default"}}));
    server.api.put(SERVICES, serde_json::to_value(service("db", json!({"clusterIP": "None"}))).unwrap());
    server.api.put(
        "/apis/discovery.k8s.io/v1/endpointslices",
        json!({"metadata": {"namespace": "default", "name": "db-x", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["10.42.0.2"],
            "targetRef": {"kind": "Pod", "name": "db-0"}}]}),
    );
    becomes(&server, "db-0.db.default.svc.cluster.local.", "A", &["db-0.db.default.svc.cluster.local. A 10.42.0.2"]);
    assert_eq!(answers(&server, pod, "A").0, "Non-Existent Domain", "pods are disabled");
    assert_eq!(answers(&server, "example.org.", "A").0, "Server Failure", "nobody is left to ask");
    server.configure(". {\n kubernetes cluster.local {\n  pods verified\n }\n}\n");
    server.api.put(
        "/api/v1/pods",
        json!({"metadata": {"namespace": "default", "name": "p"}, "status": {"podIPs": [{"ip": "10.42.0.5"}]}}),
    );
    becomes(&server, pod, "A", &[&format!("{pod} A 10.42.0.5")]);
    assert_eq!(answers(&server, "10-42-0-6.default.pod.cluster.local.", "A").0, "Non-Existent Domain");
    server.api.delete("/api/v1/pods", "default", "p");
    server.eventually(&question(pod, "A"), |(code, ..)| code == "Non-Existent Domain");
}

#[test]
fn who_may_not_read_pods_is_told_that_none_is_verified() {
    const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    const EVENTS: &str = "/api/v1/namespaces/kube-system/events";
    for (allowed, events) in [(true, 0), (false, 1)] {
        let server = Server::configured(". {\n kubernetes cluster.local {\n  pods insecure\n }\n}\n");
        server.api.document(
            REVIEWS,
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {}, "status": {"allowed": allowed}}),
        );
        server.api.put("/api/v1/namespaces", json!({"metadata": {"name": "default"}}));
        let pod = "10-42-0-5.default.pod.cluster.local.";
        becomes(&server, pod, "A", &[&format!("{pod} A 10.42.0.5")]);
        assert_eq!(server.api.posted(REVIEWS), 0, "nobody wants to know");
        server.configure(". {\n kubernetes cluster.local {\n  pods verified\n }\n}\n");
        let start = Instant::now();
        while (server.api.posted(REVIEWS), server.api.posted(EVENTS)) != (1, events) {
            assert!(start.elapsed() < Duration::from_secs(10), "allowed: {allowed}: {}", server.api.posted(EVENTS));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn what_the_cluster_does_not_have_may_fall_through() {
    let outside = upstream(Manner::Answers);
    let text = format!(". {{\n kubernetes cluster.local {{\n  fallthrough\n }}\n forward . {}\n}}\n", outside.address);
    let server = Server::configured(&text);
    let name = "none.default.svc.cluster.local.";
    becomes(&server, name, "A", &[&format!("{name} A 192.0.2.1")]);
    assert_eq!(answers(&server, "dns-version.cluster.local.", "A"), ("No Error".to_owned(), vec![]));
}

#[test]
fn an_upstream_that_is_down_is_passed_over_until_it_answers() {
    let good = upstream(Manner::Answers);
    let down = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: SocketAddr = down.local_addr().unwrap();
    let server = Server::configured(&format!(
        ". {{\n forward . {address} {} {{\n  policy sequential\n  max_fails 1\n  health_check 100ms\n }}\n}}\n",
        good.address
    ));
    server.eventually(&question("one.example.", "A"), |(_, answers, ..)| answers.len() == 1);
    // The silent one fails its check, and is asked no more.
    std::thread::sleep(Duration::from_secs(4));
    let start = Instant::now();
    assert_eq!(answers(&server, "two.example.", "A").0, "No Error");
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    let before = good.asked.load(Ordering::SeqCst);
    drop(down);
    let back = UdpSocket::bind(address).unwrap();
    back.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 512];
    let (read, peer) = back.recv_from(&mut buffer).expect("it is looked at");
    buffer[2] |= 0x80;
    back.send_to(&buffer[..read], peer).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let client = server.send(&question("three.example.", "A"));
    back.recv_from(&mut buffer).expect("and asked again when it answers");
    drop(client);
    assert!(good.asked.load(Ordering::SeqCst) <= before + 2);
}

#[test]
fn a_stale_answer_is_better_than_none() {
    let good = upstream(Manner::Answers);
    let down = "127.0.0.1:9".parse::<SocketAddr>().unwrap();
    let cached = |to: SocketAddr| {
        format!(
            ". {{\n rewrite ttl x.example 1\n forward . {to}\n cache {{\n  success 2000 1 0\n  serve_stale 1h\n }}\n}}\n"
        )
    };
    let server = Server::configured(&cached(good.address));
    becomes(&server, "x.example.", "A", &["x.example. A 192.0.2.1"]);
    let asked = good.asked.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(1200));
    let answer = Message::from_vec(&server.udp(&question("x.example.", "A"))).unwrap();
    assert_eq!(answer.answers.len(), 1);
    let start = Instant::now();
    while good.asked.load(Ordering::SeqCst) == asked {
        assert!(start.elapsed() < Duration::from_secs(5), "it is asked for beside the answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.configure(&cached(down));
    server.eventually(&question("x.example.", "A"), |(code, ..)| code == "Server Failure");
}

#[test]
fn other_config_maps_and_keys_are_files() {
    let server = Server::start(&["127.0.0.1:9".parse().unwrap()]);
    server.put_config(
        "coredns-custom",
        json!({"corp.server": "corp {\n template IN A {\n  answer \"{{ .Name }} 5 IN A \
        192.0.2.3\"\n }\n}\n", "log.override": "errors\n"}),
    );
    server.put_config(
        "coredns",
        json!({"NodeHosts": "192.0.2.7 node-a\n", "Corefile": ". {\n hosts \
        /etc/coredns/NodeHosts\n import /etc/coredns/custom/*.override\n}\nimport /etc/coredns/custom/*.server\n"}),
    );
    becomes(&server, "node-a.", "A", &["node-a. A 192.0.2.7"]);
    assert_eq!(answers(&server, "x.corp.", "A").1, ["x.corp. A 192.0.2.3"]);
}

#[test]
fn pages_are_where_the_configuration_says() {
    use std::io::{Read, Write};
    let server = Server::start(&["127.0.0.1:9".parse().unwrap()]);
    let free = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (ready, metrics) = (free(), free());
    server
        .configure(&format!(". {{\n ready :{ready}\n prometheus 127.0.0.1:{metrics}\n kubernetes cluster.local\n}}\n"));
    let page = |address: SocketAddr, path: &str| {
        let start = Instant::now();
        loop {
            if let Ok(mut stream) = std::net::TcpStream::connect(address) {
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                return text;
            }
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let own = SocketAddr::new(server.address.ip(), ready);
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, metrics));
    assert!(page(own, "/ready").contains("200 OK"));
    assert!(page(metrics, "/metrics").contains("coredns_reload_total 1"));
    server.configure(". {\n nonsense\n}\n");
    std::thread::sleep(Duration::from_millis(200));
    assert!(page(metrics, "/metrics").contains("coredns_reload_failed_total 1"));
}
