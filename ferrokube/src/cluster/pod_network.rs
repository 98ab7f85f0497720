//! What a cluster tells its pod network, which of them it has, and how all of them are removed. The networks are in
//! `network/pod`. I/O: through them.

use std::sync::Arc;

use anyhow::{Context, Result};
use pod_network::{NETWORKS, PodNetwork, Setup};

use crate::config::{Host, RUN_ROOT, host_lock};
use crate::fault::Fault;

fn setup(host: &Host) -> Setup {
    Setup {
        tag: host.tag(),
        bridge: host.bridge(),
        pods: host.cluster.pod_cidr,
        services: host.cluster.service_cidr,
        ranges_by_way: host.cluster.leases_in_etcd(),
        state_dir: host.data_dir.join("cni"),
        range_file: host.node_range_file(),
        settings_dir: RUN_ROOT.into(),
        host_lock: host_lock().to_owned(),
    }
}

/// The network of the cluster's row, with what a former life left.
pub fn open(host: &Host) -> Result<Arc<dyn PodNetwork>> {
    let row = pod_network::named(host.cluster.network().name()).map_err(Fault::failed)?;
    Ok((row.open)(&setup(host)))
}

/// Removes what any network made for the cluster. The host's lock is held.
pub fn remove(host: &Host) -> Result<()> {
    let setup = setup(host);
    NETWORKS.iter().try_for_each(|row| (row.remove)(&setup).with_context(|| format!("the pod network {:?}", row.name)))
}
