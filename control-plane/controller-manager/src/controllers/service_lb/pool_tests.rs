//! Addresses of a pool: who gets which, who keeps his, and which node announces it. Plans are applied to a model.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use facts::announcing::{ANNOUNCED_BY, NETWORKS};
use serde_json::{Value, json};
use testkit::model::{World, from};

use super::*;

/// A world of Services and nodes beside a pool.
struct Fixture {
    world: World,
    pool: Vec<meta::Span>,
    silent: BTreeSet<String>,
    events: Vec<(String, String)>,
}

impl Fixture {
    fn new(pool: &[&str]) -> Fixture {
        let pool = pool.iter().map(|text| text.parse().unwrap()).collect();
        let mut fixture = Fixture { world: World::at(1000), pool, silent: BTreeSet::new(), events: Vec::new() };
        ["a", "b", "c"].into_iter().for_each(|name| fixture.node(name, "192.0.2.0/24,2001:db8::/64", "True"));
        fixture
    }

    fn node(&mut self, name: &str, networks: &str, ready: &str) {
        let number = 100 + name.bytes().map(u32::from).sum::<u32>() % 100;
        let node = json!({
            "metadata": {"name": name, "annotations": {NETWORKS: networks}},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{number}")}],
            },
        });
        self.world.put(&from::<Node>(node));
    }

    fn edit_node(&mut self, name: &str, edit: impl FnOnce(&mut Node)) {
        self.world.edit::<Node>("", name, edit);
    }

    fn add(&mut self, name: &str, spec: Value) {
        let mut all = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        self.world.advance(1);
        self.world.put(&from::<Service>(json!({"metadata": {"namespace": "d", "name": name}, "spec": all})));
    }

    fn endpoints(&mut self, of: &str, nodes: &[&str]) {
        let endpoints: Vec<_> = nodes.iter().map(|n| json!({"addresses": ["10.42.0.2"], "nodeName": n})).collect();
        self.world.put(&from::<EndpointSlice>(json!({
            "metadata": {"namespace": "d", "name": of, "labels": {SERVICE_NAME: of}},
            "addressType": "IPv4", "endpoints": endpoints,
        })));
    }

    /// Looks at each Service, one after the other, until nothing is left to do.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 20, "it does not settle");
            let keys: Vec<Key> = self.world.list::<Service>().iter().map(|s| Key::of(&**s)).collect();
            let mut idle = true;
            for key in keys {
                let plan = self.plan(&key);
                idle &= plan.steps.is_empty();
                for action in plan.steps.iter().flat_map(|step| step.actions()) {
                    if let client::Action::Event { reason, note, .. } = action {
                        self.events.push((reason.to_string(), format!("{}: {note}", key.name)));
                    }
                }
                self.world.apply(&plan);
            }
            if idle {
                return self.check();
            }
        }
    }

    fn plan(&self, key: &Key) -> Plan {
        let (services, nodes, slices) = (self.world.list(), self.world.list(), self.world.list::<EndpointSlice>());
        let of = |service: &Service| -> Vec<Arc<EndpointSlice>> {
            let key = Key::of(service);
            slices.iter().filter(|s| service_of(s).as_ref() == Some(&key)).cloned().collect()
        };
        let Some(service) = self.world.get::<Service>(&key.namespace, &key.name) else { return Plan::default() };
        let (pool, silent) = (&self.pool, &self.silent);
        let cluster = Cluster { services: &services, nodes: &nodes, slices: &of, reserved: &[], pool, silent };
        reconcile(&service, &cluster)
    }

    /// Whatever happened: no address is two Services' or a node's, and none is from elsewhere.
    fn check(&self) {
        let services = self.world.list::<Service>();
        let all: Vec<IpAddr> = services.iter().flat_map(|s| share::held(s)).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len(), "{all:?}");
        assert!(all.iter().all(|a| self.pool.iter().any(|span| span.contains(*a))), "{all:?}");
        let nodes = self.world.list::<Node>();
        assert!(!nodes.iter().flat_map(|n| share::addresses(n)).any(|(_, ip)| all.contains(&ip.parse().unwrap())));
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let service = self.world.get::<Service>("d", name).unwrap();
        let ingress = service.status.iter().filter_map(|s| s.load_balancer.as_ref()?.ingress.as_ref()).flatten();
        ingress
            .map(|i| {
                assert_eq!(i.ip_mode.as_deref(), Some("VIP"));
                i.ip.clone().unwrap()
            })
            .collect()
    }

    fn announced(&self, name: &str) -> String {
        let service = self.world.get::<Service>("d", name).unwrap();
        announcing::said(&service).unwrap_or_default().to_owned()
    }

    fn announcer(&self, name: &str) -> String {
        self.announced(name).split_once('=').map(|(_, node)| node.to_owned()).unwrap_or_default()
    }

    fn told(&self, reason: &str, what: &str) -> bool {
        self.events.iter().any(|(r, note)| r == reason && note.contains(what))
    }
}

fn dual(policy: &str) -> Value {
    json!({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": policy})
}

#[test]
fn each_service_has_an_address_of_its_own_and_keeps_it() {
    let mut all = Fixture::new(&["192.0.2.240-192.0.2.242"]);
    for name in ["one", "two", "three", "four"] {
        all.add(name, json!({}));
    }
    all.settle();
    let taken: BTreeMap<_, _> = ["one", "two", "three", "four"].map(|name| (name, all.addresses(name))).into();
    assert_eq!(taken.values().filter(|a| a.is_empty()).count(), 1, "{taken:?}");
    let pending = *taken.iter().find(|(_, a)| a.is_empty()).unwrap().0;
    assert!(
        all.told(
            "SyncLoadBalancerFailed",
            &format!("{pending}: every IPv4 address of the load balancer pool is taken")
        )
    );
    // Another goes: what it had is free once it has let go, and the others keep theirs.
    let goes = taken.keys().find(|name| **name != pending).unwrap();
    all.world.delete::<Service>("d", goes);
    all.settle();
    assert!(all.world.get::<Service>("d", goes).is_none(), "its finalizer is gone");
    assert_eq!(all.addresses(pending), taken[goes]);
    for (name, had) in taken.iter().filter(|(name, _)| *name != goes && **name != pending) {
        assert_eq!(all.addresses(name), *had);
    }
}

#[test]
fn an_address_that_is_asked_for_is_given_or_told_why_not() {
    let mut all = Fixture::new(&["192.0.2.240-192.0.2.255", "2001:db8::/120"]);
    let asks = |ip: &str| json!({"loadBalancerIP": ip});
    all.add("one", asks("192.0.2.255"));
    all.settle();
    assert_eq!(all.addresses("one"), ["192.0.2.255"], "though it is nobody's who doesn't ask");
    for (name, ip, why) in [
        ("late", "192.0.2.255", "is taken by Service d/one: pending until it is free"),
        ("far", "192.0.2.7", "is not in the load balancer pool: choose one of 192.0.2.240-192.0.2.255, 2001:db8::"),
        ("six", "2001:db8::9", "is none of the Service's ipFamilies (IPv4)"),
        ("word", "web", "is no IP address"),
    ] {
        all.add(name, asks(ip));
        all.settle();
        assert!(all.addresses(name).is_empty() && all.told("SyncLoadBalancerFailed", why), "{name}: {:?}", all.events);
    }
    all.add("both", {
        let mut spec = dual("RequireDualStack");
        spec["loadBalancerIP"] = json!("192.0.2.245");
        spec
    });
    all.settle();
    assert_eq!(all.addresses("both"), ["2001:db8::1", "192.0.2.245"], "in the order of its families");
    // Another wish is another address.
    all.world.edit::<Service>("d", "one", |s| s.spec.as_mut().unwrap().load_balancer_ip = Some("192.0.2.250".into()));
    all.settle();
    assert_eq!((all.addresses("one"), all.addresses("late")), (vec!["192.0.2.250".into()], vec!["192.0.2.255".into()]));
}

#[test]
fn families_are_those_of_the_service_as_far_as_its_policy_says() {
    let mut all = Fixture::new(&["192.0.2.240/28"]);
    all.add("prefers", dual("PreferDualStack"));
    all.add("needs", dual("RequireDualStack"));
    all.add("six", json!({"ipFamilies": ["IPv6"]}));
    all.settle();
    assert_eq!(all.addresses("prefers"), ["192.0.2.240"]);
    assert!(all.addresses("needs").is_empty() && all.addresses("six").is_empty());
    assert!(all.told("SyncLoadBalancerFailed", "six: the load balancer pool has no IPv6 addresses"));
    all.pool.push("2001:db8::/120".parse().unwrap());
    all.settle();
    let both = all.addresses("prefers");
    assert!(
        both.len() == 2 && both[0].starts_with("2001:db8::") && both[1] == "192.0.2.240",
        "it keeps what it had: {both:?}"
    );
    assert_eq!((all.addresses("needs").len(), all.addresses("six").len()), (2, 1));
    let announced = all.announced("needs");
    assert_eq!(announced.split(',').count(), 2, "{announced}");
}

#[test]
fn what_the_pool_has_no_more_is_replaced_and_of_two_the_older_keeps_its_address() {
    let mut all = Fixture::new(&["192.0.2.240/28"]);
    ["one", "two"].into_iter().for_each(|name| all.add(name, json!({})));
    all.settle();
    let before = (all.addresses("one"), all.addresses("two"));
    all.pool = vec!["192.0.2.64/28".parse().unwrap()];
    all.settle();
    assert!(all.addresses("one") != before.0 && all.told("UpdatedLoadBalancer", "one"));
    // Somebody with the right to writes one's address into the other.
    let stolen = all.world.get::<Service>("d", "one").unwrap().status.clone();
    all.world.edit::<Service>("d", "two", |two| two.status = stolen);
    let kept = all.addresses("one");
    all.settle();
    assert_eq!(all.addresses("one"), kept);
    // Nodes' addresses that came to be in the pool, too.
    all.pool = vec!["192.0.2.0/24".parse().unwrap()];
    all.settle();
    assert_eq!(all.addresses("one"), kept);
    let node = all.world.list::<Node>()[0].clone();
    let of_node = share::addresses(&node).next().unwrap().1.to_owned();
    all.add("evil", json!({"loadBalancerIP": of_node}));
    all.settle();
    assert!(all.addresses("evil").is_empty() && all.told("SyncLoadBalancerFailed", "is taken by node a"));
    // Without a pool it has the nodes' addresses again, which nobody announces.
    all.pool.clear();
    let plan = all.plan(&Key::new("d", "one"));
    all.world.apply(&plan);
    let one = all.world.get::<Service>("d", "one").unwrap();
    assert_eq!((announcing::said(&one), share::held(&one).len()), (None, 3));
}

#[test]
fn others_classes_and_types_are_left_alone() {
    let mut all = Fixture::new(&["192.0.2.240-192.0.2.241"]);
    all.add("theirs", json!({"loadBalancerClass": "example.com/lb"}));
    all.world.edit::<Service>("d", "theirs", |s| {
        s.status = Some(from(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.240", "ipMode": "VIP"}]}})));
    });
    all.add("ours", json!({}));
    all.settle();
    assert_eq!((all.addresses("ours"), all.announced("theirs")), (vec!["192.0.2.241".to_owned()], String::new()));
    all.world.edit::<Service>("d", "ours", |s| s.spec.as_mut().unwrap().type_ = Some("ClusterIP".into()));
    all.settle();
    let ours = all.world.get::<Service>("d", "ours").unwrap();
    assert_eq!((all.addresses("ours").len(), all.announced("ours")), (0, String::new()));
    assert!(ours.metadata.finalizers.iter().flatten().next().is_none());
}

#[test]
fn one_node_that_can_announces_an_address_and_another_takes_its_place() {
    let mut all = Fixture::new(&["192.0.2.240/28"]);
    all.add("web", json!({}));
    all.settle();
    let first = all.announcer("web");
    assert_eq!(all.announced("web"), format!("192.0.2.240={first}"));
    assert!(all.told("NodeAssigned", &format!("192.0.2.240={first}")));
    // Each way in which a node is none; then it is again.
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    let condition = |node: &mut Node, kind: &str, status: &str| {
        let all = node.status.as_mut().unwrap().conditions.as_mut().unwrap();
        all.retain(|c| c.type_ != kind);
        all.push(from(json!({"type": kind, "status": status})));
    };
    type Edit = Box<dyn Fn(&mut Node)>;
    let ways: [(&str, Edit); 5] = [
        ("silent", Box::new(move |n| condition(n, "Ready", "Unknown"))),
        ("without a network", Box::new(move |n| condition(n, "NetworkUnavailable", "True"))),
        ("excluded", Box::new(move |n| n.metadata.labels = Some([(label.to_owned(), String::new())].into()))),
        (
            "moved",
            Box::new(|n| drop(n.metadata.annotations.as_mut().unwrap().insert(NETWORKS.into(), "10.9.0.0/24".into()))),
        ),
        ("not ours", Box::new(|n| n.metadata.annotations = None)),
    ];
    for (what, edit) in ways {
        let before = all.world.get::<Node>("", &first).unwrap();
        all.edit_node(&first, |node| edit(node));
        all.settle();
        assert!(all.announcer("web") != first && !all.announcer("web").is_empty(), "{what}");
        all.edit_node(&first, |node| {
            let version = node.metadata.resource_version.clone();
            *node = (*before).clone();
            node.metadata.resource_version = version;
        });
        all.settle();
        assert_eq!(all.announcer("web"), first, "{what}: it is back");
    }
    for name in ["a", "b", "c"] {
        all.edit_node(name, |n| condition(n, "Ready", "False"));
    }
    all.settle();
    assert_eq!((all.announced("web"), all.addresses("web")), (String::new(), vec!["192.0.2.240".to_owned()]));
    assert!(all.told("NoNodeToAnnounce", "192.0.2.240: no node announces it"));
}

#[test]
fn a_node_that_falls_silent_loses_its_addresses_while_it_counts_as_ready_and_gets_them_back() {
    let mut all = Fixture::new(&["192.0.2.240-192.0.2.250"]);
    ["one", "two", "three"].into_iter().for_each(|name| all.add(name, json!({})));
    all.settle();
    let before = ["one", "two", "three"].map(|name| (all.addresses(name), all.announcer(name)));
    let silent = all.announcer("one");
    all.silent.insert(silent.clone());
    all.settle();
    for (name, (addresses, announcer)) in ["one", "two", "three"].into_iter().zip(&before) {
        assert_eq!(all.addresses(name), *addresses);
        assert_ne!(all.announcer(name), silent);
        assert!(*announcer == silent || all.announcer(name) == *announcer, "others stay where they are");
    }
    all.silent.clear();
    all.settle();
    assert_eq!(["one", "two", "three"].map(|name| (all.addresses(name), all.announcer(name))), before);
    // Where nobody is heard of they stay where they are.
    all.silent = ["a", "b", "c"].map(str::to_owned).into();
    all.settle();
    assert_eq!(["one", "two", "three"].map(|name| (all.addresses(name), all.announcer(name))), before);
}

#[test]
fn with_a_local_policy_a_node_with_a_ready_endpoint_announces() {
    let mut all = Fixture::new(&["192.0.2.240/28"]);
    all.add("web", json!({"externalTrafficPolicy": "Local"}));
    for nodes in [vec!["a"], vec!["c"], vec!["b", "c"], vec![]] {
        all.endpoints("web", &nodes);
        all.settle();
        let announcer = all.announcer("web");
        assert!(
            nodes.contains(&announcer.as_str()) || nodes.is_empty() && announcer.is_empty(),
            "{nodes:?}: {announcer}"
        );
    }
}

#[test]
fn where_no_node_is_on_the_network_a_router_knows_the_way_and_any_will_do() {
    let mut all = Fixture::new(&["198.51.100.0/28"]);
    all.add("web", json!({}));
    all.settle();
    assert!(!all.announcer("web").is_empty());
    // One is, though it is not ready: the others would announce where nobody asks.
    all.node("d", "198.51.100.0/24", "False");
    all.settle();
    assert_eq!(all.announcer("web"), "");
    all.node("e", "198.51.100.0/24", "True");
    all.settle();
    assert_eq!(all.announcer("web"), "e");
}

#[test]
fn addresses_spread_over_nodes_and_few_move() {
    let mut all = Fixture::new(&["192.0.2.2-192.0.2.91"]);
    let names: Vec<String> = (0..60).map(|n| format!("web{n}")).collect();
    names.iter().for_each(|name| all.add(name, json!({})));
    all.settle();
    let before: BTreeMap<&String, String> = names.iter().map(|name| (name, all.announcer(name))).collect();
    for node in ["a", "b", "c"] {
        let has = before.values().filter(|n| *n == node).count();
        assert!((10..=30).contains(&has), "{node} has {has} of 60");
    }
    all.edit_node("b", |n| n.metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z"))));
    all.settle();
    for (name, was) in &before {
        let now = all.announcer(name);
        assert!(if was == "b" { now != "b" } else { now == *was }, "{name}: {was}, {now}");
    }
}

/// The annotation is anybody's who may write the Service.
#[test]
fn who_writes_another_node_is_corrected() {
    let mut all = Fixture::new(&["192.0.2.240/28"]);
    all.add("web", json!({}));
    all.settle();
    let right = all.announced("web");
    all.world.edit::<Service>("d", "web", |s| {
        s.metadata.annotations = Some([(ANNOUNCED_BY.to_owned(), "192.0.2.1=a".to_owned())].into());
    });
    all.settle();
    assert_eq!(all.announced("web"), right);
}
