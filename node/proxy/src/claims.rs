//! Ports of the node's own addresses that Services of load balancers are reached at: each is held by a socket. Does I/O.
//!
//! Whoever may write a Service must not be able to take a port from the host: its SSH server's, its API server's. A port
//! that something of the host has can't be bound, and is not claimed; one that is bound is nobody else's while the
//! Service has it, and who tries hears that it is in use. Nothing is received there: packets are led to endpoints before
//! they would reach the socket.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use linux::netns::NetNs;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::net::TcpSocket;

use crate::model::Name;
use crate::service::{UDP, VirtualServer};

const TCP: u8 = 6;

/// The ports that are held, and those that are waited for.
#[derive(Debug)]
pub struct Claims {
    netns: Option<PathBuf>,
    held: FxHashMap<VirtualServer, (Hold, FxHashSet<Name>)>,
    /// What each Service wants: only those of load balancers of the nodes are here.
    wanted: FxHashMap<Name, Vec<VirtualServer>>,
    /// Services that want a port which something of the host has.
    waiting: FxHashSet<Name>,
}

/// Keeps a port from others.
#[derive(Debug)]
#[allow(dead_code)] // sockets are held, not used
enum Hold {
    Tcp(TcpSocket),
    Udp(UdpSocket),
    /// What no program of a host listens on.
    Nothing,
}

impl Claims {
    pub fn new(netns: Option<PathBuf>) -> Self {
        let (held, wanted, waiting) = Default::default();
        Claims { netns, held, wanted, waiting }
    }

    /// Takes and gives up ports so that a Service has those that it wants, and keeps `all` equal to what is held. What
    /// the host has itself comes back.
    pub fn set(
        &mut self,
        name: &Name,
        wanted: Vec<VirtualServer>,
        all: &mut FxHashSet<VirtualServer>,
    ) -> Vec<VirtualServer> {
        let before = self.wanted.get(name).cloned().unwrap_or_default();
        if before.is_empty() && wanted.is_empty() {
            return Vec::new();
        }
        for server in before.iter().filter(|server| !wanted.contains(server)) {
            if let Some((_, by)) = self.held.get_mut(server) {
                by.remove(name);
                if by.is_empty() {
                    self.held.remove(server);
                    all.remove(server);
                }
            }
        }
        let mut missing = Vec::new();
        for server in &wanted {
            if let Some((_, by)) = self.held.get_mut(server) {
                by.insert(name.clone());
                continue;
            }
            match self.bind(server) {
                Ok(hold) => {
                    self.held.insert(*server, (hold, [name.clone()].into_iter().collect()));
                    all.insert(*server);
                }
                // An address that is not this host's, such as one of a router before it.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(_) => missing.push(*server),
            }
        }
        match missing.is_empty() {
            true => self.waiting.remove(name),
            false => self.waiting.insert(name.clone()),
        };
        match wanted.is_empty() {
            true => drop(self.wanted.remove(name)),
            false => drop(self.wanted.insert(name.clone(), wanted)),
        }
        missing
    }

    /// Services that may be looked at again: ports become free without a word.
    pub fn waiting(&self) -> impl Iterator<Item = &Name> {
        self.waiting.iter()
    }

    fn bind(&self, server: &VirtualServer) -> io::Result<Hold> {
        match &self.netns {
            None => hold(server),
            Some(path) => NetNs::open(path)?.run(|| hold(server))?,
        }
    }
}

/// Neither option of reuse is set: with one, the host's own server could be bound beside it.
fn hold(server: &VirtualServer) -> io::Result<Hold> {
    let address = SocketAddr::new(server.addr, server.port);
    match server.protocol {
        TCP => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind(address)?;
            Ok(Hold::Tcp(socket))
        }
        UDP => UdpSocket::bind(address).map(Hold::Udp),
        _ => Ok(Hold::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn what_the_host_listens_on_is_not_claimed_until_it_is_free() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = VirtualServer { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), protocol: TCP, port };
        let foreign = VirtualServer { addr: "192.0.2.1".parse().unwrap(), ..server };
        let (mut claims, mut all) = (Claims::new(None), FxHashSet::default());
        let (web, other): (Name, Name) = ("default/web".into(), "default/other".into());
        assert_eq!(claims.set(&web, vec![server, foreign], &mut all), [server], "an address of nobody is passed over");
        assert_eq!((all.len(), claims.waiting().count()), (0, 1));
        drop(listener);
        assert_eq!(claims.set(&web, vec![server], &mut all), []);
        assert_eq!((all.contains(&server), claims.waiting().count()), (true, 0));
        assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err(), "and now it is the Service's");
        assert_eq!(claims.set(&other, vec![server], &mut all), [], "which of two Services has it is decided elsewhere");
        claims.set(&web, vec![], &mut all);
        assert!(all.contains(&server));
        claims.set(&other, vec![], &mut all);
        assert!(all.is_empty() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok());
    }
}
