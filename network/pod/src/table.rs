//! The pod networks that a cluster may have, by name. A new one is a row here; `reset` takes away what any of them made,
//! whichever it was that the cluster had.

use std::path::PathBuf;
use std::sync::Arc;

use meta::Ranges;

use crate::network::{NetError, PodNetwork};
use crate::{bridge, configured, flannel};

/// What a cluster tells its pod network, whichever that is.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What objects of the cluster on this host are called: "ferrokube". No other cluster of the host has it.
    pub tag: String,
    /// The name of its bridge, 15 bytes at most.
    pub bridge: String,
    /// The pods of all nodes.
    pub pods: Ranges,
    /// The addresses of Services: no pod has one.
    pub services: Ranges,
    /// Which addresses are the node's is said with the way to other nodes, not by the kubelet.
    pub ranges_by_way: bool,
    /// Where records are kept.
    pub state_dir: PathBuf,
    /// Where the node's range is kept.
    pub range_file: PathBuf,
    /// Where the host's settings are kept as they were before the first cluster; all clusters of the host share it.
    pub settings_dir: PathBuf,
    /// A directory that is locked while settings of the host are changed or given back, by every cluster.
    pub host_lock: PathBuf,
}

/// A pod network.
#[derive(Debug)]
pub struct Row {
    /// What [`named`] and errors call it.
    pub name: &'static str,
    /// Takes up what a former life left. It never fails: what is wrong is told by [`PodNetwork::ready`].
    pub open: fn(&Setup) -> Arc<dyn PodNetwork>,
    /// Removes all that the network made on this host, records too. Idempotent; called with the host's lock held and
    /// without pods.
    pub remove: fn(&Setup) -> Result<(), NetError>,
}

/// Every pod network.
pub const NETWORKS: &[Row] = &[flannel::ROW, bridge::ROW, configured::ROW];

/// The row of a name, or a sentence that says which names there are.
pub fn named(name: &str) -> Result<&'static Row, String> {
    let names: Vec<_> = NETWORKS.iter().map(|row| row.name).collect();
    let row = NETWORKS.iter().find(|row| row.name == name);
    row.ok_or_else(|| format!("there is no pod network {name:?}: there is {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_by_name_and_others_named() {
        assert!(NETWORKS.iter().all(|row| named(row.name).is_ok_and(|found| found.name == row.name)));
        assert_eq!(named("weave").unwrap_err(), "there is no pod network \"weave\": there is flannel, bridge, cni");
    }
}
