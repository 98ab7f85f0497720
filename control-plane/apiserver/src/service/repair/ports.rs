//! Decides what is wrong between Services and the node ports that are held for them. Pure.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::addresses::GRACE;
use super::{Facts, INTERVAL, Plan, Step, at};
use crate::service::held;

const ALLOCATION: &str = "PortAllocation";

/// Judges the node ports of a Service.
pub fn of_service(service: &Value, facts: &dyn Facts) -> Plan {
    let mut plan = Plan::default();
    let mut seen = Vec::new();
    for port in node_ports(service) {
        let twice = seen.contains(&port);
        seen.push(port);
        judge(&mut plan, service, port, twice, facts);
    }
    plan
}

fn judge(plan: &mut Plan, service: &Value, port: u16, twice: bool, facts: &dyn Facts) {
    let (low, high) = facts.ports();
    if port < low || port > high {
        plan.counted.push("outOfRange");
        let note = format!("Port {port} is not within the port range {low}-{high}; please recreate service");
        return plan.tell("PortOutOfRange", ALLOCATION, note);
    }
    let stored = facts.port(port);
    let owner = stored.as_ref().and_then(|(stored, _)| held::owner(stored));
    let mine = owner == Some(at(service));
    if mine && !twice {
        return;
    }
    if owner.is_some_and(|(namespace, name)| facts.is_unreadable(namespace, name)) {
        plan.again = Some(INTERVAL);
        return;
    }
    let another =
        owner.and_then(|(namespace, name)| facts.service(namespace, name)).is_some_and(|other| uses(&other, port));
    if twice || another {
        plan.counted.push("duplicate");
        let note = format!("Port {port} was assigned to multiple services; please recreate service");
        return plan.tell("PortAlreadyAllocated", ALLOCATION, note);
    }
    plan.counted.push("repair");
    plan.tell("PortNotAllocated", ALLOCATION, format!("Port {port} is not allocated; repairing"));
    plan.steps.push(Step::ClaimPort { port, held: stored.map_or(0, |(_, revision)| revision) });
}

/// When each port was first seen to be nobody's, until it is somebody's or gone.
#[derive(Debug, Default)]
pub struct Ages(HashMap<u16, Timestamp>);

impl Ages {
    /// Judges what is stored of a node port. What is to be freed is judged again before it is: its age stays.
    pub fn judge(&mut self, port: u16, facts: &dyn Facts, now: Timestamp) -> Plan {
        let plan = of_port(port, *self.0.entry(port).or_insert(now), facts, now);
        if plan.is_empty() {
            self.0.remove(&port);
        }
        plan
    }
}

/// Judges what is stored of a node port, seen first at a time: upstream looks three times before it frees one.
fn of_port(port: u16, since: Timestamp, facts: &dyn Facts, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some((stored, revision)) = facts.port(port) else { return plan };
    let owner = held::owner(&stored);
    if owner.is_some_and(|(namespace, name)| facts.is_unreadable(namespace, name)) {
        plan.again = Some(INTERVAL);
        return plan;
    }
    let owner = owner.and_then(|(namespace, name)| facts.service(namespace, name));
    if owner.is_some_and(|owner| uses(&owner, port)) {
        return plan;
    }
    let age: Duration = now.duration_since(since).try_into().unwrap_or_default();
    if age < GRACE {
        plan.again = Some(GRACE - age);
        return plan;
    }
    plan.counted.push("leak");
    plan.steps.push(Step::FreePort { port, held: revision });
    plan
}

fn uses(service: &Value, port: u16) -> bool {
    node_ports(service).contains(&port)
}

/// A number that serves two protocols counts once; twice for one protocol is one too many.
fn node_ports(service: &Value) -> Vec<u16> {
    let spec = &service["spec"];
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    let mut seen: Vec<(u16, &str)> = Vec::new();
    let mut all = Vec::new();
    let ports = spec["ports"].as_array().into_iter().flatten();
    let ports = ports.map(|port| (number(&port["nodePort"]), port["protocol"].as_str().unwrap_or("TCP")));
    for (port, protocol) in ports.chain([(number(&spec["healthCheckNodePort"]), "TCP")]) {
        let Some(port) = port else { continue };
        let other = seen.iter().any(|(known, _)| *known == port) && !seen.contains(&(port, protocol));
        if !other {
            all.push(port);
        }
        seen.push((port, protocol));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fake::World;
    use super::*;

    fn service(name: &str, ports: Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"type": "NodePort", "ports": ports}})
    }

    fn world(services: &[Value], ports: &[(u16, &str)]) -> World {
        let stored = |(port, name): &(u16, &str)| (*port, (held::port(*port, "shop", name), i64::from(*port)));
        World { services: services.to_vec(), ports: ports.iter().map(stored).collect(), ..World::default() }
    }

    fn told(plan: &Plan) -> Vec<(&'static str, &str)> {
        plan.told.iter().map(|told| (told.reason, told.note.as_str())).collect()
    }

    #[test]
    fn ports_that_are_held_are_left_alone() {
        let web = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {
            "ports": [{"nodePort": 30001}, {"nodePort": 30001, "protocol": "UDP"}, {"port": 80}],
            "healthCheckNodePort": 30002,
        }});
        let facts = world(std::slice::from_ref(&web), &[(30001, "web"), (30002, "web")]);
        assert!(of_service(&web, &facts).is_empty());
        let (since, now) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-02T00:00:00Z".parse().unwrap());
        assert!(of_port(30001, since, &facts, now).is_empty());
        assert!(of_port(30002, since, &facts, now).is_empty());
    }

    #[test]
    fn one_that_nobody_holds_or_nobody_who_uses_it_is_claimed() {
        let web = service("web", json!([{"nodePort": 30001}]));
        let note = ("PortNotAllocated", "Port 30001 is not allocated; repairing");
        let idle = service("idle", json!([{"nodePort": 30009}]));
        for (held, revision) in [(&[][..], 0), (&[(30001, "gone")], 30001), (&[(30001, "idle")], 30001)] {
            let plan = of_service(&web, &world(&[web.clone(), idle.clone()], held));
            assert_eq!((told(&plan), &plan.counted[..]), (vec![note], &["repair"][..]));
            assert_eq!(plan.steps, [Step::ClaimPort { port: 30001, held: revision }]);
        }
    }

    #[test]
    fn of_two_services_one_has_a_port_and_none_of_no_range() {
        let both = [service("first", json!([{"nodePort": 30001}])), service("second", json!([{"nodePort": 30001}]))];
        let facts = world(&both, &[(30001, "first")]);
        assert!(of_service(&both[0], &facts).is_empty());
        let plan = of_service(&both[1], &facts);
        let note = ("PortAlreadyAllocated", "Port 30001 was assigned to multiple services; please recreate service");
        assert_eq!((told(&plan), plan.steps.len()), (vec![note], 0));
        let twice = service("twice", json!([{"nodePort": 30001}, {"nodePort": 30001}]));
        assert_eq!(told(&of_service(&twice, &world(&[], &[(30001, "twice")]))), [note]);
        let plan = of_service(&service("web", json!([{"nodePort": 29999}])), &facts);
        let note = ("PortOutOfRange", "Port 29999 is not within the port range 30000-32767; please recreate service");
        assert_eq!((told(&plan), &plan.counted[..]), (vec![note], &["outOfRange"][..]));
    }

    #[test]
    fn a_service_that_cant_be_read_keeps_its_ports() {
        let web = service("web", json!([{"nodePort": 30001}]));
        let facts = world(std::slice::from_ref(&web), &[(30001, "torn")]);
        let later = Plan { again: Some(INTERVAL), ..Plan::default() };
        assert_eq!(of_service(&web, &facts), later);
        let (since, now) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-02T00:00:00Z".parse().unwrap());
        assert_eq!(of_port(30001, since, &facts, now), later);
    }

    #[test]
    fn one_of_nobody_is_free_when_no_request_can_be_on_its_way() {
        let facts = world(&[service("web", json!([{"nodePort": 30002}]))], &[(30001, "web"), (30003, "gone")]);
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for port in [30001, 30003] {
            let early = of_port(port, since, &facts, "2026-01-01T00:00:20Z".parse().unwrap());
            assert_eq!(early, Plan { again: Some(Duration::from_secs(40)), ..Plan::default() });
            let late = of_port(port, since, &facts, "2026-01-01T00:01:00Z".parse().unwrap());
            assert_eq!(late.steps, [Step::FreePort { port, held: i64::from(port) }]);
        }
    }

    #[test]
    fn one_that_is_to_be_freed_is_so_when_it_is_judged_again() {
        let gone = world(&[], &[(30003, "gone")]);
        let (mut ages, start): (_, Timestamp) = (Ages::default(), "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(ages.judge(30003, &gone, start).again, Some(GRACE));
        for _ in 0..2 {
            assert_eq!(ages.judge(30003, &gone, start + GRACE).steps, [Step::FreePort { port: 30003, held: 30003 }]);
        }
        // It is free, then somebody's, then nobody's again: from the beginning.
        assert!(ages.judge(30003, &world(&[], &[]), start + GRACE).is_empty());
        assert_eq!(ages.judge(30003, &gone, start + 2 * GRACE).again, Some(GRACE));
    }
}
