//! Which certificates a host has and what each says ([`leaves`]), and when one is to be made anew ([`due`]). Pure: the
//! time and what is on the disk are the caller's to tell. Knows nothing of who signs. Called by [`super::Pki`] alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// The API server's Service, as pods name it.
pub const SERVICE_NAMES: [&str; 3] = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];

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

/// Every leaf of a host in its roles. `node_ips` are the addresses by which pods and others reach it, one of each family of
/// the cluster; `underlay` are those by which its further nodes do.
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
pub fn leaves(host: &Host, node_ips: &[IpAddr], underlay: &[IpAddr]) -> Vec<Leaf> {
    let mut all = Vec::new();
    if host.roles().has(Roles::CONTROL_PLANE) {
        all.extend(control_plane(host, node_ips, underlay));
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
        sans.extend(loopback());
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

fn control_plane(host: &Host, node_ips: &[IpAddr], underlay: &[IpAddr]) -> Vec<Leaf> {
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
        server("apiserver", "ca", "kube-apiserver", of_api(host, node_ips, underlay), &SERVER),
        client("apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", Some("system:masters")),
        client(ADMIN, "ca", "kubernetes-admin", Some("system:masters")),
        client("front-proxy-client", "front-proxy-ca", "front-proxy-client", None),
    ];
    if !host.cluster.has_etcd_elsewhere() {
        all.push(server("etcd/server", ETCD_CA, &host.node_name, of_host(host, node_ips), &BOTH));
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
fn of_host(host: &Host, node_ips: &[IpAddr]) -> Vec<SanType> {
    of_node(host, node_ips).into_iter().chain(loopback()).collect()
}

/// What a host is to itself, as kubeadm has it.
fn loopback() -> [SanType; 3] {
    [dns("localhost"), ip(Ipv4Addr::LOCALHOST), ip(Ipv6Addr::LOCALHOST)]
}

/// Those by which its API server is: also the names of the Service, and what `--tls-san` adds.
fn of_api(host: &Host, node_ips: &[IpAddr], underlay: &[IpAddr]) -> Vec<SanType> {
    let cluster = &host.cluster;
    let mut api = of_host(host, node_ips);
    api.extend(cluster.first_of_services().into_iter().chain(underlay.iter().copied()).map(ip));
    api.extend(SERVICE_NAMES.map(dns));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::host;

    /// What a server's certificate of a host says, sorted.
    fn said(host: &Host, name: &str, node_ips: &[&str], underlay: &[&str]) -> Vec<String> {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let all = leaves(host, &ips(node_ips), &ips(underlay));
        let leaf = all.iter().find(|leaf| leaf.name == name).expect("a leaf");
        let mut said: Vec<_> = leaf
            .sans
            .iter()
            .map(|san| match san {
                SanType::DnsName(name) => name.as_str().to_owned(),
                SanType::IpAddress(address) => address.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        said.sort();
        said
    }

    #[test]
    fn servers_of_two_families_are_named_by_both_addresses_of_the_node_of_services_and_of_further_nodes() {
        let mut host = host("/nowhere".as_ref());
        let api =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
        let sorted = |more: &[&str]| {
            let mut all: Vec<_> =
                ["node", "localhost", "127.0.0.1", "::1"].iter().chain(more).map(|s| (*s).to_owned()).collect();
            all.sort();
            all
        };
        assert_eq!(
            said(&host, "apiserver", &["192.0.2.1"], &[]),
            sorted(&[&api[..], &["192.0.2.1", "10.43.0.1"]].concat())
        );
        host.cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        host.cluster.service_cidr = "10.43.0.0/16,fd43::/112".parse().expect("ranges");
        let both = ["192.0.2.1", "2001:db8::1"];
        let more = ["10.43.0.1", "fd43::1", "10.202.0.1", "fd66::1"];
        let underlay = &more[2..];
        assert_eq!(said(&host, "apiserver", &both, underlay), sorted(&[&api[..], &both, &more].concat()));
        for name in ["etcd/server", SERVING] {
            assert_eq!(said(&host, name, &both, underlay), sorted(&both), "{name}");
            // Its pods' bridge is where nobody beyond reaches it.
            assert_eq!(said(&host, name, &["192.0.2.1", "fd42::1"], &[]), sorted(&["192.0.2.1"]), "{name}");
        }
    }
}
