//! Decides what is wrong between Services and IPAddress objects. A Service's address has an object, which names the
//! Service; an object that the API servers made names a Service that has the address. Pure.

use std::time::Duration;

use jiff::Timestamp;
use object::meta_text;
use serde_json::Value;

use super::{Facts, INTERVAL, Plan, Step, at};
use crate::service::{families, fields, held};

const ALLOCATION: &str = "ClusterIPAllocation";
const VALIDATION: &str = "ClusterIPValidation";
const OF_ADDRESSES: &str = "IPAddressAllocation";
const NOT_ALLOCATED: &str = "ClusterIPNotAllocated";
const LEAKED: &str = "IPAddressNotAllocated";

/// An address whose Service is not there may be that of a request on its way: so long may one take.
pub const GRACE: Duration = Duration::from_secs(60);
/// Upstream's servers make the address before they know whether there is such a Service already, and take it back.
const REVERT: Duration = Duration::from_secs(5);

/// Judges the addresses of a Service.
pub fn of_service(service: &Value, facts: &dyn Facts) -> Plan {
    let mut plan = Plan::default();
    let spec = &service["spec"];
    if matches!(spec["clusterIP"].as_str(), None | Some("" | "None")) {
        return plan;
    }
    for address in fields::addresses(spec) {
        judge(&mut plan, service, &address, facts);
    }
    plan
}

fn judge(plan: &mut Plan, service: &Value, address: &str, facts: &dyn Facts) {
    let Some(ip) = held::canonical(address) else {
        let note = format!("Cluster IP {address} is not a valid IP; please recreate Service");
        return plan.tell("ClusterIPNotValid", VALIDATION, note);
    };
    let name = ip.to_string();
    let family = families::of(&name);
    if !facts.in_range(ip) {
        let note =
            format!("Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service");
        return plan.tell("ClusterIPOutOfRange", ALLOCATION, note);
    }
    let Some(object) = facts.address(&name) else {
        let note = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
        plan.tell(NOT_ALLOCATED, ALLOCATION, note);
        return plan.steps.push(Step::MakeAddress(name));
    };
    let remade = Step::RemakeAddress { name, uid: meta_text(&object, "uid").to_owned() };
    let (namespace, own) = at(service);
    let parent = held::service_of(&object);
    if parent == Some((namespace, own)) {
        if !held::is_labelled(&object) {
            plan.steps.push(remade);
        }
        return;
    }
    // Another Service that is there and has the address has it: else the two would take it from each other for ever. One
    // that is there and has it not loses the object when that is judged; this Service is judged again then.
    if parent.is_some_and(|(namespace, name)| facts.is_unreadable(namespace, name)) {
        plan.again = Some(INTERVAL);
        return;
    }
    let other = parent.and_then(|(namespace, name)| facts.service(namespace, name));
    match other {
        Some(other) if has(&other, meta_text(&object, "name")) => {
            let note = format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service");
            plan.tell("ClusterIPAlreadyAllocated", ALLOCATION, note);
        }
        Some(_) => {}
        None => {
            let note = format!(
                "the ClusterIP [{family}]: {ip} for Service {namespace}/{own} has a wrong reference; repairing"
            );
            plan.tell(NOT_ALLOCATED, ALLOCATION, note);
            plan.steps.push(remade);
        }
    }
}

/// Whether a Service has an address of this name.
fn has(service: &Value, name: &str) -> bool {
    let ip = held::canonical(name);
    fields::addresses(&service["spec"]).iter().any(|address| held::canonical(address) == ip)
}

/// Judges an IPAddress object. Those that somebody else made are left alone.
pub fn of_address(object: &Value, facts: &dyn Facts, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !held::is_managed(object) {
        return plan;
    }
    let name = meta_text(object, "name");
    let removed = || Step::RemoveAddress { uid: meta_text(object, "uid").to_owned() };
    let Some((namespace, service)) = held::service_of(object) else {
        let parent = &object["spec"]["parentRef"];
        let [group, resource, namespace, of] =
            ["group", "resource", "namespace", "name"].map(|field| parent[field].as_str().unwrap_or_default());
        let note = format!(
            "IPAddress {name} appears to have been modified, not referencing a Service &ParentReference{{Group:{group},Resource:{resource},Namespace:{namespace},Name:{of},}}: cleaning up"
        );
        plan.tell(LEAKED, OF_ADDRESSES, note);
        plan.steps.push(removed());
        return plan;
    };
    let age = age(object, now);
    let Some(found) = facts.service(namespace, service) else {
        if facts.is_unreadable(namespace, service) {
            plan.again = Some(INTERVAL);
        } else if age > GRACE {
            let note =
                format!("IPAddress: {name} for Service {namespace}/{service} appears to have leaked: cleaning up");
            plan.tell(LEAKED, OF_ADDRESSES, note);
            plan.steps.push(removed());
        } else {
            plan.again = Some(left(GRACE, age));
        }
        return plan;
    };
    if has(&found, name) {
        return plan;
    }
    // A Service that begins to have addresses, by a request on its way.
    if fields::type_of(&found["spec"]) == "ExternalName" && age < GRACE {
        plan.again = Some(left(GRACE, age));
        return plan;
    }
    if created(object) > created(&found) && age < REVERT {
        plan.again = Some(REVERT);
        return plan;
    }
    let note = format!("IPAddress: {name} for Service {namespace}/{service} has a wrong reference; cleaning up");
    plan.tell("IPAddressWrongReference", OF_ADDRESSES, note);
    plan.steps.push(removed());
    plan
}

fn created(object: &Value) -> Option<Timestamp> {
    meta::time::parse(meta_text(object, "creationTimestamp"))
}

/// Without a time it is as old as can be; one of the future is new.
fn age(object: &Value, now: Timestamp) -> Duration {
    let age = |created| now.duration_since(created).try_into().unwrap_or_default();
    created(object).map_or(Duration::MAX, age)
}

/// Times of objects have whole seconds: one more, so that it is over then.
fn left(grace: Duration, age: Duration) -> Duration {
    grace.saturating_sub(age) + Duration::from_secs(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Told;
    use super::super::fake::World;
    use super::*;

    fn service(name: &str, addresses: &[&str]) -> Value {
        json!({
            "metadata": {"namespace": "shop", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"clusterIP": addresses[0], "clusterIPs": addresses},
        })
    }

    fn address(name: &str, of: &str) -> Value {
        let mut object = held::address(name, "shop", of);
        object["metadata"]["uid"] = format!("uid-of-{name}").into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        object
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn world(services: &[Value], addresses: &[Value]) -> World {
        World { services: services.to_vec(), addresses: addresses.to_vec(), ..World::default() }
    }

    fn told(plan: &Plan) -> Vec<(&'static str, &str)> {
        plan.told.iter().map(|Told { reason, note, .. }| (*reason, note.as_str())).collect()
    }

    fn remade(name: &str) -> Step {
        Step::RemakeAddress { name: name.into(), uid: format!("uid-of-{name}") }
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let web = service("web", &["10.96.0.5", "fd00:10:96::5"]);
        let facts = world(std::slice::from_ref(&web), &[address("10.96.0.5", "web"), address("fd00:10:96::5", "web")]);
        assert_eq!(of_service(&web, &facts), Plan::default());
        for object in &facts.addresses {
            assert_eq!(of_address(object, &facts, at("2026-02-01T00:00:00Z")), Plan::default());
        }
        let headless =
            json!({"metadata": {"namespace": "a", "name": "b"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        let external = json!({"metadata": {"namespace": "a", "name": "b"}, "spec": {"type": "ExternalName"}});
        for service in [headless, external] {
            assert_eq!(of_service(&service, &facts), Plan::default());
        }
    }

    #[test]
    fn an_address_that_nothing_holds_is_held_again() {
        let web = service("web", &["10.96.0.5", "fd00:10:96::5"]);
        let plan = of_service(&web, &world(std::slice::from_ref(&web), &[address("10.96.0.5", "web")]));
        let note = "Cluster IP [IPv6]: fd00:10:96::5 is not allocated; repairing";
        assert_eq!(told(&plan), [("ClusterIPNotAllocated", note)]);
        assert_eq!(plan.steps, [Step::MakeAddress("fd00:10:96::5".into())]);
    }

    #[test]
    fn one_of_no_range_is_told_and_so_is_what_is_none() {
        let web = service("web", &["10.97.0.5"]);
        let plan = of_service(&web, &world(&[], &[]));
        let note = "Cluster IP [IPv4]: 10.97.0.5 is not within any configured Service CIDR; please recreate service";
        assert_eq!((told(&plan), plan.steps.len()), (vec![("ClusterIPOutOfRange", note)], 0));
        let plan = of_service(&service("web", &["10.97.0"]), &world(&[], &[]));
        let note = "Cluster IP 10.97.0 is not a valid IP; please recreate Service";
        assert_eq!((told(&plan), plan.steps.len()), (vec![("ClusterIPNotValid", note)], 0));
    }

    #[test]
    fn one_that_is_held_for_something_else_or_for_nobody_is_the_services() {
        let web = service("web", &["10.96.0.5"]);
        let mut gateway = address("10.96.0.5", "web");
        gateway["spec"]["parentRef"] =
            json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "x"});
        let note = "the ClusterIP [IPv4]: 10.96.0.5 for Service shop/web has a wrong reference; repairing";
        for object in [gateway, address("10.96.0.5", "gone")] {
            let plan = of_service(&web, &world(std::slice::from_ref(&web), &[object]));
            assert_eq!(told(&plan), [("ClusterIPNotAllocated", note)]);
            assert_eq!(plan.steps, [remade("10.96.0.5")]);
        }
    }

    #[test]
    fn of_two_services_one_has_it() {
        let both = [service("first", &["10.96.0.5"]), service("second", &["10.96.0.5"])];
        let facts = world(&both, &[address("10.96.0.5", "first")]);
        assert!(of_service(&both[0], &facts).is_empty());
        let plan = of_service(&both[1], &facts);
        let note = "Cluster IP [IPv4]:10.96.0.5 was assigned to multiple services; please recreate service";
        assert_eq!((told(&plan), plan.steps.len()), (vec![("ClusterIPAlreadyAllocated", note)], 0));
        // A Service that is named and has it not: its address is judged, and goes.
        let facts = world(&[service("other", &["10.96.0.7"]), both[1].clone()], &[address("10.96.0.5", "other")]);
        assert!(of_service(&both[1], &facts).is_empty());
        let plan = of_address(&facts.addresses[0], &facts, at("2026-02-01T00:00:00Z"));
        let note = "IPAddress: 10.96.0.5 for Service shop/other has a wrong reference; cleaning up";
        assert_eq!(told(&plan), [("IPAddressWrongReference", note)]);
        assert_eq!(plan.steps, [Step::RemoveAddress { uid: "uid-of-10.96.0.5".into() }]);
    }

    #[test]
    fn labels_are_put_right_in_silence() {
        let web = service("web", &["10.96.0.5"]);
        for (label, value) in
            [(held::FAMILY, json!("IPv6")), (held::MANAGED_BY, json!("me")), (held::FAMILY, Value::Null)]
        {
            let mut object = address("10.96.0.5", "web");
            object["metadata"]["labels"][label] = value;
            let plan = of_service(&web, &world(std::slice::from_ref(&web), &[object]));
            assert_eq!((plan.told.len(), plan.steps), (0, vec![remade("10.96.0.5")]), "{label}");
        }
    }

    #[test]
    fn an_address_of_nobody_goes_when_no_request_can_be_on_its_way() {
        let object = address("10.96.0.5", "gone");
        let facts = world(&[], &[]);
        let early = of_address(&object, &facts, at("2026-01-01T00:00:40Z"));
        assert_eq!(early, Plan { again: Some(Duration::from_secs(21)), ..Plan::default() });
        assert_eq!(of_address(&object, &facts, at("2025-12-31T00:00:00Z")).steps, [], "clocks go back");
        let late = of_address(&object, &facts, at("2026-01-01T00:01:01Z"));
        let note = "IPAddress: 10.96.0.5 for Service shop/gone appears to have leaked: cleaning up";
        assert_eq!(told(&late), [("IPAddressNotAllocated", note)]);
        assert_eq!(late.steps, [Step::RemoveAddress { uid: "uid-of-10.96.0.5".into() }]);
    }

    #[test]
    fn a_service_that_cant_be_read_keeps_what_it_has() {
        let web = service("web", &["10.96.0.5"]);
        let facts = world(std::slice::from_ref(&web), &[address("10.96.0.5", "torn")]);
        let later = Plan { again: Some(INTERVAL), ..Plan::default() };
        assert_eq!(of_address(&facts.addresses[0], &facts, at("2026-02-01T00:00:00Z")), later);
        assert_eq!(of_service(&web, &facts), later);
    }

    #[test]
    fn what_somebody_else_looks_after_is_theirs() {
        let mut object = address("10.96.0.5", "gone");
        object["metadata"]["labels"][held::MANAGED_BY] = "gateways.example.com".into();
        assert!(of_address(&object, &world(&[], &[]), at("2026-02-01T00:00:00Z")).is_empty());
        let mut object = address("10.96.0.5", "x");
        object["spec"]["parentRef"] = json!({"group": "example.com", "resource": "gateways", "name": "x"});
        let plan = of_address(&object, &world(&[], &[]), at("2026-01-01T00:00:00Z"));
        assert!(plan.told[0].note.contains("not referencing a Service"), "{plan:?}");
        assert_eq!(plan.steps, [Step::RemoveAddress { uid: "uid-of-10.96.0.5".into() }]);
    }

    #[test]
    fn a_service_that_begins_to_have_addresses_is_given_time() {
        let mut web = service("web", &["10.96.0.9"]);
        web["spec"] = json!({"type": "ExternalName"});
        let facts = world(&[web], &[]);
        let mut object = address("10.96.0.5", "web");
        let early = of_address(&object, &facts, at("2026-01-01T00:00:59Z"));
        assert_eq!((early.steps.len(), early.again), (0, Some(Duration::from_secs(2))));
        assert_eq!(of_address(&object, &facts, at("2026-01-01T00:01:00Z")).steps.len(), 1);
        // One that was made for a second Service of the name, and is about to be taken back.
        let facts = world(&[service("web", &["10.96.0.9"])], &[]);
        object["metadata"]["creationTimestamp"] = "2026-01-01T01:00:00Z".into();
        let early = of_address(&object, &facts, at("2026-01-01T01:00:04Z"));
        assert_eq!((early.steps.len(), early.again), (0, Some(REVERT)));
        assert_eq!(of_address(&object, &facts, at("2026-01-01T01:00:05Z")).steps.len(), 1);
    }
}
