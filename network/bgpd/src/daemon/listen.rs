//! Where neighbours connect: sockets of both families, with the keys of those who sign (RFC 2385, 5925). Who connects is the
//! loop's to judge, at once; whatever the kernel has not handed over yet waits there. Does I/O: listens, where `serving`
//! cannot: a signed SYN needs its key on the socket that listens. What came before a key was set came unsigned, and is
//! nobody's. Called by the loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bgp::session::config::Authentication;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::event::Event;
use super::keys::{Keys, Place, Signing};
use super::signed;

/// Connections that the kernel holds until the loop has looked at who it is: every neighbour of a large reflector at once.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed for want of something.
const RETRY: Duration = Duration::from_millis(100);
/// Packets of a listening socket get to neighbours who look for how far they came.
const TTL: u8 = 255;

/// All sockets that listen.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<Arc<TcpListener>>,
    signing: Signing,
    events: mpsc::Sender<Event>,
    /// So often keys have changed: what was accepted before has not been asked for them.
    keys: u64,
    accepting: Option<DropGuard>,
}

impl Listeners {
    /// Binds, in a VRF if there is one; where the host has no IPv6 and nobody asked for it by an address, it is left out. Nobody is heard before the
    /// keys are set; one that the kernel refuses is tried again, and told, by [`Listeners::set_keys`].
    ///
    /// # Errors
    /// The address, and what the kernel says.
    pub fn bind(
        addresses: &[SocketAddr],
        vrf: Option<&str>,
        keys: Keys,
        events: &mpsc::Sender<Event>,
    ) -> Result<Listeners, (SocketAddr, io::Error)> {
        let mut bound = Vec::new();
        for address in addresses {
            match bind(*address, vrf) {
                Ok(socket) => bound.push((*address, socket)),
                Err(error) if address.ip().is_unspecified() && is_without_family(&error) => {
                    tracing::warn!(%address, "not listening: this host has no such addresses");
                }
                Err(error) => return Err((*address, error)),
            }
        }
        let mut signing = Signing::default();
        signing.follow(keys, |place, before, after| {
            bound.iter().try_for_each(|(address, socket)| set_key(socket, *address, place, (before, after)))
        });
        let listen = |(address, socket): (SocketAddr, TcpSocket)| {
            socket.listen(BACKLOG).map(Arc::new).map_err(|error| (address, error))
        };
        let sockets = bound.into_iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let mut listeners = Listeners { sockets, signing, events: events.clone(), keys: 0, accepting: None };
        listeners.accept();
        Ok(listeners)
    }

    /// Where they are bound: with port 0, that is the kernel's choice.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Who signs with what, from now on. What cannot be set is told, by the field.
    pub fn set_keys(&mut self, keys: Keys) -> Vec<(IpAddr, io::Error)> {
        let sockets = &self.sockets;
        let changed = self.signing.follow(keys, |place, before, after| {
            sockets.iter().try_for_each(|socket| set_key(&**socket, socket.local_addr()?, place, (before, after)))
        });
        if changed.any {
            // Those who wait connected by the keys of before. A handshake that ends from now on is looked at by the new.
            self.accepting = None;
            self.sockets.iter().for_each(|socket| turn_away(socket));
            self.keys += 1;
            self.accept();
        }
        changed.refused
    }

    /// Whether a connection was accepted by the keys of now.
    pub fn is_current(&self, keys: u64) -> bool {
        self.keys == keys
    }

    /// Whether who connects from there has signed with this key: not where the kernel has refused it.
    pub fn demands(&self, address: IpAddr, key: &Authentication) -> bool {
        self.signing.demands(address, key)
    }

    fn accept(&mut self) {
        let stop = CancellationToken::new();
        for socket in &self.sockets {
            tokio::spawn(accept(Arc::clone(socket), self.keys, self.events.clone(), stop.clone()));
        }
        self.accepting = Some(stop.drop_guard());
    }
}

/// Sets keys, where the socket is of their family.
fn set_key(
    socket: impl AsFd,
    local: SocketAddr,
    place: Place,
    (before, after): (Option<&Authentication>, Option<&Authentication>),
) -> io::Result<()> {
    if local.is_ipv6() != place.0.is_ipv6() {
        return Ok(());
    }
    signed::change(socket, place, before, after)
}

/// Closes connections that nobody has taken yet: no more than can be waiting.
fn turn_away(socket: &TcpListener) {
    for _ in 0..=BACKLOG {
        if rustix::net::accept_with(socket, rustix::net::SocketFlags::CLOEXEC).is_err() {
            return;
        }
    }
}

fn bind(address: SocketAddr, vrf: Option<&str>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // The port's other family has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if let Some(vrf) = vrf {
        linux::tcp::bind_to_device(&socket, vrf)?;
    }
    linux::tcp::ttl(&socket, address.is_ipv6(), TTL)?;
    linux::tcp::save_syn(&socket)?;
    socket.bind(address)?;
    Ok(socket)
}

/// What may be done about an address that can't be had.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has the port: listen.port may say another",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE: listen.port may say another"
        }
        io::ErrorKind::AddrNotAvailable => "; this host has no such address: listen.addresses may name one that it has",
        _ => "",
    }
}

fn is_without_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|known| Some(known.raw_os_error()) == errno)
}

async fn accept(socket: Arc<TcpListener>, keys: u64, events: mpsc::Sender<Event>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                if events.send(Event::Accepted { stream, from, keys }).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_cannot_be_had_is_told_with_what_would_help() {
        let told = |address: &str| {
            let (events, _told) = mpsc::channel(8);
            let refused = Listeners::bind(&[address.parse().expect("one")], None, Keys::new(), &events);
            let (address, error) = refused.expect_err("a refusal");
            super::super::Error::Listen(address, error).to_string()
        };
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let taken = other.local_addr().expect("one");
        assert!(told(&taken.to_string()).ends_with("another program has the port: listen.port may say another"));
        assert!(told("192.0.2.1:17901").contains("this host has no such address"));
        assert!(advice(&io::ErrorKind::PermissionDenied.into()).contains("CAP_NET_BIND_SERVICE"));
        assert_eq!(advice(&io::ErrorKind::OutOfMemory.into()), "");
    }

    /// Who connected unsigned before the key came is not taken for the neighbour who has it.
    #[tokio::test]
    async fn what_was_waiting_when_a_key_came_is_turned_away() {
        let (events, mut told) = mpsc::channel(8);
        let mut listeners =
            Listeners::bind(&["127.0.0.1:0".parse().expect("one")], None, Keys::new(), &events).expect("bound");
        let to = listeners.addresses()[0];
        // Blocking: nobody else runs meanwhile, and the connection waits in the kernel.
        let _waits = std::net::TcpStream::connect(to).expect("connected");
        let him = IpAddr::from([127, 0, 0, 9]);
        let secret = Authentication::Md5("secret".to_owned());
        let refused = listeners.set_keys(Keys::from([((him, 32), secret.clone())]));
        assert!(refused.is_empty() && listeners.demands(him, &secret));
        let _new = std::net::TcpStream::connect(to).expect("connected");
        let Some(Event::Accepted { keys, .. }) = told.recv().await else { panic!("a connection") };
        assert!(listeners.is_current(keys));
        tokio::time::sleep(Duration::from_millis(50)).await;
        while let Ok(event) = told.try_recv() {
            let Event::Accepted { keys, .. } = event else { panic!("{event:?}") };
            assert!(!listeners.is_current(keys), "two have come by the new keys");
        }
    }
}
