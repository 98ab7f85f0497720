//! Names among the abstract Unix sockets (`unix(7)`): a network namespace has one space of them, and a name goes with the
//! process that has it, however that ends. Anybody may take one, so who holds it matters. Does I/O.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// What taking a name came to.
#[derive(Debug)]
pub enum Taken {
    /// It is this process's, as long as this lives.
    Ours(OwnedFd),
    /// Root, or this process's user, has it.
    Peers,
    /// Somebody has it whose word counts for nothing here: another user, or one who does not listen as we do.
    Strangers,
}

/// Takes a name in the network namespace of the calling thread.
pub fn take(name: &str) -> io::Result<Taken> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let socket = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    };
    let ours = socket()?;
    match rustix::net::bind(&ours, &address) {
        Ok(()) => {
            // Nobody is ever answered: who connects learns whose socket it is.
            rustix::net::listen(&ours, 16)?;
            Ok(Taken::Ours(ours))
        }
        Err(rustix::io::Errno::ADDRINUSE) => {
            let asked = socket()?;
            let holder = rustix::net::connect(&asked, &address)
                .and_then(|()| rustix::net::sockopt::socket_peercred(&asked))
                .map(|credentials| credentials.uid);
            let is_peer = holder.is_ok_and(|uid| uid.is_root() || uid == rustix::process::geteuid());
            Ok(if is_peer { Taken::Peers } else { Taken::Strangers })
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_holder_and_a_squatter_is_none() {
        let name = format!("ferrokube-test-{}", std::process::id());
        let held = take(&name).unwrap();
        assert!(matches!(held, Taken::Ours(_)));
        assert!(matches!(take(&name).unwrap(), Taken::Peers));
        drop(held);
        // Names are apart for each type of socket: one that is bound, and listens to nobody.
        let squatter = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&squatter, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
        assert!(matches!(take(&name).unwrap(), Taken::Strangers));
        drop(squatter);
        assert!(matches!(take(&name).unwrap(), Taken::Ours(_)));
    }
}
