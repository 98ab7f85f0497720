//! Keeps the cluster's certificates from running out while it runs: makes new ones in time, in the files that servers
//! and clients look at, and brings the administrator's into the kubeconfigs that have it. I/O: files, the clock.
//!
//! A node that has its certificates from another host's CA asks for them with a CertificateSigningRequest: what it gets
//! goes into the same files, and is read by the same `serving::tls::CertKeyPair`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serving::refusals::Refusals;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Host, Roles};
use crate::joining::credentials::{self, CLIENT};
use crate::joining::request::{Signer, certificate};
use crate::kubeconfig;
use crate::pki::{ADMIN, LOOK, Pki, Renewal, SERVING, of_node};

/// A look that failed is soon followed by another.
const RETRY: Duration = Duration::from_secs(5);

/// Looks until `stop`. `node` speaks as this host's kubelet.
pub async fn run(
    host: Arc<Host>,
    node: kube::Client,
    node_ip: watch::Sender<Vec<IpAddr>>,
    stop: CancellationToken,
) -> Result<()> {
    let told = Refusals::default();
    let alone = !host.roles().has(Roles::CONTROL_PLANE);
    // Where the CA's key is, the start has just looked; a node alone begins with what stands in.
    let mut next = if alone { Duration::ZERO } else { LOOK };
    let mut moves = node_ip.subscribe();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(next) => next = LOOK,
            // Where the CA's key is, who follows the move makes them.
            Ok(()) = moves.changed(), if alone => next = LOOK,
        }
        let node_ips = node_ip.borrow().clone();
        let look = async {
            match alone {
                true => ask(&host, &node, &node_ips).await,
                false => {
                    let host = host.clone();
                    tokio::task::spawn_blocking(move || renew(&host, &node_ips, Timestamp::now())).await?.map(drop)
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            looked = look => if let Err(error) = looked {
                next = RETRY;
                let error = format!("{error:#}");
                // The next look is soon, and the reason the same.
                if told.is_news(&error) {
                    tracing::error!(error, "certificates could not be renewed; trying again");
                }
            }
        }
    }
}

/// Asks the cluster's CA for what is due on a node alone.
async fn ask(host: &Host, node: &kube::Client, node_ips: &[IpAddr]) -> Result<()> {
    let pki = Pki::of(host);
    for (leaf, signer, names) in
        [(CLIENT, Signer::KubeletClient, Vec::new()), (SERVING, Signer::KubeletServing, of_node(host, node_ips))]
    {
        if leaf == SERVING && host.cluster.foreign.as_ref().is_some_and(|foreign| !foreign.serving_certificates) {
            pki.stand_in(host, node_ips, Timestamp::now())?;
            continue;
        }
        // Who was given credentials by hand has its client's under names of their own.
        if !pki.pair(leaf).cert.exists() || !pki.owes(leaf, &names, Timestamp::now()) {
            continue;
        }
        let key = credentials::next_key(&pki, leaf)?;
        let signed = certificate(node, signer, &host.node_name, names, &key, LOOK).await.context(leaf)?;
        credentials::keep(&pki, leaf, &signed, &key)?;
        tracing::info!(certificate = leaf, "the cluster's CA has signed it");
    }
    Ok(())
}

/// Makes new certificates of those that are due.
pub fn renew(host: &Host, node_ips: &[IpAddr], now: Timestamp) -> Result<Renewal> {
    // Two may come at the same moment, for the time and for the address.
    static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _turn = TURN.lock();
    let renewal = Pki::renew(host, node_ips, now)?;
    if renewal.renewed.iter().any(|name| name == ADMIN) {
        let admin = kubeconfig::write_admin(host, &renewal.pki)?;
        kubeconfig::renew_in_user_files(host, &admin).context("the user's kubeconfig")?;
    }
    if !renewal.renewed.is_empty() {
        tracing::info!(certificates = renewal.renewed.join(", "), "renewed");
    }
    Ok(renewal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::host;

    #[test]
    fn a_host_with_another_address_has_certificates_that_name_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let now = Timestamp::from_second(1_767_225_600).expect("a time");
        let (old, new) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        renew(&host, &[old], now).expect("made");
        assert_eq!(renew(&host, &[new], now).expect("made").renewed, ["apiserver", "etcd/server", "kubelet"]);
        assert!(renew(&host, &[new], now).expect("looked").renewed.is_empty());
        // One of the second family is the node's, and with it the API server's.
        let v6: IpAddr = "2001:db8::1".parse().expect("an address");
        let all = ["apiserver", "etcd/server", "kubelet"];
        assert_eq!(renew(&host, &[new, v6], now).expect("made").renewed, all);
        assert!(renew(&host, &[new, v6], now).expect("looked").renewed.is_empty());
        let moved: IpAddr = "2001:db8::2".parse().expect("an address");
        assert_eq!(renew(&host, &[new, moved], now).expect("made").renewed, all);
    }

    #[test]
    fn a_node_alone_asks_for_a_certificate_that_names_all_its_addresses() {
        let mut host = host("/nowhere".as_ref());
        host.cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let names = |texts: &[&str]| format!("{:?}", of_node(&host, &ips(texts)));
        let both = of_node(&host, &ips(&["192.0.2.1", "2001:db8::1"]));
        assert_eq!(both.len(), 3, "its name and two addresses: {both:?}");
        assert!(both.contains(&rcgen::SanType::IpAddress("2001:db8::1".parse().expect("an address"))), "{both:?}");
        // The bridge's may be that of every node that has no range yet: what names it nobody signs.
        assert_eq!(names(&["192.0.2.1", "fd42::1"]), names(&["192.0.2.1"]));
        assert_eq!(of_node(&host, &ips(&["10.42.0.1"])).len(), 2, "a host without any has it alone");
    }

    #[test]
    fn the_administrators_kubeconfig_has_the_new_certificate() {
        let dir = tempfile::tempdir().expect("a directory");
        let (host, node) = (host(dir.path()), IpAddr::from([192, 0, 2, 1]));
        let at = |day: i64| Timestamp::from_second(1_767_225_600 + day * 86_400).expect("a time");
        let user = |host: &Host| kubeconfig::read_admin(host).expect("a kubeconfig")["users"][0].clone();
        assert_eq!(renew(&host, &[node], at(0)).expect("made").renewed.len(), 7);
        let first = user(&host);
        assert!(renew(&host, &[node], at(100)).expect("looked").renewed.is_empty());
        assert_eq!(user(&host), first);
        assert_eq!(renew(&host, &[node], at(250)).expect("made").renewed.len(), 7);
        assert_ne!(user(&host), first);
    }
}
