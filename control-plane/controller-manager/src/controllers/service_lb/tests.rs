//! Who gets which addresses, and what becomes of finalizer and status.

use client::{Action, Verb};
use serde_json::{Value, json};
use testkit::model::from;

use super::*;
use std::sync::Arc;

fn node(name: &str, ready: bool, extra: Value) -> Arc<Node> {
    let number = name.len();
    let mut node = json!({
        "metadata": {"name": name},
        "status": {
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{number}")}, {"type": "Hostname", "address": name}],
        },
    });
    for (key, value) in extra.as_object().unwrap() {
        node[key] = value.clone();
    }
    if let Some(name_only) = node["metadata"].as_object_mut() {
        name_only.insert("name".to_owned(), name.into());
    }
    Arc::new(from(node))
}

fn service(name: &str, age: &str, spec: Value) -> Arc<Service> {
    let mut all = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    Arc::new(from(json!({
        "metadata": {"namespace": "default", "name": name, "uid": name, "resourceVersion": "7",
            "creationTimestamp": format!("2026-01-01T00:00:0{age}Z")},
        "spec": all,
    })))
}

fn slice(of: &str, nodes: &[&str]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = nodes.iter().map(|n| json!({"addresses": ["10.42.0.2"], "nodeName": n})).collect();
    Arc::new(from(json!({
        "metadata": {"namespace": "default", "name": of, "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4", "endpoints": endpoints,
    })))
}

struct Fixture {
    services: Vec<Arc<Service>>,
    nodes: Vec<Arc<Node>>,
    slices: Vec<Arc<EndpointSlice>>,
}

const NO_POOL: &[meta::Span] = &[];

impl Fixture {
    fn plan(&self, name: &str) -> Plan {
        let of = |service: &Service| -> Vec<Arc<EndpointSlice>> {
            let key = Key::of(service);
            self.slices.iter().filter(|s| service_of(s).as_ref() == Some(&key)).cloned().collect()
        };
        let reserved = [("TCP".to_owned(), 6443), ("TCP".to_owned(), 22)];
        let cluster = Cluster {
            services: &self.services,
            nodes: &self.nodes,
            slices: &of,
            reserved: &reserved,
            pool: NO_POOL,
            silent: &Default::default(),
        };
        let service = self.services.iter().find(|s| s.metadata.name.as_deref() == Some(name)).unwrap();
        reconcile(service, &cluster)
    }

    /// The addresses, the finalizers, and the reason of the last event.
    fn outcome(&self, name: &str) -> (Vec<String>, Vec<String>, String) {
        let plan = self.plan(name);
        let (mut addresses, mut finalizers, mut reason) = (Vec::new(), Vec::new(), String::new());
        for action in plan.steps.iter().flat_map(|step| step.actions()) {
            match action {
                Action::Do(op) => {
                    let Verb::Patch { subresource: Some("status"), patch: PatchBody::Merge(body) } = &op.verb else {
                        panic!("{op:?}")
                    };
                    let ingress = body["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
                    assert!(ingress.iter().all(|i| i["ipMode"] == "Proxy"), "{body}");
                    addresses = ingress.iter().map(|i| i["ip"].as_str().unwrap().to_owned()).collect();
                    let all = body["metadata"]["finalizers"].as_array().unwrap();
                    finalizers = all.iter().map(|f| f.as_str().unwrap().to_owned()).collect();
                    assert_eq!(body["metadata"]["resourceVersion"], "7");
                }
                Action::Event { reason: why, .. } => reason.clone_from(why),
                other => panic!("{other:?}"),
            }
        }
        (addresses, finalizers, reason)
    }
}

/// Nodes at 192.0.2.1, .2 and .3; the third is not ready.
fn nodes() -> Vec<Arc<Node>> {
    vec![node("a", true, json!({})), node("bb", true, json!({})), node("ccc", false, json!({}))]
}

#[test]
fn a_load_balancer_has_the_addresses_of_all_ready_nodes() {
    let mut all = Fixture { services: vec![service("web", "1", json!({}))], nodes: nodes(), slices: vec![] };
    let (addresses, finalizers, reason) = all.outcome("web");
    assert_eq!(
        (addresses, finalizers),
        (vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()], vec![FINALIZER.to_owned()])
    );
    assert_eq!(reason, "EnsuredLoadBalancer");
    let label = json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}});
    let outside = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [
        {"type": "InternalIP", "address": "10.0.0.9"}, {"type": "ExternalIP", "address": "203.0.113.9"}]}});
    all.nodes = vec![node("a", true, label), node("bb", true, outside)];
    assert_eq!(all.outcome("web").0, ["203.0.113.9"]);
    all.nodes.clear();
    assert_eq!(all.outcome("web").2, "UnAvailableLoadBalancer");
}

#[test]
fn with_a_local_policy_it_has_nodes_with_endpoints() {
    let local = service("web", "1", json!({"externalTrafficPolicy": "Local"}));
    let mut all = Fixture { services: vec![local], nodes: nodes(), slices: vec![slice("web", &["bb", "ccc"])] };
    assert_eq!(all.outcome("web").0, ["192.0.2.2"]);
    all.slices.clear();
    assert_eq!(all.outcome("web").2, "UnAvailableLoadBalancer");
}

#[test]
fn of_two_that_want_a_port_the_older_has_it() {
    let (old, new) = (service("old", "1", json!({})), service("new", "2", json!({})));
    let udp = service("udp", "3", json!({"ports": [{"port": 80, "protocol": "UDP"}]}));
    let mut all = Fixture { services: vec![new, old, udp], nodes: nodes(), slices: vec![] };
    assert_eq!(all.outcome("old").0.len(), 2);
    let (addresses, finalizers, reason) = all.outcome("new");
    assert_eq!((addresses.len(), finalizers.len(), reason.as_str()), (0, 1, "SyncLoadBalancerFailed"));
    assert_eq!(all.outcome("udp").0.len(), 2);
    all.services.remove(1);
    assert_eq!(all.outcome("new").0.len(), 2);
    // On different nodes both have it.
    let local = |name, age| service(name, age, json!({"externalTrafficPolicy": "Local"}));
    all.services = vec![local("old", "1"), local("new", "2")];
    all.slices = vec![slice("old", &["a"]), slice("new", &["a", "bb"])];
    assert_eq!(
        (all.outcome("old").0, all.outcome("new").0),
        (vec!["192.0.2.1".to_owned()], vec!["192.0.2.2".to_owned()])
    );
}

#[test]
fn ports_of_the_nodes_themselves_are_nobodys() {
    for port in [6443, 22, 30080] {
        let evil = service("evil", "1", json!({"ports": [{"port": port, "protocol": "TCP"}]}));
        let web = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]});
        let all = Fixture { services: vec![evil, service("web", "2", web)], nodes: nodes(), slices: vec![] };
        let (addresses, _, reason) = all.outcome("evil");
        assert_eq!((addresses.len(), reason.as_str()), (0, "SyncLoadBalancerFailed"), "{port}");
    }
}

fn with_addresses(mut spec: Value, deleting: bool) -> Arc<Service> {
    let mut object = serde_json::to_value(&*service("web", "1", json!({}))).unwrap();
    object["spec"].as_object_mut().unwrap().append(spec.as_object_mut().unwrap());
    object["metadata"]["finalizers"] = json!(["other", FINALIZER]);
    object["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "Proxy"}, {"ip": "192.0.2.2"}]}});
    if deleting {
        object["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
    }
    Arc::new(from(object))
}

#[test]
fn who_stops_being_one_gives_addresses_and_finalizer_back() {
    let settled = |service| Fixture { services: vec![service], nodes: nodes(), slices: vec![] };
    assert!(settled(with_addresses(json!({}), false)).plan("web").steps.is_empty(), "nothing to do");
    for service in [with_addresses(json!({"type": "ClusterIP"}), false), with_addresses(json!({}), true)] {
        let (addresses, finalizers, reason) = settled(service).outcome("web");
        assert_eq!(
            (addresses.len(), finalizers, reason.as_str()),
            (0, vec!["other".to_owned()], "DeletedLoadBalancer")
        );
    }
    let classed = service("web", "1", json!({"loadBalancerClass": "example.com/other"}));
    assert!(settled(classed).plan("web").steps.is_empty(), "somebody else's");
}
