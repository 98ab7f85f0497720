//! Gives Services their addresses and node ports, in the same transaction that stores them. Upstream does this in the
//! Service registry; here it runs last of the mutating plugins, with the same outcome.
//!
//! An address is an IPAddress object, a port a key below `ranges/servicenodeports/`; creating either is guarded by its
//! absence, so two servers can never give the same one away. What a Service of the same name left behind (it could not be
//! read and was removed as it was) is taken up by the one that is created in its place. I/O: the clock and chance.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use meta::{FieldError, Status};
use object::{has_finalizers, meta_text};
use serde_json::{Value, json};

use crate::admission::{Mutating, Operation, Parts, Plugin, Request, World};
use crate::cache::{self, Cache, HeaderSpec};
use crate::error::Error;
use crate::service::held::{self, ADDRESSES};
use crate::service::{Range, Ranges, families, fields};
use crate::storage::{Guard, Write};

pub struct ServiceAllocation {
    ranges: Ranges,
    /// As `--service-cluster-ip-range` has it, for messages.
    range_text: String,
    /// Both ends are part of it.
    ports: (u16, u16),
    /// Node ports in use.
    node_ports: Arc<Cache>,
}

impl ServiceAllocation {
    pub fn new(parts: &Parts<'_>) -> Result<ServiceAllocation, Error> {
        let range_text = parts.config.service_cluster_ip_range.clone();
        let wrong = |reason| Error::Flag { flag: "--service-cluster-ip-range", reason };
        let prefix = Bytes::from(held::node_ports_prefix(&parts.config.etcd_prefix));
        Ok(ServiceAllocation {
            ranges: Ranges::parse(&range_text).map_err(wrong)?,
            range_text,
            ports: parts.config.service_node_port_range,
            node_ports: parts.hub.declare(prefix, HeaderSpec::new([]), cache::plain_reader()),
        })
    }
}

impl Plugin for ServiceAllocation {
    fn handles(&self, request: &Request<'_>) -> bool {
        let last_hold = || request.subresource == "status" && request.kind.plural == "services" && ends(request);
        request.operation != Operation::Connect
            && (request.is("", "services") || last_hold() && request.kind.group.is_empty())
    }
}

#[async_trait]
impl Mutating for ServiceAllocation {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        let empty = Value::Null;
        let old = request.old.map_or(&empty, |old| &old["spec"]);
        if request.operation == Operation::Delete || ends(request) {
            self.release(request, world, old, &empty);
            return Ok(());
        }
        let spec = &mut request.object["spec"];
        fields::align_addresses(spec, request.old.map(|old| &old["spec"]));
        if request.old.is_some() {
            fields::carry_over(spec, old);
        }
        let mut errors = families::settle(spec, request.old.map(|old| &old["spec"]), &self.ranges.families());
        if errors.is_empty() {
            self.addresses(request, world, old, &mut errors);
        }
        self.ports(request, world, old, &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&request.kind.gvk(), meta_text(request.object, "name"), &errors));
        }
        if request.old.is_some() {
            let new = request.object["spec"].clone();
            self.release(request, world, old, &new);
        }
        Ok(())
    }
}

/// An update that lets go of a service being deleted.
fn ends(request: &Request<'_>) -> bool {
    let deleting = request.old.is_some_and(|old| old["metadata"]["deletionTimestamp"].is_string());
    deleting && !has_finalizers(request.object)
}

fn address_key(world: &dyn World, address: &str) -> Option<Bytes> {
    world.key(ADDRESSES.0, ADDRESSES.1, "", address)
}

/// The IPAddress object that says whose an address is, as it is stored.
fn ip_address(request: &Request<'_>, address: &str) -> Value {
    let mut object = held::address(address, request.namespace, meta_text(request.object, "name"));
    object["metadata"]["uid"] = meta::uid::new_uid().into();
    object["metadata"]["creationTimestamp"] = meta::time::format(jiff::Timestamp::now()).into();
    object
}

/// The revision of what is not there.
const ABSENT: i64 = 0;

/// Whether an address or a port is held in the name of a Service that is not there, but is being created.
fn is_left_over(request: &Request<'_>, world: &dyn World, holder: &Value) -> bool {
    let name = meta_text(request.object, "name");
    let own = Some((request.namespace, name));
    (held::service_of(holder) == own || held::owner(holder) == own)
        && world.cached("", "services", request.namespace, name).is_none()
}

/// Writes who holds it, where it is held at that revision still.
fn claim(request: &mut Request<'_>, key: Bytes, object: &Value, held: i64) {
    request.extra.guard(Guard { key: key.clone(), mod_revision: held });
    let value = Bytes::from(object.to_string());
    request.extra.write(Write::Put { key, value, lease: 0 });
}

/// Ports that a Service takes, and the revision at which each is free for it.
type Claims = BTreeMap<u16, i64>;

/// An address that nobody has, from the first range that has one.
fn free_address(
    world: &dyn World,
    ranges: &[Range],
    chosen: &[String],
) -> Result<(String, Option<i64>), Option<FieldError>> {
    let free = |ip: &IpAddr| {
        let text = ip.to_string();
        !chosen.contains(&text) && world.cached(ADDRESSES.0, ADDRESSES.1, "", &text).is_none()
    };
    let found = ranges.iter().find_map(|range| range.candidates(rand::random()).find(free));
    let full = || Some(FieldError::internal("spec.clusterIPs", "failed to allocate a serviceIP: range is full"));
    found.map(|ip| (ip.to_string(), Some(ABSENT))).ok_or_else(full)
}

impl ServiceAllocation {
    fn port_key(&self, port: u16) -> Bytes {
        self.node_ports.key("", &port.to_string())
    }

    /// The ranges of a family: the flag's, then those of ServiceCIDR objects that are ready and stay.
    fn ranges_of(&self, world: &dyn World, family: &str) -> Vec<Range> {
        let mut all: Vec<Range> = self.ranges.iter().filter(|range| range.family() == family).copied().collect();
        for object in world.objects("networking.k8s.io", "servicecidrs", "") {
            let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions.any(|c| c["type"] == "Ready" && c["status"] == "True");
            if !ready || object["metadata"]["deletionTimestamp"].is_string() {
                continue;
            }
            let cidrs = object["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for range in cidrs.filter_map(|cidr| Range::parse(cidr).ok()).filter(|r| r.family() == family) {
                if !all.contains(&range) {
                    all.push(range);
                }
            }
        }
        all
    }

    fn addresses(&self, request: &mut Request<'_>, world: &dyn World, old: &Value, errors: &mut Vec<FieldError>) {
        let spec = &request.object["spec"];
        if !fields::needs_address(spec) {
            return;
        }
        if fields::headless(spec) {
            request.object["spec"]["clusterIPs"] = json!(["None"]);
            return;
        }
        let families: Vec<String> =
            spec["ipFamilies"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let given = fields::addresses(spec);
        let mut chosen: Vec<String> = Vec::new();
        let mut claims = Vec::new();
        for (i, family) in families.iter().enumerate() {
            let ranges = self.ranges_of(world, family);
            let found = match given.get(i) {
                Some(address) if fields::addresses(old).contains(address) => Ok((address.clone(), None)),
                Some(address) => self.given_address(request, world, address, &ranges, &given),
                None => free_address(world, &ranges, &chosen),
            };
            match found {
                Ok((address, at)) => {
                    claims.extend(at.map(|at| (address.clone(), at)));
                    chosen.push(address);
                }
                Err(Some(error)) => return errors.push(error),
                // The kind's own validation says what is wrong with it.
                Err(None) => return,
            }
        }
        // More addresses than families: the kind's own validation refuses them.
        chosen.extend(given.iter().skip(families.len()).cloned());
        if let Some(first) = chosen.first() {
            request.object["spec"]["clusterIP"] = first.as_str().into();
            request.object["spec"]["clusterIPs"] = json!(chosen);
        }
        for (address, at) in claims {
            let Some(key) = address_key(world, &address) else { continue };
            let object = ip_address(request, &address);
            claim(request, key, &object, at);
        }
    }

    /// An address that the Service asks for, and the revision at which it is free for it.
    fn given_address(
        &self,
        request: &Request<'_>,
        world: &dyn World,
        address: &str,
        ranges: &[Range],
        given: &[String],
    ) -> Result<(String, Option<i64>), Option<FieldError>> {
        let Ok(ip) = address.parse::<IpAddr>() else { return Err(None) };
        let held = world.cached(ADDRESSES.0, ADDRESSES.1, "", address);
        let detail = if !ranges.iter().any(|range| range.contains(ip)) {
            format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                self.range_text
            )
        } else if held.as_ref().is_some_and(|holder| !is_left_over(request, world, &holder.object())) {
            format!("failed to allocate IP {address}: provided IP is already allocated")
        } else {
            return Ok((address.to_owned(), Some(held.map_or(ABSENT, |holder| holder.revision))));
        };
        Err(Some(FieldError::invalid("spec.clusterIPs", json!(given), detail)))
    }

    fn ports(&self, request: &mut Request<'_>, world: &dyn World, old: &Value, errors: &mut Vec<FieldError>) {
        let spec = &request.object["spec"];
        let held = fields::node_ports(old);
        let mut claimed = Claims::new();
        if fields::needs_node_ports(spec) || !fields::node_ports(spec).is_empty() {
            let count = spec["ports"].as_array().map_or(0, Vec::len);
            // What people chose comes before what is chosen for them.
            for index in 0..count {
                let wanted = request.object["spec"]["ports"][index]["nodePort"].as_u64().unwrap_or(0);
                let Ok(wanted) = u16::try_from(wanted) else { continue };
                if wanted == 0 || held.contains(&wanted) || claimed.contains_key(&wanted) {
                    continue;
                }
                match self.check_port(request, world, wanted) {
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
                    None => match self.free_port(&claimed) {
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
                if let Some(number) = self.free_port(&claimed) {
                    claimed.insert(number, ABSENT);
                    request.object["spec"]["healthCheckNodePort"] = number.into();
                }
            } else if !held.contains(&wanted)
                && let Ok(at) = self.check_port(request, world, wanted)
            {
                claimed.insert(wanted, at);
            }
        }
        for (port, at) in claimed {
            let object = held::port(port, request.namespace, meta_text(request.object, "name"));
            claim(request, self.port_key(port), &object, at);
        }
    }

    /// The revision at which the port is free for this Service.
    fn check_port(&self, request: &Request<'_>, world: &dyn World, port: u16) -> Result<i64, String> {
        let (low, high) = self.ports;
        if port < low || port > high {
            return Err(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
        }
        match self.node_ports.get(&self.port_key(port)) {
            None => Ok(ABSENT),
            Some(holder) if is_left_over(request, world, &holder.object()) => Ok(holder.revision),
            Some(_) => Err("provided port is already allocated".to_owned()),
        }
    }

    fn free_port(&self, claimed: &Claims) -> Option<u16> {
        let (low, high) = self.ports;
        let count = u32::from(high - low) + 1;
        let start = rand::random::<u32>() % count;
        let all = (0..count).map(|i| low + ((start + i) % count) as u16);
        let mut free =
            all.filter(|port| !claimed.contains_key(port) && self.node_ports.get(&self.port_key(*port)).is_none());
        free.next()
    }

    /// Gives back what `old` held and `new` does not.
    fn release(&self, request: &mut Request<'_>, world: &dyn World, old: &Value, new: &Value) {
        let kept = fields::addresses(new);
        for address in fields::addresses(old).into_iter().filter(|address| !kept.contains(address)) {
            if let Some(key) = address_key(world, &address) {
                request.extra.write(Write::Delete { key });
            }
        }
        let kept = fields::node_ports(new);
        for port in fields::node_ports(old).into_iter().filter(|port| !kept.contains(port)) {
            request.extra.write(Write::Delete { key: self.port_key(port) });
        }
    }
}
