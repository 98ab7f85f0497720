//! The backend udp: a datagram is a packet. The kernel gives what goes to other hosts' pods to the link `flannel0`, the
//! packet loop (`crate::packets`) finds the host in a table and sends it there. Pure. Callers: the daemon, the loop.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use meta::Prefix;

use super::peers;
use crate::config::{ConfigError, Fields, NetConf};
use crate::lease::{Lease, Subnets};

pub const TYPE: &str = "";
/// The bytes around a packet: IP and UDP.
pub const OVERHEAD: u32 = 28;
/// The name of the link, with the first number that is free.
pub const LINK: &str = "flannel%d";

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub port: u16,
}

impl Options {
    pub fn of(fields: &Fields) -> Result<Options, ConfigError> {
        match fields.number("Port", 8285, u32::from(u16::MAX))? as u16 {
            0 => Err(fields.wrong("Port", "0 is no port that others can send to")),
            port => Ok(Options { port }),
        }
    }
}

/// Which host has which subnet: subnets don't overlap, so the last one that begins at or before an address is the one
/// that may hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// First and last address of each subnet, and its host; by the first.
    rows: Vec<(u32, u32, SocketAddrV4)>,
}

impl Table {
    pub fn host_of(&self, address: Ipv4Addr) -> Option<SocketAddrV4> {
        let address = address.to_bits();
        let after = self.rows.partition_point(|(first, _, _)| *first <= address);
        let (_, last, host) = self.rows.get(after.checked_sub(1)?)?;
        (address <= *last).then_some(*host)
    }

    fn put(&mut self, subnet: Prefix, host: SocketAddrV4) {
        if let (IpAddr::V4(first), IpAddr::V4(last)) = (subnet.network().addr, subnet.last()) {
            self.rows.push((first.to_bits(), last.to_bits(), host));
        }
    }
}

/// The table for these leases, and what of them can't be followed.
pub fn wanted<'a>(
    (conf, options): (&NetConf, &Options),
    own: &Subnets,
    leases: impl IntoIterator<Item = &'a Lease>,
) -> (Table, Vec<String>) {
    let mut complaints = Vec::new();
    let mut table = Table::default();
    for (subnet, host, _) in peers(conf, own, leases, TYPE, false, &mut complaints) {
        if let IpAddr::V4(host) = host {
            table.put(subnet, SocketAddrV4::new(host, options.port));
        }
    }
    table.rows.sort_unstable();
    (table, complaints)
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::tests::{conf, lease, subnets};
    use super::*;

    #[test]
    fn each_address_has_the_host_of_its_subnet() {
        let conf = conf(r#"{"Type": "udp"}"#);
        let Backend::Udp(options) = Backend::of(&conf).unwrap() else { panic!() };
        assert_eq!(options.port, 8285);
        let leases = [
            lease("10.5.9.0/24", "192.0.2.9", "", None),
            lease("10.5.1.0/24", "192.0.2.1", "", None),
            lease("10.5.2.0/24", "192.0.2.2", "", None),
            lease("10.5.7.0/24", "192.0.2.7", "vxlan", None),
        ];
        let (table, complaints) = wanted((&conf, &options), &subnets("10.5.1.0/24"), &leases);
        let host = |text: &str| table.host_of(text.parse().unwrap()).map(|host| host.to_string());
        for (address, expected) in [
            ("10.5.2.0", Some("192.0.2.2:8285")),
            ("10.5.2.255", Some("192.0.2.2:8285")),
            ("10.5.9.7", Some("192.0.2.9:8285")),
            ("10.5.1.7", None),
            ("10.5.3.0", None),
            ("10.5.7.1", None),
            ("10.4.255.255", None),
            ("255.255.255.255", None),
        ] {
            assert_eq!(host(address).as_deref(), expected, "{address}");
        }
        assert_eq!(complaints.len(), 1);
        assert_eq!(Table::default().host_of(Ipv4Addr::LOCALHOST), None);
    }
}
