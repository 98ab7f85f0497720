//! Where neighbours connect: sockets of both families, with the keys of those who sign (RFC 2385). Who connects is the
//! loop's to judge, at once; whatever the kernel has not handed over yet waits there. Does I/O: listens, where `serving`
//! cannot: a signed SYN needs its key on the socket that listens. Called by the loop.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::event::Event;

/// Connections that the kernel holds until the loop has looked at who it is: every neighbour of a large reflector at once.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of something.
const RETRY: Duration = Duration::from_millis(100);
/// Packets of a listening socket get to neighbours who look for how far they came.
const TTL: u8 = 255;

/// Keys, by the addresses that sign with them.
pub type Keys = BTreeMap<(IpAddr, u8), String>;

/// All sockets that listen.
#[derive(Debug, Default)]
pub struct Listeners {
    sockets: Vec<Arc<TcpListener>>,
    keys: Keys,
    /// Refusals of keys that have been told.
    _accepting: Option<DropGuard>,
}

impl Listeners {
    /// Binds; where the host has no IPv6 and nobody asked for it by an address, it is left out.
    ///
    /// # Errors
    /// The address, and what the kernel says.
    pub fn bind(addresses: &[SocketAddr], events: &mpsc::Sender<Event>) -> Result<Listeners, (SocketAddr, io::Error)> {
        let mut sockets = Vec::new();
        for address in addresses {
            match bind(*address) {
                Ok(socket) => sockets.push(Arc::new(socket)),
                Err(error) if address.ip().is_unspecified() && is_without_family(&error) => {
                    tracing::warn!(%address, "not listening: this host has no such addresses");
                }
                Err(error) => return Err((*address, error)),
            }
        }
        let stop = CancellationToken::new();
        for socket in &sockets {
            tokio::spawn(accept(Arc::clone(socket), events.clone(), stop.clone()));
        }
        Ok(Listeners { sockets, keys: Keys::new(), _accepting: Some(stop.drop_guard()) })
    }

    /// Where they are bound: with port 0, that is the kernel's choice.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Who signs with what, from now on. What cannot be set is told, by the field.
    pub fn set_keys(&mut self, keys: Keys) -> Vec<(IpAddr, io::Error)> {
        let mut refused = Vec::new();
        let gone = self.keys.keys().filter(|place| !keys.contains_key(place)).map(|place| (*place, ""));
        let new = keys.iter().filter(|(place, key)| self.keys.get(place) != Some(key));
        let new = new.map(|(place, key)| (*place, key.as_str()));
        for ((address, length), key) in gone.chain(new) {
            let of_family = |socket: &&Arc<TcpListener>| {
                socket.local_addr().is_ok_and(|local| local.is_ipv6() == address.is_ipv6())
            };
            for socket in self.sockets.iter().filter(of_family) {
                if let Err(error) = linux::tcp::tcp_md5(&**socket, address, length, key.as_bytes()) {
                    refused.push((address, error));
                }
            }
        }
        self.keys = keys;
        refused
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // The port's other family has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    linux::tcp::ttl(&socket, address.is_ipv6(), TTL)?;
    linux::tcp::save_syn(&socket)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_without_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|known| Some(known.raw_os_error()) == errno)
}

async fn accept(socket: Arc<TcpListener>, events: mpsc::Sender<Event>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                if events.send(Event::Accepted { stream, from }).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
