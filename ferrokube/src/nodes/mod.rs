//! Further nodes on this host, each a machine to kubectl and to the network (`up --nodes N`, `node`).
//!
//! ```text
//!   the host                                                 a node: network, mounts, PIDs, name, groups of its own
//!   daemon of `up`: control plane and the host's own node    init (process 1): starts the daemon, and again when it ends
//!     keeper ── reads the record, starts what is to run ───>   └ daemon: a node alone, as `agent` has it
//!     <data-dir>/nodes/.record   which there are                 <data-dir>/nodes/NAME: all that it keeps
//!     <run-dir>/nodes/NAME       its init, as the host sees it    /run, /proc, /sys: the node's own
//!
//!   underlay: the bridge fk0-nodes with .1 ──── veth ──── eth0 with an address that stays
//! ```
//!
//! A node knows nothing of this: its daemon finds the API server by the kubeconfigs in its directory and renews its
//! certificates by requests, as on a machine that joined. It goes on when the host's daemon is killed, and is found again
//! by the file that names its init; it ends with that process, and with it all of its namespaces.
//!
//! - [`crate::config::record`]: which nodes there are. The commands write it, the keeper reads it.
//! - [`underlay`]: the link between them, and each one's cable.
//! - [`home`]: a node's directory and what it is given, seen from the host.
//! - [`machine`]: the process that becomes a node's init.
//! - [`life`]: which nodes run, and how one is ended.
//! - [`images`]: one image for all of them.
//! - [`wish`]: what `up --nodes` asks for.
//!
//! The keeper is `cluster::nodes`: it stands above these, beside the components.

pub mod home;
pub mod images;
pub mod life;
pub mod machine;
pub mod underlay;
pub mod wish;

use std::time::Duration;

use std::net::IpAddr;

use anyhow::{Context, Result};
use linux::netns::NetNs;
use rustix::process::Signal;

use crate::config::{Host, record};
use crate::fault::best_effort;

/// Ends every node with the host's part of the cluster. None is started any more by this process, which is about to end.
pub fn close(host: &Host, patience: Duration) -> Result<usize> {
    if !record::dir(host).exists() {
        return Ok(0);
    }
    // Whoever is about to start one waits for it as long as this process lives.
    std::mem::forget(record::lock(host)?);
    life::end_all(host, Signal::TERM, patience)
}

/// The link between nodes as the record has it, with what the cluster has got since it was written: on the host's side,
/// where `addresses` are then looked for, and in nodes that run. Nothing where this host never had a further node.
pub fn link(host: &Host, addresses: impl Fn() -> Vec<IpAddr>) -> Result<()> {
    let Some(before) = record::read(host)? else { return Ok(()) };
    let mut gained = underlay::with_families(host, before.clone())?;
    if gained != before {
        let _lock = record::lock(host)?;
        // A command may have changed it meanwhile.
        gained = underlay::with_families(host, record::read(host)?.unwrap_or(before))?;
        record::write(host, &gained)?;
    }
    underlay::ensure(host, &gained)?;
    if gained.range6.is_none() {
        return Ok(());
    }
    let addresses = addresses();
    for node in &gained.nodes {
        let Some(init) = life::find(host, &node.name) else { continue };
        let settled =
            NetNs::open(format!("/proc/{}/ns/net", init.pid)).map_err(anyhow::Error::from).and_then(|inside| {
                // Its number could be another's by now.
                anyhow::ensure!(init.lives(), "it has ended");
                underlay::settle(host, &gained, node, &addresses, &inside)
            });
        // One that ends meanwhile has it when it is started again.
        best_effort("a node's addresses of the cluster's second family", settled.map_err(|error| format!("{error:#}")));
    }
    Ok(())
}

/// Removes what the nodes of a cluster have in the kernel besides their groups. The host's lock is not held.
pub fn remove(host: &Host) -> Result<()> {
    life::end_all(host, Signal::KILL, Duration::ZERO).context("nodes")?;
    underlay::remove(host).context("the link between nodes")
}
