//! Whether the kernel's routes may be this process's: nobody else writes them, and the kernel lets it. Does I/O: binds a
//! socket, asks the kernel for a change that changes nothing. Called by [`super::Kernel::start`].
//!
//! Two daemons with one table and one protocol number take each other's routes for those of an earlier process of their own,
//! and remove them. What keeps them apart is a name among the abstract sockets: there is one such space for each network
//! namespace, as of routing tables, and a name goes with the process that has it, however that ends. A user who may write no routes keeps nobody
//! away by taking it.

use std::os::fd::OwnedFd;

use linux::abstract_name::{self, Taken};
use linux::netlink::{RouteChange, Rtnl};
use meta::Prefix;

use super::StartError;
use super::said::Config;

/// That this process alone writes routes of one protocol into one table, for as long as it is held. Nobody reads it.
#[derive(Debug)]
pub struct Alone {
    _name: Option<OwnedFd>,
}

impl Alone {
    /// In the network namespace of the calling thread.
    pub fn claim(config: &Config) -> Result<Alone, StartError> {
        let Config { table, protocol, .. } = *config;
        let name = format!("ferrokube/bgp/routes/table-{table}/protocol-{protocol}");
        match abstract_name::take(&name).map_err(StartError::Claim)? {
            Taken::Ours(name) => Ok(Alone { _name: Some(name) }),
            Taken::Peers => Err(StartError::Another { table, protocol }),
            Taken::Strangers => {
                tracing::warn!(name, "a user who may write no routes has the name that would keep another daemon away");
                Ok(Alone { _name: None })
            }
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
