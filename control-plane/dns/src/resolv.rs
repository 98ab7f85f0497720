//! Which servers to ask for names outside the cluster. Pure.
//!
//! The host's resolver configuration may name a stub on the host (systemd-resolved) or this very server. The stub's
//! real upstreams are taken instead of it; this server is left out, so that no question goes in circles.

use std::net::{IpAddr, SocketAddr};

use linux::resolved::is_stub;

/// As many as anyone configures; each costs a question when those before it are silent.
const MOST: usize = 8;

/// The servers to ask, and what is to be told about those that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    pub servers: Vec<SocketAddr>,
    pub notes: Vec<String>,
}

/// From `/etc/resolv.conf`, systemd-resolved's own file when there is one, and the addresses of this server.
pub fn upstreams(conf: &str, resolved: Option<&str>, own: &[SocketAddr]) -> Upstreams {
    let mut out = Upstreams::default();
    let mut addrs = nameservers(conf);
    if addrs.iter().any(is_stub)
        && let Some(real) = resolved.map(nameservers).filter(|r| r.iter().any(|a| !is_stub(a)))
    {
        addrs.retain(|a| !is_stub(a));
        addrs.extend(real.into_iter().filter(|a| !is_stub(a)));
    }
    for addr in addrs {
        let server = SocketAddr::new(addr, 53);
        let any = |o: &SocketAddr| o.port() == 53 && (o.ip() == addr || o.ip().is_unspecified() && addr.is_loopback());
        if own.iter().any(any) {
            out.notes.push(format!("nameserver {addr} is this DNS server itself: left out, or questions would circle"));
        } else if !out.servers.contains(&server) && out.servers.len() < MOST {
            out.servers.push(server);
        }
    }
    if out.servers.is_empty() {
        out.notes.push("no nameserver to ask for names outside the cluster: they get SERVFAIL".to_owned());
    }
    out
}

/// The `nameserver` lines of a resolver configuration.
fn nameservers(conf: &str) -> Vec<IpAddr> {
    let mut addrs = Vec::new();
    for line in conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(addr) = words.next().and_then(|w| w.split('%').next()?.parse().ok())
            && !addrs.contains(&addr)
        {
            addrs.push(addr);
        }
    }
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(conf: &str, resolved: Option<&str>, own: &[&str]) -> Vec<String> {
        let own: Vec<_> = own.iter().map(|o| o.parse().unwrap()).collect();
        upstreams(conf, resolved, &own).servers.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn plain_servers_are_taken_in_order() {
        let conf =
            "# a comment\nsearch x\nnameserver 192.0.2.1\nnameserver\t192.0.2.2 \nnameserver 192.0.2.1\noptions x\n";
        assert_eq!(servers(conf, None, &[]), ["192.0.2.1:53", "192.0.2.2:53"]);
        assert_eq!(servers("nameserver fe80::1%eth0", None, &[]), ["[fe80::1]:53"]);
    }

    #[test]
    fn the_stub_of_systemd_is_replaced_by_what_is_behind_it() {
        let stub = "nameserver 127.0.0.53\n";
        assert_eq!(servers(stub, Some("nameserver 192.0.2.9\n"), &["10.43.0.10:53"]), ["192.0.2.9:53"]);
        assert_eq!(servers(stub, None, &["10.43.0.10:53"]), ["127.0.0.53:53"], "better than nothing");
    }

    #[test]
    fn this_server_is_never_its_own_upstream() {
        let conf = "nameserver 10.43.0.10\nnameserver 192.0.2.1\n";
        assert_eq!(servers(conf, None, &["10.43.0.10:53"]), ["192.0.2.1:53"]);
        let only = upstreams("nameserver 127.0.0.1\n", None, &["0.0.0.0:53".parse().unwrap()]);
        assert_eq!((only.servers.len(), only.notes.len()), (0, 2));
    }
}
