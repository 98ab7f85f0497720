//! Whoever sends to a Service reaches exactly its endpoints.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use linux::conntrack::Conntrack;
use linux::netlink::{Route, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;
use proxy::{Config, VirtualServer, forget_stale};
use serde_json::json;

use crate::objects::{service, slice};
use crate::world::{OUTSIDE, World, ask, client, serve_tcp, serve_udp, tcp, tcp_within};

/// For what must not be answered at all.
const SHORT: Duration = Duration::from_millis(300);

fn names(answers: impl Iterator<Item = String>) -> BTreeSet<String> {
    answers.map(|a| a.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_cluster_address_leads_pods_and_the_host_to_every_endpoint_by_tcp_and_udp() {
    let mut world = World::new(3);
    for (pod, name) in [(0, "a"), (1, "b")] {
        serve_tcp(&world.pods[pod], 8080, name);
        serve_udp(&world.pods[pod], 5353, name);
    }
    let web = service("web", "10.43.0.9", &[("TCP", 80, 0), ("UDP", 53, 0)], json!({}));
    let ports = [("TCP", 80, 8080), ("UDP", 53, 5353)];
    let both = slice("web", &ports, &[("10.42.0.2", "here", "ready"), ("10.42.0.3", "here", "ready")]);
    world.set(&web, &[both]);

    let seen = names((0..32).map(|_| tcp(&world.pods[2], "10.43.0.9:80").unwrap()));
    assert_eq!(seen, ["a".to_owned(), "b".to_owned()].into());
    assert!(tcp(&world.pods[2], "10.43.0.9:80").unwrap().ends_with(" 10.42.0.4"), "pods keep their address");
    let seen = names((0..32).map(|_| ask(&client(&world.pods[2], "10.43.0.9:53")).unwrap()));
    assert_eq!(seen.len(), 2);
    assert!(tcp(&world.host, "10.43.0.9:80").is_err(), "there is no route to Services on this host yet");
    world.host.run(|| route_services_to("br0")).unwrap();
    assert!(tcp(&world.host, "10.43.0.9:80").unwrap().ends_with(" 10.42.0.1"));
    assert!(ask(&client(&world.host, "10.43.0.9:53")).unwrap().ends_with(" 10.42.0.1"));
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::new(1);
    serve_tcp(&world.pods[0], 8080, "a");
    serve_udp(&world.pods[0], 5353, "a");
    let web = service("web", "10.43.0.9", &[("TCP", 80, 30080), ("UDP", 53, 0)], json!({}));
    let one = slice("web", &[("TCP", 80, 8080), ("UDP", 53, 5353)], &[("10.42.0.2", "here", "ready")]);
    world.set(&web, &[one]);
    assert_eq!(tcp(&world.pods[0], "10.43.0.9:80").unwrap(), "a 10.42.0.1");
    assert_eq!(ask(&client(&world.pods[0], "10.43.0.9:53")).unwrap(), "a 10.42.0.1");
    assert_eq!(tcp(&world.pods[0], "10.42.0.1:30080").unwrap(), "a 10.42.0.1");
}

#[test]
fn a_load_balancer_on_the_nodes_address_answers_there_keeps_the_client_and_lets_only_ranges_in() {
    let mut world = World::new(2);
    serve_tcp(&world.pods[0], 8080, "a");
    let node: IpAddr = "192.168.7.1".parse().unwrap();
    world.settings.node.addresses = vec![node];
    let one = slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "here", "ready")]);
    let balanced = |ip: &str, extra: serde_json::Value| {
        let mut all = json!({"type": "LoadBalancer",
            "status": {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "Proxy"}]}}});
        extra.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
        service("web", "10.43.0.9", &[("TCP", 80, 0)], all)
    };
    let local = balanced("192.168.7.1", json!({"externalTrafficPolicy": "Local"}));
    world.set(&local, std::slice::from_ref(&one));
    assert!(tcp_within(&world.outside, "192.168.7.1:80", SHORT).is_err(), "a port that is not held is not taken");
    world.settings.held = [VirtualServer { addr: node, protocol: 6, port: 80 }].into_iter().collect();
    world.set(&local, std::slice::from_ref(&one));
    assert_eq!(tcp(&world.outside, "192.168.7.1:80").unwrap(), format!("a {OUTSIDE}"));
    assert!(tcp(&world.host, "192.168.7.1:80").unwrap().starts_with("a "), "the host, too");
    assert!(tcp(&world.pods[1], "192.168.7.1:80").unwrap().starts_with("a "), "and pods");
    // Another node's address is that node's: its API server is there.
    world.set(&balanced("192.168.7.9", json!({})), std::slice::from_ref(&one));
    assert!(tcp_within(&world.outside, "192.168.7.1:80", SHORT).is_err());
    let walled = balanced("192.168.7.1", json!({"loadBalancerSourceRanges": ["198.51.100.0/24"]}));
    world.set(&walled, std::slice::from_ref(&one));
    assert!(tcp_within(&world.outside, "192.168.7.1:80", SHORT).is_err(), "not from there");
    let open = balanced("192.168.7.1", json!({"loadBalancerSourceRanges": ["192.168.7.0/24"]}));
    world.set(&open, std::slice::from_ref(&one));
    assert!(tcp(&world.outside, "192.168.7.1:80").unwrap().starts_with("a "));
}

/// What `ping` says, or nothing where there is none.
fn ping(from: &NetNs, to: &str) -> Option<String> {
    let mut ping = std::process::Command::new("ping");
    let said = from.run(|| ping.args(["-n", "-c", "1", "-W", "1", to]).output()).unwrap().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).into_owned())
}

#[test]
fn a_ping_to_a_cluster_address_is_refused_as_upstreams_does() {
    let mut world = World::new(1);
    world.host.run(|| route_services_to("br0")).unwrap();
    let web = service("web", "10.43.0.9", &[("TCP", 80, 0)], json!({}));
    world.set(&web, &[slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "here", "ready")])]);
    for from in [&world.pods[0], &world.host] {
        let Some(said) = ping(from, "10.43.0.9") else { return eprintln!("not tested: there is no ping here") };
        assert!(said.contains("Destination Port Unreachable"), "{said}");
    }
}

#[test]
fn without_endpoints_a_connection_is_refused_at_once_and_so_is_a_port_that_is_not_there() {
    let mut world = World::new(1);
    world.host.run(|| route_services_to("br0")).unwrap();
    let web = service("web", "10.43.0.9", &[("TCP", 80, 30080), ("UDP", 53, 0)], json!({}));
    world.set(&web, &[slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "here", "unready")])]);
    let start = Instant::now();
    for (from, to) in [
        (&world.pods[0], "10.43.0.9:80"),
        (&world.host, "10.43.0.9:80"),
        (&world.outside, "192.168.7.1:30080"),
        (&world.pods[0], "10.43.0.9:81"),
    ] {
        assert_eq!(tcp(from, to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
    }
    assert_eq!(ask(&client(&world.pods[0], "10.43.0.9:53")).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// Packets to such an address went to the router, and came back, or reached whoever has that network elsewhere.
#[test]
fn an_address_that_no_service_has_leads_nowhere_until_one_has_it() {
    let mut world = World::new(2);
    let has = |ns: &NetNs, addresses: &[&str]| {
        let mut rtnl = Rtnl::open_in(ns).unwrap();
        let lo = rtnl.link("lo").unwrap().unwrap().index;
        addresses.iter().for_each(|a| rtnl.put_address(lo, Prefix::host(a.parse::<IpAddr>().unwrap())).unwrap());
    };
    // Whatever this host doesn't know goes to the one outside, who has such a network.
    has(&world.outside, &["10.43.0.9", "10.43.0.77", "10.43.255.255", "10.44.0.9"]);
    let mut rtnl = Rtnl::open_in(&world.host).unwrap();
    let uplink = rtnl.link("uplink").unwrap().unwrap().index;
    rtnl.put_route(&Route::via(Prefix::everything(false), OUTSIDE.parse().unwrap(), uplink)).unwrap();
    serve_tcp(&world.outside, 80, "stray");
    // As DNS of the node.
    has(&world.host, &["10.43.0.10"]);
    serve_tcp(&world.host, 80, "host");
    serve_tcp(&world.pods[0], 8080, "a");
    let reaches =
        |world: &World, to: &str| [&world.pods[1], &world.host].map(|from| tcp_within(from, to, SHORT).is_ok());
    assert_eq!(reaches(&world, "10.43.0.77:80"), [true, true], "nothing is known of a range");
    assert!(world.applier.set_ranges(None, &["10.43.0.0/16".parse().unwrap()]));
    world.applier.replace(&world.model.whole()).unwrap();
    for from in [&world.pods[1], &world.host] {
        let silence = tcp_within(from, "10.43.0.77:80", SHORT).unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::TimedOut, "dropped, as upstream's does");
    }
    // What the host has itself, the last of the range, and what is not of the range.
    for other in ["10.43.0.10:80", "10.43.255.255:80", "10.44.0.9:80"] {
        assert_eq!(reaches(&world, other), [true, true], "{other}");
    }
    let web = service("web", "10.43.0.9", &[("TCP", 80, 0)], json!({}));
    world.set(&web, &[slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "here", "ready")])]);
    assert_eq!(tcp(&world.pods[1], "10.43.0.9:80").unwrap(), "a 10.42.0.3");
    assert_eq!(tcp(&world.pods[1], "10.43.0.9:81").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let gone = world.model.remove(&"default/web".into());
    world.applier.apply([&gone.transaction]).unwrap();
    assert_eq!(tcp_within(&world.pods[1], "10.43.0.9:80", SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn a_node_port_answers_outside_loopback_and_pods_and_keeps_the_client_when_the_policy_is_local() {
    let mut world = World::new(2);
    serve_tcp(&world.pods[0], 8080, "a");
    let ports = [("TCP", 80, 30080)];
    let one = slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "here", "ready")]);
    world.set(&service("web", "10.43.0.9", &ports, json!({})), std::slice::from_ref(&one));
    assert_eq!(tcp(&world.outside, "192.168.7.1:30080").unwrap(), "a 10.42.0.1");
    assert_eq!(tcp(&world.host, "127.0.0.1:30080").unwrap(), "a 10.42.0.1");
    assert_eq!(tcp(&world.host, "192.168.7.1:30080").unwrap(), "a 10.42.0.1");
    assert_eq!(tcp(&world.pods[1], "192.168.7.1:30080").unwrap(), "a 10.42.0.1");

    let local = service("web", "10.43.0.9", &ports, json!({"externalTrafficPolicy": "Local"}));
    world.set(&local, &[one]);
    assert_eq!(tcp(&world.outside, "192.168.7.1:30080").unwrap(), format!("a {OUTSIDE}"));
    assert_eq!(tcp(&world.host, "192.168.7.1:30080").unwrap(), "a 10.42.0.1");
    assert_eq!(tcp(&world.pods[1], "192.168.7.1:30080").unwrap(), "a 10.42.0.3");

    let elsewhere = slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "there", "ready")]);
    world.set(&local, &[elsewhere]);
    let silence = tcp_within(&world.outside, "192.168.7.1:30080", SHORT).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::TimedOut, "another node's endpoints are not for those outside");
    assert!(tcp(&world.pods[1], "192.168.7.1:30080").is_ok(), "pods still get there");
}

#[test]
fn internal_traffic_stays_on_the_node_when_it_shall() {
    let mut world = World::new(3);
    serve_tcp(&world.pods[0], 8080, "a");
    serve_tcp(&world.pods[1], 8080, "b");
    let web = service("web", "10.43.0.9", &[("TCP", 80, 0)], json!({"internalTrafficPolicy": "Local"}));
    let ports = [("TCP", 80, 8080)];
    let mixed = slice("web", &ports, &[("10.42.0.2", "here", "ready"), ("10.42.0.3", "there", "ready")]);
    world.set(&web, &[mixed]);
    assert_eq!(names((0..16).map(|_| tcp(&world.pods[2], "10.43.0.9:80").unwrap())), ["a".to_owned()].into());
    world.set(&web, &[slice("web", &ports, &[("10.42.0.3", "there", "ready")])]);
    assert!(tcp_within(&world.pods[2], "10.43.0.9:80", SHORT).is_err());
}

#[test]
fn terminating_endpoints_serve_while_nothing_is_ready() {
    let mut world = World::new(3);
    serve_tcp(&world.pods[0], 8080, "a");
    serve_tcp(&world.pods[1], 8080, "b");
    let web = service("web", "10.43.0.9", &[("TCP", 80, 0)], json!({}));
    let ports = [("TCP", 80, 8080)];
    let last = slice("web", &ports, &[("10.42.0.2", "here", "terminating")]);
    world.set(&web, &[last]);
    assert!(tcp(&world.pods[2], "10.43.0.9:80").unwrap().starts_with("a "));
    let next = slice("web", &ports, &[("10.42.0.2", "here", "terminating"), ("10.42.0.3", "here", "ready")]);
    world.set(&web, &[next]);
    assert_eq!(names((0..16).map(|_| tcp(&world.pods[2], "10.43.0.9:80").unwrap())), ["b".to_owned()].into());
}

#[test]
fn a_client_keeps_its_endpoint_as_long_as_it_is_there() {
    let mut world = World::new(3);
    serve_tcp(&world.pods[0], 8080, "a");
    serve_tcp(&world.pods[1], 8080, "b");
    let sticky = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    let web = service("web", "10.43.0.9", &[("TCP", 80, 30080)], sticky);
    let ports = [("TCP", 80, 8080)];
    let both = slice("web", &ports, &[("10.42.0.2", "here", "ready"), ("10.42.0.3", "here", "ready")]);
    world.set(&web, std::slice::from_ref(&both));
    for to in ["10.43.0.9:80", "192.168.7.1:30080"] {
        let seen = names((0..24).map(|_| tcp(&world.pods[2], to).unwrap()));
        assert_eq!(seen.len(), 1, "{to}");
    }
    let kept = tcp(&world.pods[2], "10.43.0.9:80").unwrap();
    let (gone, other) = if kept.starts_with('a') { ("10.42.0.3", "b") } else { ("10.42.0.2", "a") };
    world.set(&web, &[slice("web", &ports, &[(gone, "here", "ready")])]);
    assert_eq!(names((0..8).map(|_| tcp(&world.pods[2], "10.43.0.9:80").unwrap())), [other.to_owned()].into());
    world.set(&web, &[both]);
    assert_eq!(names((0..24).map(|_| tcp(&world.pods[2], "10.43.0.9:80").unwrap())), [other.to_owned()].into());
}

#[test]
fn external_and_load_balancer_addresses_with_source_ranges() {
    let mut world = World::new(1);
    serve_tcp(&world.pods[0], 8080, "a");
    let one = slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "here", "ready")]);
    let mut extra = json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.7"],
        "loadBalancerSourceRanges": ["192.168.7.0/24"],
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.8"}, {"ip": "203.0.113.9", "ipMode": "Proxy"},
        ]}},
    });
    world.set(&service("web", "10.43.0.9", &[("TCP", 80, 0)], extra.clone()), std::slice::from_ref(&one));
    assert_eq!(tcp(&world.outside, "203.0.113.7:80").unwrap(), "a 10.42.0.1");
    assert_eq!(tcp(&world.outside, "203.0.113.8:80").unwrap(), "a 10.42.0.1");
    assert!(tcp_within(&world.outside, "203.0.113.9:80", SHORT).is_err(), "the load balancer itself proxies");
    extra["loadBalancerSourceRanges"] = json!(["192.168.8.0/24", "10.0.0.0/8"]);
    world.set(&service("web", "10.43.0.9", &[("TCP", 80, 0)], extra), &[one]);
    assert!(tcp_within(&world.outside, "203.0.113.8:80", SHORT).is_err());
    assert!(tcp(&world.outside, "203.0.113.7:80").is_ok(), "the ranges are for the load balancer's address only");
    assert!(tcp(&world.pods[0], "203.0.113.8:80").is_ok());
}

#[test]
fn a_udp_client_that_goes_on_sending_is_led_to_the_new_endpoint() {
    let mut world = World::new(3);
    serve_udp(&world.pods[0], 5353, "a");
    serve_udp(&world.pods[1], 5353, "b");
    let dns = service("dns", "10.43.0.10", &[("UDP", 53, 30053)], json!({}));
    let ports = [("UDP", 53, 5353)];
    world.set(&dns, &[slice("dns", &ports, &[("10.42.0.2", "here", "ready")])]);
    let inside = client(&world.pods[2], "10.43.0.10:53");
    let outside = client(&world.outside, "192.168.7.1:30053");
    assert!(ask(&inside).unwrap().starts_with("a ") && ask(&outside).unwrap().starts_with("a "));
    let change = world.set(&dns, &[slice("dns", &ports, &[("10.42.0.3", "here", "ready")])]);
    assert!(ask(&inside).unwrap().starts_with("a "), "the kernel remembers the flow");
    let forgotten = world.host.run(|| forget_stale(&mut Conntrack::open().unwrap(), &change.udp).unwrap()).unwrap();
    assert_eq!(forgotten, 2);
    assert!(ask(&inside).unwrap().starts_with("b ") && ask(&outside).unwrap().starts_with("b "));
}

#[test]
fn what_is_served_on_the_node_or_by_another_proxy_is_left_alone() {
    let mut world = World::new(1);
    world.settings.node_local = vec!["10.43.0.10".parse().unwrap()];
    let dns = service("dns", "10.43.0.10", &[("UDP", 53, 0)], json!({}));
    let other = json!({"labels": {"service.kubernetes.io/service-proxy-name": "other"}});
    let theirs = service("theirs", "10.43.0.11", &[("TCP", 80, 0)], other);
    let headless = service("headless", "None", &[("TCP", 80, 0)], json!({}));
    let name = service("name", "", &[("TCP", 80, 0)], json!({"type": "ExternalName"}));
    for service in [dns, theirs, headless, name] {
        assert!(world.set(&service, &[]).transaction.is_empty());
    }
}

#[test]
fn two_proxies_of_two_clusters_live_on_one_host() {
    let mut world = World::new(2);
    serve_tcp(&world.pods[0], 8080, "a");
    let config = Config { table: "second".into(), ..Config::default() };
    let mut second = world.host.run(|| proxy::Applier::open(config, Vec::new())).unwrap().unwrap();
    second.replace(&proxy::Model::default().whole()).unwrap();
    let one = slice("web", &[("TCP", 80, 8080)], &[("10.42.0.2", "here", "ready")]);
    world.set(&service("web", "10.43.0.9", &[("TCP", 80, 0)], json!({})), &[one]);
    assert!(tcp(&world.pods[1], "10.43.0.9:80").is_ok());
    world.host.run(|| proxy::remove("second").unwrap()).unwrap();
    assert!(!second.is_present().unwrap());
    assert!(world.applier.is_present().unwrap());
}

fn route_services_to(link: &str) {
    let mut rtnl = Rtnl::open().unwrap();
    let index = rtnl.link(link).unwrap().unwrap().index;
    rtnl.put_route(&Route::link("10.43.0.0/16".parse().unwrap(), index)).unwrap();
}
