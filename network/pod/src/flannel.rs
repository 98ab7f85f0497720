//! The pod network of a cluster on many hosts whose packets between them flannel carries. Pods are on a bridge, as in the
//! network of one host; what flannel knows (how long a packet may be, and whose range this is where leases are in etcd) is
//! told by `set_way`. Does I/O. Which of flannel's things are a cluster's is known here, so that they are removed without it.

use std::sync::Arc;

use linux::netlink::{LinkKind, Rtnl};
use linux::nft::{Family, Nft};

use crate::bridge::{Bridge, Hosts};
use crate::network::NetError;
use crate::table::{Row, Setup};

pub const ROW: Row = Row { name: "flannel", open: |setup| Arc::new(Bridge::open(setup.clone(), Hosts::Many)), remove };

/// The name of flannel's nftables tables of a cluster with this tag.
pub fn table(tag: &str) -> String {
    format!("{tag}-flannel")
}

/// Links with the cluster's tag, and with them all that leads into them; rules. A TUN link goes with its process, and
/// routes to pods are the bridge's to remove.
fn remove(setup: &Setup) -> Result<(), NetError> {
    let mut rtnl = Rtnl::open().map_err(cni::Error::from)?;
    for link in rtnl.links().map_err(cni::Error::from)? {
        if matches!(link.kind, Some(LinkKind::Vxlan(_))) && link.alias.as_deref() == Some(&setup.tag) {
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
