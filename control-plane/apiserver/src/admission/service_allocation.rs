//! Gives Services their addresses and node ports, in the same transaction that stores them. Upstream does this in the
//! Service registry; here it runs last of the mutating plugins, with the same outcome.
//!
//! An address is an IPAddress object, a port a key below `ranges/servicenodeports/`; creating either is guarded by its
//! absence, so two servers can never give the same one away. What a Service of the same name left behind (it could not be
//! read and was removed as it was) is taken up by the one that is created in its place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use meta::{FieldError, Status};
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};
use crate::registry::write::{has_finalizers, meta_text};
use crate::server::Core;
use crate::service::{Range, fields};
use crate::storage::{Guard, Write};

pub struct ServiceAllocation;

#[async_trait]
impl Plugin for ServiceAllocation {
    fn name(&self) -> &'static str {
        "ServiceAllocation"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation != Operation::Connect && request.is("", "services")
    }

    async fn admit(&self, request: &mut Request<'_>, core: &Core) -> Result<(), Status> {
        let empty = Value::Null;
        let old = request.old.map_or(&empty, |old| &old["spec"]);
        if request.operation == Operation::Delete || ends(request) {
            release(request, core, old, &empty);
            return Ok(());
        }
        let range = Range::parse(&core.config.service_cluster_ip_range).map_err(Status::internal)?;
        let spec = &mut request.object["spec"];
        fields::align_addresses(spec, request.old.map(|old| &old["spec"]));
        if request.old.is_some() {
            fields::carry_over(spec, old);
        }
        fields::settle_families(spec, if range.is_ipv4() { "IPv4" } else { "IPv6" });
        let mut errors = Vec::new();
        address(request, core, &range, old, &mut errors);
        ports(request, core, old, &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&request.kind.gvk(), meta_text(request.object, "name"), &errors));
        }
        if request.old.is_some() {
            let new = request.object["spec"].clone();
            release(request, core, old, &new);
        }
        Ok(())
    }
}

/// An update that lets go of a service being deleted.
fn ends(request: &Request<'_>) -> bool {
    let deleting = request.old.is_some_and(|old| old["metadata"]["deletionTimestamp"].is_string());
    deleting && !has_finalizers(request.object)
}

fn address_key(core: &Core, address: &str) -> Option<Bytes> {
    Some(core.registry.load().cache("networking.k8s.io", "ipaddresses")?.key("", address))
}

fn port_key(core: &Core, port: u16) -> Bytes {
    core.node_ports.key("", &port.to_string())
}

fn address(request: &mut Request<'_>, core: &Core, range: &Range, old: &Value, errors: &mut Vec<FieldError>) {
    let spec = &request.object["spec"];
    if !fields::needs_address(spec) {
        return;
    }
    if fields::headless(spec) {
        request.object["spec"]["clusterIPs"] = json!(["None"]);
        return;
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", detail));
        return;
    }
    let Some(cache) = core.registry.load().cache("networking.k8s.io", "ipaddresses") else { return };
    let given = fields::addresses(spec);
    let (chosen, held) = match given.first() {
        Some(address) if fields::addresses(old).contains(address) => return,
        Some(address) => {
            let held = cache.lookup("", address);
            let wrong = match address.parse::<IpAddr>() {
                Ok(ip) if !range.contains(ip) => Some(format!(
                    "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                    core.config.service_cluster_ip_range
                )),
                Ok(_) if held.as_ref().is_some_and(|holder| !is_left_over(request, core, &holder.object())) => {
                    Some(format!("failed to allocate IP {address}: provided IP is already allocated"))
                }
                Ok(_) => None,
                // The kind's own validation says what is wrong with it.
                Err(_) => return,
            };
            if let Some(detail) = wrong {
                errors.push(FieldError::invalid("spec.clusterIPs", json!(given), detail));
                return;
            }
            (address.clone(), held.map_or(ABSENT, |holder| holder.revision))
        }
        None => {
            let free = range.candidates(rand::random()).find(|ip| cache.lookup("", &ip.to_string()).is_none());
            match free {
                Some(ip) => (ip.to_string(), ABSENT),
                None => {
                    let detail = "failed to allocate a serviceIP: range is full";
                    errors.push(FieldError::internal("spec.clusterIPs", detail));
                    return;
                }
            }
        }
    };
    request.object["spec"]["clusterIP"] = chosen.as_str().into();
    request.object["spec"]["clusterIPs"] = json!([chosen]);
    let Some(key) = address_key(core, &chosen) else { return };
    let object = ip_address(request, &chosen);
    claim(request, key, &object, held);
}

/// The IPAddress object that says whose an address is.
fn ip_address(request: &Request<'_>, address: &str) -> Value {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address, "uid": meta::uid::new_uid(),
            "creationTimestamp": meta::time::format(jiff::Timestamp::now()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": request.namespace,
            "name": meta_text(request.object, "name"),
        }},
    })
}

/// The revision of what is not there.
const ABSENT: i64 = 0;

/// Whether an address or a port is held in the name of a Service that is not there, but is being created.
fn is_left_over(request: &Request<'_>, core: &Core, holder: &Value) -> bool {
    let name = meta_text(request.object, "name");
    let parent = &holder["spec"]["parentRef"];
    let address =
        parent["resource"] == "services" && parent["namespace"] == request.namespace && parent["name"] == name;
    let port = holder["owner"].as_str().and_then(|owner| owner.split_once('/')) == Some((request.namespace, name));
    let services = core.registry.load().cache("", "services");
    (address || port) && services.is_some_and(|services| services.lookup(request.namespace, name).is_none())
}

/// Writes who holds it, where it is held at that revision still.
fn claim(request: &mut Request<'_>, key: Bytes, object: &Value, held: i64) {
    request.extra.guard(Guard { key: key.clone(), mod_revision: held });
    let value = Bytes::from(object.to_string());
    request.extra.write(Write::Put { key, value, lease: 0 });
}

/// Ports that a Service takes, and the revision at which each is free for it.
type Claims = BTreeMap<u16, i64>;

fn ports(request: &mut Request<'_>, core: &Core, old: &Value, errors: &mut Vec<FieldError>) {
    let spec = &request.object["spec"];
    let held = fields::node_ports(old);
    let mut claimed = Claims::new();
    let (low, high) = core.config.service_node_port_range;
    if fields::needs_node_ports(spec) || !fields::node_ports(spec).is_empty() {
        let count = spec["ports"].as_array().map_or(0, Vec::len);
        // What people chose comes before what is chosen for them.
        for index in 0..count {
            let wanted = request.object["spec"]["ports"][index]["nodePort"].as_u64().unwrap_or(0);
            let Ok(wanted) = u16::try_from(wanted) else { continue };
            if wanted == 0 || held.contains(&wanted) || claimed.contains_key(&wanted) {
                continue;
            }
            match check_port(request, core, wanted) {
                Ok(at) => drop(claimed.insert(wanted, at)),
                Err(detail) => {
                    errors.push(FieldError::invalid(format!("spec.ports[{index}].nodePort"), wanted, detail));
                }
            }
        }
        for index in 0..count {
            let needs = fields::needs_node_ports(&request.object["spec"]);
            let port = &request.object["spec"]["ports"][index];
            if !needs || port["nodePort"].as_u64().unwrap_or(0) != 0 {
                continue;
            }
            // One number serves the same port of different protocols.
            let twin = request.object["spec"]["ports"].as_array().into_iter().flatten().find(|other| {
                other["port"] == port["port"]
                    && other["protocol"] != port["protocol"]
                    && other["nodePort"].as_u64().unwrap_or(0) != 0
            });
            let number = match twin.and_then(|twin| twin["nodePort"].as_u64()) {
                Some(number) => number as u16,
                None => match free_port(core, low, high, &claimed) {
                    Some(number) => {
                        claimed.insert(number, ABSENT);
                        number
                    }
                    None => {
                        let path = format!("spec.ports[{index}].nodePort");
                        errors.push(FieldError::internal(path, "failed to allocate a nodePort: range is full"));
                        continue;
                    }
                },
            };
            request.object["spec"]["ports"][index]["nodePort"] = number.into();
        }
    }
    if fields::needs_health_port(&request.object["spec"]) {
        let wanted = request.object["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0) as u16;
        if wanted == 0 {
            if let Some(number) = free_port(core, low, high, &claimed) {
                claimed.insert(number, ABSENT);
                request.object["spec"]["healthCheckNodePort"] = number.into();
            }
        } else if !held.contains(&wanted)
            && let Ok(at) = check_port(request, core, wanted)
        {
            claimed.insert(wanted, at);
        }
    }
    let owner = format!("{}/{}", request.namespace, meta_text(request.object, "name"));
    for (port, at) in claimed {
        let object = json!({"metadata": {"name": port.to_string()}, "owner": owner});
        claim(request, port_key(core, port), &object, at);
    }
}

/// The revision at which the port is free for this Service.
fn check_port(request: &Request<'_>, core: &Core, port: u16) -> Result<i64, String> {
    let (low, high) = core.config.service_node_port_range;
    if port < low || port > high {
        return Err(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
    }
    match core.node_ports.get(&port_key(core, port)) {
        None => Ok(ABSENT),
        Some(holder) if is_left_over(request, core, &holder.object()) => Ok(holder.revision),
        Some(_) => Err("provided port is already allocated".to_owned()),
    }
}

fn free_port(core: &Core, low: u16, high: u16, claimed: &Claims) -> Option<u16> {
    let count = u32::from(high - low) + 1;
    let start = rand::random::<u32>() % count;
    let all = (0..count).map(|i| low + ((start + i) % count) as u16);
    let mut free =
        all.filter(|port| !claimed.contains_key(port) && core.node_ports.get(&port_key(core, *port)).is_none());
    free.next()
}

/// Gives back what `old` held and `new` does not.
fn release(request: &mut Request<'_>, core: &Core, old: &Value, new: &Value) {
    let kept = fields::addresses(new);
    for address in fields::addresses(old).into_iter().filter(|address| !kept.contains(address)) {
        if let Some(key) = address_key(core, &address) {
            request.extra.write(Write::Delete { key });
        }
    }
    let kept = fields::node_ports(new);
    for port in fields::node_ports(old).into_iter().filter(|port| !kept.contains(port)) {
        request.extra.write(Write::Delete { key: port_key(core, port) });
    }
}
