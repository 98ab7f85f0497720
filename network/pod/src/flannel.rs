//! The pod network of a cluster on many hosts whose packets between them flannel carries. Pods are on a bridge, as in the
//! network of one host; what flannel knows (how long a packet may be, and whose range this is where leases are in etcd) is
//! told by `set_way`. Does I/O. Which of flannel's things are a cluster's is known here, so that they are removed without it.

use std::sync::Arc;

use linux::netlink::{Route, Rtnl, TABLE_MAIN};
use linux::nft::{Family, Nft};

use crate::bridge::{Bridge, Hosts};
use crate::network::NetError;
use crate::table::{Row, Setup};

pub const ROW: Row = Row { name: "flannel", open: |setup| Arc::new(Bridge::open(setup.clone(), Hosts::Many)), remove };

/// The name of flannel's nftables tables of a cluster with this tag.
pub fn table(tag: &str) -> String {
    format!("{tag}-flannel")
}

/// All of it from under a cluster that has another network now: routes to other hosts, too.
pub fn clear(setup: &Setup) -> Result<(), NetError> {
    remove(setup)?;
    let mut rtnl = Rtnl::open().map_err(cni::Error::from)?;
    let leads_elsewhere = |route: &Route| {
        let in_pods = setup.pods.iter().any(|pods| pods.covers(&route.dst));
        route.is_ours() && route.table == TABLE_MAIN && route.gateway().is_some() && in_pods
    };
    for route in rtnl.routes().map_err(cni::Error::from)?.iter().filter(|route| leads_elsewhere(route)) {
        rtnl.delete_route(route).map_err(cni::Error::from)?;
    }
    Ok(())
}

/// Links with the cluster's tag, and with them all that leads into them; rules. A TUN link goes with its process, and
/// routes to pods are the bridge's to remove.
fn remove(setup: &Setup) -> Result<(), NetError> {
    let mut rtnl = Rtnl::open().map_err(cni::Error::from)?;
    for link in rtnl.links().map_err(cni::Error::from)? {
        if link.is_tunnel() && link.alias.as_deref() == Some(&setup.tag) {
            rtnl.delete_link(&link.name).map_err(cni::Error::from)?;
        }
    }
    let mut nft = Nft::open().map_err(cni::Error::from)?;
    for family in [Family::Ip, Family::Ip6] {
        let table = table(&setup.tag);
        if nft.has_table(family, &table).map_err(cni::Error::from)? {
            nft.remove_table(family, &table).map_err(cni::Error::from)?;
        }
    }
    Ok(())
}
