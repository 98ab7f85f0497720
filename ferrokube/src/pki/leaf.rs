//! Which certificates a host has and what each says ([`leaves`]), and when one is to be made anew ([`due`]). Pure: the
//! time and what is on the disk are the caller's to tell. Knows nothing of who signs. Called by [`super::Pki`] alone.

use std::net::{IpAddr, Ipv4Addr};

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::ADMIN;
use crate::config::{Host, Roles, list};

const SERVER: [ExtendedKeyUsagePurpose; 1] = [ExtendedKeyUsagePurpose::ServerAuth];
const CLIENT: [ExtendedKeyUsagePurpose; 1] = [ExtendedKeyUsagePurpose::ClientAuth];
const BOTH: [ExtendedKeyUsagePurpose; 2] = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

/// The authorities of a cluster with their common names: kubeadm's. Their keys are where the control plane is, and
/// nowhere else.
pub const AUTHORITIES: [(&str, &str); 3] =
    [("ca", "kubernetes"), (ETCD_CA, "etcd-ca"), ("front-proxy-ca", "front-proxy-ca")];
/// The authority of an etcd in this process; no other certificate is of it.
pub const ETCD_CA: &str = "etcd/ca";

/// The leaf that a kubelet serves with.
pub const SERVING: &str = "kubelet";
/// The leaf by which a node alone speaks to the API server.
pub const SPEAKER: &str = "kubelet-client";

/// What a leaf says of its holder.
#[derive(Debug)]
pub struct Leaf {
    /// Its files are called so.
    pub name: &'static str,
    /// Which authority signs it.
    pub ca: &'static str,
    pub common_name: String,
    pub organisation: Option<&'static str>,
    pub sans: Vec<SanType>,
    pub usages: &'static [ExtendedKeyUsagePurpose],
}

/// Every leaf of a host in its roles. `node_ips` are the addresses by which pods and others reach it, the first of which is
/// the API server's; `underlay` is the one by which its further nodes do.
///
/// ```text
///   role            leaf                        signed by        says
///   CONTROL_PLANE   apiserver                   ca               server, all names of the API
///                   apiserver-kubelet-client    ca               client, system:masters
///                   admin                       ca               client, system:masters
///                   front-proxy-client          front-proxy-ca   client
///                   etcd/server                 etcd/ca          server and client; not with --etcd-servers
///                   etcd/healthcheck-client     etcd/ca          client; the same
///   NODE            kubelet                     ca               server, this node's names; alone, without localhost
/// ```
pub fn leaves(host: &Host, node_ips: &[IpAddr], underlay: Option<Ipv4Addr>) -> Vec<Leaf> {
    let mut all = Vec::new();
    if host.roles().has(Roles::CONTROL_PLANE) {
        // Nobody tells none here.
        let first = node_ips.first().copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
        all.extend(control_plane(host, first, underlay));
    }
    if host.roles().has(Roles::NODE) {
        all.push(kubelet(host, node_ips));
    }
    all
}

/// The leaf that a node's kubelet serves with.
fn kubelet(host: &Host, node_ips: &[IpAddr]) -> Leaf {
    let mut sans = of_node(host, node_ips);
    if host.roles().has(Roles::CONTROL_PLANE) {
        sans.extend([dns("localhost"), ip(Ipv4Addr::LOCALHOST)]);
    }
    Leaf { name: SERVING, sans, usages: &SERVER, ..speaker(host) }
}

/// The leaf by which a node alone speaks.
fn speaker(host: &Host) -> Leaf {
    Leaf {
        name: SPEAKER,
        ca: "ca",
        common_name: format!("system:node:{}", host.node_name),
        organisation: Some("system:nodes"),
        sans: vec![],
        usages: &CLIENT,
    }
}

/// What a node alone has from the cluster's CA.
pub fn of_joined(host: &Host, node_ips: &[IpAddr]) -> [Leaf; 2] {
    [speaker(host), kubelet(host, node_ips)]
}

fn control_plane(host: &Host, node_ip: IpAddr, underlay: Option<Ipv4Addr>) -> Vec<Leaf> {
    let client = |name, ca, common_name: &str, organisation| Leaf {
        name,
        ca,
        common_name: common_name.to_owned(),
        organisation,
        sans: vec![],
        usages: &CLIENT,
    };
    let server = |name, ca, common_name: &str, sans, usages| Leaf {
        name,
        ca,
        common_name: common_name.to_owned(),
        organisation: None,
        sans,
        usages,
    };
    let mut all = vec![
        server("apiserver", "ca", "kube-apiserver", of_api(host, node_ip, underlay), &SERVER),
        client("apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", Some("system:masters")),
        client(ADMIN, "ca", "kubernetes-admin", Some("system:masters")),
        client("front-proxy-client", "front-proxy-ca", "front-proxy-client", None),
    ];
    if !host.cluster.has_etcd_elsewhere() {
        all.push(server("etcd/server", ETCD_CA, &host.node_name, of_host(host, node_ip), &BOTH));
        all.push(client("etcd/healthcheck-client", ETCD_CA, "kube-etcd-healthcheck-client", None));
    }
    all
}

/// The names that a node alone may have from the cluster's CA: by `localhost` it could pass for others. What stands in for
/// an address of the second family, its bridge's, is none by which others reach it, and may be another node's as well.
pub fn of_node(host: &Host, node_ips: &[IpAddr]) -> Vec<SanType> {
    let (first, others) = node_ips.split_at(node_ips.len().min(1));
    let others = others.iter().filter(|other| !host.cluster.pod_cidr.contains(**other));
    let ips = first.iter().chain(others).map(|address| ip(*address));
    std::iter::once(dns(&host.node_name)).chain(ips).collect()
}

/// The names and addresses by which this host is reached.
fn of_host(host: &Host, node_ip: IpAddr) -> Vec<SanType> {
    vec![dns(&host.node_name), dns("localhost"), ip(Ipv4Addr::LOCALHOST), ip(node_ip)]
}

/// Those by which its API server is: also the names of the Service, and what `--tls-san` adds.
fn of_api(host: &Host, node_ip: IpAddr, underlay: Option<Ipv4Addr>) -> Vec<SanType> {
    let cluster = &host.cluster;
    let mut api = of_host(host, node_ip);
    api.push(ip(cluster.api_service_ip()));
    api.extend(underlay.map(ip));
    for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        api.push(dns(name));
    }
    api.push(dns(&format!("kubernetes.default.svc.{}", cluster.cluster_domain)));
    let bound = host.options.bind_address.filter(|address| !address.is_unspecified());
    api.extend([bound, host.api_address_of_pods()].into_iter().flatten().map(ip));
    api.extend(list(&cluster.options.tls_san).iter().map(|name| match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => dns(name),
    }));
    api
}

/// Whether a certificate is to be renewed: two thirds of its life have passed, as for upstream's kubelet, or it has
/// not begun, because the clock was wrong when it was made.
pub fn due(from: i64, until: i64, now: i64) -> bool {
    now < from || now >= from + (until - from) / 3 * 2
}

/// Whether a certificate names every name and address that it must.
pub fn names_all(cert: &X509Certificate<'_>, sans: &[SanType]) -> bool {
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return sans.is_empty() };
    sans.iter().all(|san| {
        extension.value.general_names.iter().any(|name| match (san, name) {
            (SanType::DnsName(a), GeneralName::DNSName(b)) => a.as_str() == *b,
            (SanType::IpAddress(IpAddr::V4(a)), GeneralName::IPAddress(b)) => a.octets() == *b,
            (SanType::IpAddress(IpAddr::V6(a)), GeneralName::IPAddress(b)) => a.octets() == *b,
            _ => false,
        })
    })
}

pub fn dns(name: &str) -> SanType {
    // Host names are checked when the cluster's configuration is made.
    SanType::DnsName(name.try_into().unwrap_or_else(|_| "localhost".try_into().expect("a host name")))
}

fn ip(address: impl Into<IpAddr>) -> SanType {
    SanType::IpAddress(address.into())
}
