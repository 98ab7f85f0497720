//! A switch between hosts of their own: each gets a link and an address, and can be cut off without noticing by itself, as
//! when somebody pulls the cable behind the next device.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use crate::{Cluster, Host};

/// The network of the switch, and what a host's link is called.
pub const NETWORK: &str = "198.51.100";
pub const WIRE: &str = "wire";

/// See the module's head. Its host has the bridge, and addresses for whatever runs beside the clusters.
#[derive(Debug)]
pub struct Lan {
    pub host: Host,
    ports: AtomicUsize,
}

/// A host's place at the switch.
#[derive(Debug)]
pub struct Port {
    name: String,
}

impl Lan {
    /// A switch that has this address itself.
    pub fn new(last: u8) -> Result<Lan> {
        let host = Host::new()?;
        host.sh(&format!(
            "ip link add switch type bridge; ip address add {NETWORK}.{last}/24 dev switch; ip link set switch up"
        ))?;
        Ok(Lan { host, ports: AtomicUsize::new(0) })
    }

    /// Gives the host of a cluster a link with this address.
    pub fn join(&self, cluster: &Cluster, last: u8) -> Result<Port> {
        let host = cluster.host.as_ref().context("a cluster on a host of its own")?;
        let name = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        host.sh(&format!(
            "ip link add {WIRE} type veth peer name {name} netns {}; ip address add {NETWORK}.{last}/24 dev {WIRE}; \
             ip link set {WIRE} up",
            self.host.pid()
        ))?;
        self.host.sh(&format!("ip link set {name} master switch up"))?;
        Ok(Port { name })
    }

    /// Nothing comes or goes any more.
    pub fn cut(&self, port: &Port) -> Result<()> {
        self.host.sh(&format!("ip link set {} nomaster", port.name)).map(drop)
    }

    pub fn mend(&self, port: &Port) -> Result<()> {
        self.host.sh(&format!("ip link set {} master switch", port.name)).map(drop)
    }
}
