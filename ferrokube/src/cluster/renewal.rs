//! Keeps the cluster's certificates from running out while it runs: makes new ones in time, in the files that servers
//! and clients look at, and brings the administrator's into the kubeconfigs that have it. I/O: files, the clock.
//!
//! A node that has its certificates from another host's CA will ask for them with a CertificateSigningRequest: what it
//! gets goes into the same files, and is read by the same `serving::tls::Identity`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Cluster;
use crate::kubeconfig;
use crate::pki::Pki;

/// How often certificates are looked at. They have months left when they are due; a host that slept as long has an
/// hour after it woke.
const LOOK: Duration = Duration::from_secs(3600);

/// Looks until `stop`.
pub async fn run(cluster: Arc<Cluster>, node_ip: watch::Sender<Vec<IpAddr>>, stop: CancellationToken) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        let (cluster, node_ip) = (cluster.clone(), super::moving::first(&node_ip));
        let look = tokio::task::spawn_blocking(move || renew(&cluster, node_ip, Timestamp::now())).await;
        if let Err(error) = look.map_err(anyhow::Error::from).flatten() {
            tracing::error!(error = format!("{error:#}"), "certificates could not be renewed; trying again in an hour");
        }
    }
}

/// Makes new certificates of those that are due, and gives their names.
pub fn renew(cluster: &Cluster, node_ip: Ipv4Addr, now: Timestamp) -> Result<Vec<String>> {
    // Two may come at the same moment, for the time and for the address.
    static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _turn = TURN.lock();
    let renewal = Pki::renew(cluster, node_ip, now)?;
    if !renewal.renewed.is_empty() {
        let admin = kubeconfig::write_admin(cluster, &renewal.pki)?;
        kubeconfig::renew_in_user_files(cluster, &admin).context("the user's kubeconfig")?;
        tracing::info!(certificates = renewal.renewed.join(", "), "renewed");
    }
    Ok(renewal.renewed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::cluster;

    #[test]
    fn a_host_with_another_address_has_certificates_that_name_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = cluster(dir.path());
        let now = Timestamp::from_second(1_767_225_600).expect("a time");
        let (old, new) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        renew(&cluster, old, now).expect("made");
        assert_eq!(renew(&cluster, new, now).expect("made"), ["apiserver", "kubelet", "etcd/server"]);
        assert!(renew(&cluster, new, now).expect("looked").is_empty());
    }

    #[test]
    fn the_administrators_kubeconfig_has_the_new_certificate() {
        let dir = tempfile::tempdir().expect("a directory");
        let (cluster, node) = (cluster(dir.path()), Ipv4Addr::new(192, 0, 2, 1));
        let at = |day: i64| Timestamp::from_second(1_767_225_600 + day * 86_400).expect("a time");
        let user = |cluster: &Cluster| kubeconfig::read_admin(cluster).expect("a kubeconfig")["users"][0].clone();
        assert_eq!(renew(&cluster, node, at(0)).expect("made").len(), 7);
        let first = user(&cluster);
        assert!(renew(&cluster, node, at(100)).expect("looked").is_empty());
        assert_eq!(user(&cluster), first);
        assert_eq!(renew(&cluster, node, at(250)).expect("made").len(), 7);
        assert_ne!(user(&cluster), first);
    }
}
