//! Who answers at an address that several Services want: its owner by cluster address, however old or early the others
//! are, and never the one that came last.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use proxy::{Model, Name, Node, Settings, Slot, Value, VirtualServer, render_service};
use serde_json::{Value as Json, json};

use crate::objects::{service, slice};
use crate::world::{World, ask, client, serve_tcp, serve_udp, tcp};

const EARLY: &str = "2020-01-01T00:00:00Z";
const LATE: &str = "2024-01-01T00:00:00Z";

fn settings() -> Settings {
    Settings {
        node: Node { name: "here".into(), ..Node::default() },
        node_local: vec!["10.43.0.10".parse().unwrap()],
        ..Settings::default()
    }
}

fn server(addr: &str, port: u16) -> VirtualServer {
    VirtualServer { addr: addr.parse::<IpAddr>().unwrap(), protocol: 6, port }
}

/// Sets a Service with one endpoint, which has the Service's number, or none.
fn set(model: &mut Model, name: &str, object: &Arc<Service>, ports: &[u16], endpoint: Option<&str>) -> proxy::Change {
    let ports: Vec<_> = ports.iter().map(|port| ("TCP", *port, 8080)).collect();
    let ends: Vec<_> = endpoint.into_iter().map(|addr| (addr, "here", "ready")).collect();
    let name: Name = name.into();
    let slice = slice(object.metadata.name.as_deref().unwrap(), &ports, &ends);
    let rendered = render_service(object, &[&slice], &settings(), model.rendered(&name));
    model.set(&name, rendered)
}

/// The Service whose endpoints an address leads to: by its own cluster address.
fn leads_to(model: &Model, addr: &str, port: u16) -> Option<String> {
    match model.ruleset().get(&Slot::Service(server(addr, port)))? {
        Value::Chain(proxy::Chain::Pick(pick)) => match pick.via {
            proxy::Via::ClusterIp => Some("itself".to_owned()),
            proxy::Via::Alias(own) => Some(own.addr.to_string()),
        },
        other => panic!("{other:?}"),
    }
}

fn api() -> Arc<Service> {
    service("kubernetes", "10.43.0.1", &[("TCP", 443, 0)], json!({"type": "ClusterIP", "created": LATE}))
}

fn thief(external: Json) -> Arc<Service> {
    let ports = [("TCP", 443, 0), ("TCP", 444, 0), ("TCP", 53, 0)];
    service("a", "10.43.0.66", &ports, json!({"externalIPs": external, "created": EARLY}))
}

#[test]
fn an_external_address_never_takes_a_cluster_address_whatever_came_first() {
    let thief = thief(json!(["10.43.0.1", "10.43.0.10"]));
    for first in [true, false] {
        let mut model = Model::default();
        if first {
            set(&mut model, "aaa/a", &thief, &[443, 444, 53], Some("10.42.0.66"));
            assert_eq!(leads_to(&model, "10.43.0.1", 443).as_deref(), Some("10.43.0.66"), "nobody has it yet");
        }
        set(&mut model, "default/kubernetes", &api(), &[443], Some("10.42.0.2"));
        if !first {
            set(&mut model, "aaa/a", &thief, &[443, 444, 53], Some("10.42.0.66"));
        }
        assert_eq!(leads_to(&model, "10.43.0.1", 443).as_deref(), Some("itself"));
        assert_eq!(leads_to(&model, "10.43.0.1", 444), None, "ports that the owner doesn't have are its own, too");
        assert_eq!(leads_to(&model, "10.43.0.10", 53), None, "what the node serves itself");
        // The owner loses its endpoints: refused, not led elsewhere.
        set(&mut model, "default/kubernetes", &api(), &[443], None);
        assert_eq!(leads_to(&model, "10.43.0.1", 443), None);
        assert_eq!(model.ruleset().get(&Slot::NoEndpoints(server("10.43.0.1", 443))), Some(&Value::Reject));
        model.remove(&"default/kubernetes".into());
        assert_eq!(leads_to(&model, "10.43.0.1", 443).as_deref(), Some("10.43.0.66"));
        assert_eq!(leads_to(&model, "10.43.0.1", 444).as_deref(), Some("10.43.0.66"));
    }
}

#[test]
fn a_load_balancer_without_endpoints_or_with_ranges_does_not_close_a_cluster_address() {
    let mut model = Model::default();
    let extra = json!({
        "type": "LoadBalancer", "created": EARLY, "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "status": {"loadBalancer": {"ingress": [{"ip": "10.43.0.1"}]}},
    });
    let wall = service("a", "10.43.0.66", &[("TCP", 443, 0)], extra);
    set(&mut model, "aaa/a", &wall, &[443], None);
    set(&mut model, "default/kubernetes", &api(), &[443], Some("10.42.0.2"));
    let at = server("10.43.0.1", 443);
    let rules = model.ruleset();
    assert!(rules.contains_key(&Slot::Service(at)));
    assert!(!rules.contains_key(&Slot::Firewall(at)) && !rules.contains_key(&Slot::NoEndpoints(at)));
}

#[test]
fn a_load_balancer_address_beats_an_external_one_and_the_older_the_newer() {
    let external = |name: &str, ip: &str, created: &str| {
        service(name, ip, &[("TCP", 80, 0)], json!({"externalIPs": ["203.0.113.1"], "created": created}))
    };
    let mut model = Model::default();
    set(&mut model, "b/old", &external("old", "10.43.0.20", EARLY), &[80], Some("10.42.0.20"));
    set(&mut model, "a/new", &external("new", "10.43.0.21", LATE), &[80], Some("10.42.0.21"));
    assert_eq!(leads_to(&model, "203.0.113.1", 80).as_deref(), Some("10.43.0.20"), "the first by name is younger");
    set(&mut model, "a/same", &external("same", "10.43.0.22", EARLY), &[80], Some("10.42.0.22"));
    assert_eq!(leads_to(&model, "203.0.113.1", 80).as_deref(), Some("10.43.0.22"), "of the same age: by name");
    let extra = json!({
        "type": "LoadBalancer", "created": LATE, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    set(&mut model, "z/lb", &service("lb", "10.43.0.23", &[("TCP", 80, 0)], extra), &[80], Some("10.42.0.23"));
    assert_eq!(leads_to(&model, "203.0.113.1", 80).as_deref(), Some("10.43.0.23"));
}

#[test]
fn a_source_range_that_can_not_be_read_lets_nobody_in() {
    let mut model = Model::default();
    let extra = json!({
        "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0/8"],
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    set(&mut model, "a/lb", &service("lb", "10.43.0.23", &[("TCP", 80, 0)], extra), &[80], Some("10.42.0.23"));
    let rules = model.ruleset();
    let Some(Value::Chain(proxy::Chain::Firewall(ranges))) = rules.get(&Slot::Firewall(server("203.0.113.1", 80)))
    else {
        panic!("open to everyone")
    };
    assert_eq!(ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0/32"]);
}

#[test]
fn a_pod_that_asks_the_api_reaches_the_api_and_not_whoever_lists_its_address() {
    let mut world = World::new(3);
    serve_tcp(&world.pods[0], 8080, "api");
    serve_tcp(&world.pods[1], 8080, "thief");
    serve_udp(&world.pods[0], 8080, "api");
    serve_udp(&world.pods[1], 8080, "thief");
    let both = |port| [("TCP", port, 8080), ("UDP", port, 8080)];
    let extra = json!({"externalIPs": ["10.43.0.1"], "created": EARLY});
    let mut ports = both(443).map(|(p, n, _)| (p, n, 0)).to_vec();
    ports.extend(both(444).map(|(p, n, _)| (p, n, 0)));
    let theirs = slice("a", &[both(443), both(444)].concat(), &[("10.42.0.3", "here", "ready")]);
    world.set(&service("a", "10.43.0.66", &ports, extra), &[theirs]);
    let owner = service("kubernetes", "10.43.0.1", &both(443).map(|(p, n, _)| (p, n, 0)), json!({"created": LATE}));
    world.set(&owner, &[slice("kubernetes", &both(443), &[("10.42.0.2", "here", "ready")])]);
    for _ in 0..8 {
        assert!(tcp(&world.pods[2], "10.43.0.1:443").unwrap().starts_with("api "));
        assert!(ask(&client(&world.pods[2], "10.43.0.1:443")).unwrap().starts_with("api "));
    }
    assert!(tcp(&world.pods[2], "10.43.0.1:444").is_err(), "refused: the API has no such port");
    world.set(&owner, &[]);
    assert!(tcp(&world.pods[2], "10.43.0.1:443").is_err(), "refused while the API has no endpoint");
}

#[test]
fn endpoints_of_whoever_lists_an_address_do_not_end_the_flows_of_its_owner() {
    let mut model = Model::default();
    let udp = |name: &str, ip: &str, extra: Json| service(name, ip, &[("UDP", 53, 0)], extra);
    let mut set = |name: &str, object: &Arc<Service>, endpoint: &str| {
        let name: Name = name.into();
        let of = object.metadata.name.as_deref().unwrap();
        let slice = slice(of, &[("UDP", 53, 53)], &[(endpoint, "here", "ready")]);
        let rendered = render_service(object, &[&slice], &settings(), model.rendered(&name));
        model.set(&name, rendered).udp
    };
    let theirs = udp("a", "10.43.0.66", json!({"externalIPs": ["10.43.0.1"], "created": EARLY}));
    set("default/owner", &udp("owner", "10.43.0.1", json!({"created": LATE})), "10.42.0.2");
    let owned: IpAddr = "10.43.0.1".parse().unwrap();
    for endpoint in ["10.42.0.66", "10.42.0.67"] {
        let flows = set("aaa/a", &theirs, endpoint);
        assert!(flows.iter().any(|f| f.addr == Some("10.43.0.66".parse().unwrap())));
        assert!(!flows.iter().any(|f| f.addr == Some(owned)), "{flows:?}");
    }
}
