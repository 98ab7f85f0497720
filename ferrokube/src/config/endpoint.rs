//! Where the API server of this host is reached: by people, by pods, by the `kubernetes` Service. What follows from the
//! settings. Pure. Callers: kubeconfigs, certificates, the start of the API server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Host, Roles};

impl Host {
    /// Where people reach the API; of a node alone only the file that says it.
    pub fn server_url(&self) -> String {
        if let Some(credentials) = &self.options.credentials {
            return format!("as {} says", credentials.join("kubelet.conf").display());
        }
        let address = self.options.bind_address.filter(|address| !address.is_unspecified());
        // What listens on every address of IPv6 does so on those of IPv4.
        format!("https://{}", SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), self.cluster.api_port))
    }

    /// Where the API server listens.
    pub fn bind_address(&self) -> IpAddr {
        self.options.bind_address.unwrap_or(self.every_address())
    }

    /// Every address by which this host may be reached: what listens on all of IPv6 does so on those of IPv4.
    pub fn every_address(&self) -> IpAddr {
        if self.cluster.has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    /// Of an API server that listens on loopback: the address by which its pods reach it all the same. The last of the
    /// Services' range, which no Service is ever given. A host without pods has none.
    pub fn api_address_of_pods(&self) -> Option<IpAddr> {
        let loopback = self.options.bind_address.is_some_and(|address| address.is_loopback());
        (loopback && self.roles().has(Roles::NODE)).then(|| self.cluster.service_cidr.primary().last())
    }

    /// What the `kubernetes` Service leads to, on a node with this address.
    pub fn advertised(&self, node_ip: IpAddr) -> IpAddr {
        let fits = |address: &IpAddr| !address.is_unspecified() && address.is_ipv6() == node_ip.is_ipv6();
        self.api_address_of_pods().or(self.options.bind_address.filter(fits)).unwrap_or(node_ip)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::tests::host;

    #[test]
    fn the_service_leads_to_where_pods_reach_a_server_that_listens_on_one_address() {
        let (mut host, node) = (host(Path::new("/d")), IpAddr::from([192, 0, 2, 1]));
        let mut with = |bind: Option<&str>| {
            host.options.bind_address = bind.map(|text| text.parse().expect("an address"));
            (host.server_url(), host.advertised(node).to_string())
        };
        let url = |host: &str| format!("https://{host}:6443");
        assert_eq!(with(None), (url("127.0.0.1"), "192.0.2.1".into()));
        assert_eq!(with(Some("0.0.0.0")), (url("127.0.0.1"), "192.0.2.1".into()));
        assert_eq!(with(Some("127.0.0.1")), (url("127.0.0.1"), "10.43.255.255".into()));
        assert_eq!(with(Some("192.0.2.9")), (url("192.0.2.9"), "192.0.2.9".into()));
        assert_eq!(with(Some("2001:db8::9")), (url("[2001:db8::9]"), "192.0.2.1".into()), "another family");
    }
}
