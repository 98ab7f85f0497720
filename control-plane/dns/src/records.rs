//! What Services and their EndpointSlices mean in names: the Kubernetes DNS specification 1.1. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::corefile::Records;
use crate::wire::{self, Name, TO_QUESTION, kind};

/// The version of the specification, told by the TXT record `dns-version`.
pub const SPECIFICATION: &str = "1.1.0";

/// The names of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    pub names: BTreeMap<Name, Node>,
    /// Addresses and the names that they stand for.
    pub pointers: Vec<(IpAddr, Name)>,
}

/// Everything that one name has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node(Vec<RecordSet>);

/// The records of one type of a name, ready to be copied behind a question: owners are pointers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSet {
    pub kind: u16,
    /// Records in the answer section, and in the additional one after it.
    pub answers: u16,
    pub additional: u16,
    /// Where the additional records start.
    pub split: u16,
    pub bytes: Box<[u8]>,
}

impl Node {
    pub fn get(&self, kind: u16) -> Option<&RecordSet> {
        self.0.iter().find(|set| set.kind == kind)
    }

    pub fn sets(&self) -> impl Iterator<Item = &RecordSet> {
        self.0.iter()
    }

    /// Adds a set of records, given by their data.
    pub fn put(&mut self, kind: u16, ttl: u32, data: impl IntoIterator<Item = Vec<u8>>) {
        let mut bytes = Vec::new();
        let mut answers = 0;
        for data in data {
            wire::push_record(&mut bytes, &TO_QUESTION, kind, ttl, &data);
            answers += 1;
        }
        let split = bytes.len();
        self.push(RecordSet { kind, answers, additional: 0, split: split as u16, bytes: bytes.into() });
    }

    fn addresses(&mut self, addrs: &[IpAddr], ttl: u32) {
        for v6 in [false, true] {
            let mut data = addrs.iter().filter(|a| a.is_ipv6() == v6).map(|a| octets(*a)).peekable();
            if data.peek().is_some() {
                self.put(if v6 { kind::AAAA } else { kind::A }, ttl, data);
            }
        }
    }

    fn push(&mut self, set: RecordSet) {
        // More than a message can hold is not told; the rest would never be seen.
        if set.answers > 0 && set.bytes.len() <= MOST_SET_BYTES {
            self.0.retain(|s| s.kind != set.kind);
            self.0.push(set);
        }
    }
}

/// A TCP message holds 65,535 bytes, with header and question.
const MOST_SET_BYTES: usize = 65_000;

/// One place that a Service leads to, with the ports it has there.
#[derive(Clone, Debug)]
struct Target {
    name: Name,
    addrs: Vec<IpAddr>,
    /// (name, protocol label, number).
    ports: Vec<(String, &'static str, u16)>,
}

/// The names of a Service. `zone` is the cluster's.
pub fn of_service(service: &Service, slices: &[&EndpointSlice], zone: &Name, records: &Records) -> Contribution {
    let ttl = records.ttl;
    let (Some(namespace), Some(name), Some(spec)) =
        (&service.metadata.namespace, &service.metadata.name, &service.spec)
    else {
        return Contribution::default();
    };
    if records.namespaces.as_ref().is_some_and(|some| !some.contains(namespace)) {
        return Contribution::default();
    }
    let Some(own) = Name::under(&[name, namespace, "svc"], zone) else { return Contribution::default() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return external_name(spec, own, ttl);
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return headless(spec, slices, own, records);
    }
    let ready =
        |slice: &&EndpointSlice| slice.endpoints.iter().flatten().any(|e| is_ready(e) && !e.addresses.is_empty());
    if records.ignore_empty && !slices.iter().any(ready) {
        return Contribution::default();
    }
    cluster_ip(spec, own, ttl)
}

fn external_name(spec: &ServiceSpec, own: Name, ttl: u32) -> Contribution {
    let mut contribution = Contribution::default();
    if let Some(target) = spec.external_name.as_deref().filter(|n| !n.is_empty()).and_then(Name::parse) {
        let mut node = Node::default();
        node.put(kind::CNAME, ttl, [target.as_bytes().to_vec()]);
        contribution.names.insert(own, node);
    }
    contribution
}

fn cluster_ip(spec: &ServiceSpec, own: Name, ttl: u32) -> Contribution {
    let addrs: Vec<IpAddr> = match spec.cluster_ips.as_deref() {
        None | Some([]) => spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect(),
        Some(ips) => ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
    };
    if addrs.is_empty() {
        return Contribution::default();
    }
    let ports = spec.ports.iter().flatten().filter_map(|p| {
        Some((p.name.clone().unwrap_or_default(), label(p.protocol.as_deref())?, u16::try_from(p.port).ok()?))
    });
    let target = Target { name: own.clone(), addrs: addrs.clone(), ports: ports.collect() };
    let pointers = addrs.iter().map(|addr| (*addr, own.clone())).collect();
    let mut contribution = Contribution { pointers, ..Contribution::default() };
    contribution.names.entry(own.clone()).or_default().addresses(&addrs, ttl);
    add_services(&mut contribution, &own, &[target], ttl);
    contribution
}

fn headless(spec: &ServiceSpec, slices: &[&EndpointSlice], own: Name, records: &Records) -> Contribution {
    let ttl = records.ttl;
    let targets = targets(spec, slices, &own, records.endpoint_pod_names);
    let mut contribution = Contribution::default();
    let mut all: Vec<IpAddr> = targets.iter().flat_map(|t| t.addrs.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return contribution; // the name is not there while nothing is ready
    }
    contribution.names.entry(own.clone()).or_default().addresses(&all, ttl);
    for target in &targets {
        contribution.names.entry(target.name.clone()).or_default().addresses(&target.addrs, ttl);
        contribution.pointers.extend(target.addrs.iter().map(|addr| (*addr, target.name.clone())));
    }
    add_services(&mut contribution, &own, &targets, ttl);
    contribution
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// The ready endpoints of a headless Service by their names.
fn targets(spec: &ServiceSpec, slices: &[&EndpointSlice], own: &Name, pod_names: bool) -> Vec<Target> {
    let everyone = spec.publish_not_ready_addresses == Some(true);
    let mut by_name: BTreeMap<Name, Target> = BTreeMap::new();
    for slice in slices.iter().filter(|s| s.address_type != "FQDN") {
        let ports: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|p| {
                let number = u16::try_from(p.port?).ok()?;
                Some((p.name.clone().unwrap_or_default(), label(p.protocol.as_deref())?, number))
            })
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            if !is_ready(endpoint) && !everyone {
                continue;
            }
            for addr in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                let given = endpoint.hostname.as_deref().filter(|h| !h.is_empty());
                let pod = endpoint.target_ref.as_ref().filter(|_| pod_names).and_then(|t| t.name.as_deref());
                let given = given.or(pod.filter(|name| (1..=63).contains(&name.len()))).map(str::to_owned);
                let hostname = given.unwrap_or_else(|| addr.to_string().replace(['.', ':'], "-"));
                let Some(name) = Name::under(&[&hostname], own) else { continue };
                let target = by_name.entry(name.clone()).or_insert_with(|| Target {
                    name,
                    addrs: Vec::new(),
                    ports: Vec::new(),
                });
                if !target.addrs.contains(&addr) {
                    target.addrs.push(addr);
                }
                target.ports.extend(ports.iter().filter(|p| !target.ports.contains(p)).cloned().collect::<Vec<_>>());
            }
        }
    }
    by_name.into_values().collect()
}

/// SRV records: for each named port, and for all ports at the Service's own name.
fn add_services(contribution: &mut Contribution, own: &Name, targets: &[Target], ttl: u32) {
    type Group<'t> = Vec<(&'t Target, u16)>;
    let mut groups: BTreeMap<Option<(&str, &str)>, Group<'_>> = BTreeMap::new();
    for target in targets {
        for (name, protocol, number) in &target.ports {
            groups.entry(None).or_default().push((target, *number));
            if !name.is_empty() {
                groups.entry(Some((name, protocol))).or_default().push((target, *number));
            }
        }
    }
    for (port, group) in groups {
        let at = match port {
            None => Some(own.clone()),
            Some((name, protocol)) => Name::under(&[&format!("_{name}"), protocol], own),
        };
        let Some(at) = at else { continue };
        let node = contribution.names.entry(at).or_default();
        if port.is_some() {
            let mut addrs: Vec<_> = group.iter().flat_map(|(t, _)| t.addrs.iter().copied()).collect();
            addrs.sort_unstable();
            addrs.dedup();
            node.addresses(&addrs, ttl);
        }
        node.push(service_set(&group, ttl));
    }
}

fn service_set(group: &[(&Target, u16)], ttl: u32) -> RecordSet {
    let mut bytes = Vec::new();
    // Shares of a hundred, as clients that heed weights expect from cluster DNS.
    let weight = (100 / group.len().max(1)).max(1) as u16;
    for (target, number) in group {
        let mut data = Vec::with_capacity(6 + target.name.as_bytes().len());
        data.extend_from_slice(&0u16.to_be_bytes());
        data.extend_from_slice(&weight.to_be_bytes());
        data.extend_from_slice(&number.to_be_bytes());
        data.extend_from_slice(target.name.as_bytes());
        wire::push_record(&mut bytes, &TO_QUESTION, kind::SRV, ttl, &data);
    }
    let split = bytes.len();
    let mut told: Vec<&Name> = Vec::new();
    let mut additional = 0;
    for (target, _) in group {
        if told.contains(&&target.name) {
            continue;
        }
        told.push(&target.name);
        for addr in &target.addrs {
            wire::push_address(&mut bytes, target.name.as_bytes(), ttl, *addr);
            additional += 1;
        }
    }
    if bytes.len() > MOST_SET_BYTES {
        bytes.truncate(split);
        additional = 0;
    }
    let split = split.min(MOST_SET_BYTES) as u16;
    RecordSet { kind: kind::SRV, answers: group.len() as u16, additional, split, bytes: bytes.into() }
}

/// The label of a protocol in SRV names.
fn label(protocol: Option<&str>) -> Option<&'static str> {
    match protocol {
        None | Some("" | "TCP") => Some("_tcp"),
        Some("UDP") => Some("_udp"),
        Some("SCTP") => Some("_sctp"),
        _ => None,
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
