//! Whether the kernel's routes may be this process's: nobody else writes them, and the kernel lets it. Does I/O: binds a
//! socket, asks the kernel for a change that changes nothing. Called by [`super::Kernel::start`].
//!
//! Two daemons with one table and one protocol number take each other's routes for those of an earlier process of their own,
//! and remove them. What keeps them apart is a name among the abstract sockets: there is one such space for each network
//! namespace, as of routing tables, and a name goes with the process that has it, however that ends.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use linux::netlink::{RouteChange, Rtnl};
use meta::Prefix;

use super::StartError;
use super::said::Config;

/// That this process alone writes routes of one protocol into one table, for as long as it is held. Nobody reads it.
#[derive(Debug)]
pub struct Alone {
    _name: UnixDatagram,
}

impl Alone {
    /// In the network namespace of the calling thread.
    pub fn claim(config: &Config) -> Result<Alone, StartError> {
        let Config { table, protocol, .. } = *config;
        let name = format!("ferrokube/bgp/routes/table-{table}/protocol-{protocol}");
        match SocketAddr::from_abstract_name(name).and_then(|address| UnixDatagram::bind_addr(&address)) {
            Ok(socket) => Ok(Alone { _name: socket }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(StartError::Another { table, protocol }),
            Err(error) => Err(StartError::Claim(error)),
        }
    }
}

/// Whether the kernel takes changes of routes from this process. Its capabilities do not say: in a user namespace it may have
/// all of them, and none over this network namespace.
pub fn may_write(config: &Config, rtnl: &mut Rtnl) -> Result<(), StartError> {
    // No route of a speaker leads to this address: the right is looked at before the route is.
    let dst = Prefix::host(std::net::Ipv4Addr::UNSPECIFIED);
    let nothing = RouteChange::Delete { dst, table: config.table, metric: u32::MAX, protocol: config.protocol };
    let refused = rtnl.change_routes(&[nothing])?.into_iter().any(|(_, error)| error.is_forbidden());
    if refused { Err(StartError::Forbidden) } else { Ok(()) }
}
