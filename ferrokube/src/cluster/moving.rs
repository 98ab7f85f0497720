//! The host gets another address while the cluster runs (DHCP, Wi-Fi, a cable): certificates name it, the `kubernetes`
//! Service leads there, and the kubelet tells it of the node and its pods. An address that is configured
//! stays. I/O: hears of changes from the kernel, writes certificates, calls the API server.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kubelet::addresses::Changes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::renewal;
use crate::api::Api;
use crate::config::Host;
use crate::node_address;

/// How soon a move that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The first address that is told.
pub fn first(told: &[IpAddr]) -> IpAddr {
    // Nobody tells nothing here.
    told.first().copied().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Follows the host until `stop`.
pub async fn run(host: Arc<Host>, told: watch::Sender<Vec<IpAddr>>, api: Api, stop: CancellationToken) -> Result<()> {
    if host.node_ip.is_some_and(|said| host.cluster.pod_cidr.iter().all(|range| said.family(range.is_ipv6()).is_some()))
    {
        stop.cancelled().await;
        return Ok(());
    }
    let mut changes = Changes::open();
    // What has changed since the start began was not heard of.
    let mut retry = Some(Duration::ZERO);
    loop {
        let again = async {
            match retry {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = changes.next() => {}
            () = again => {}
        }
        let before = told.borrow().clone();
        let unfinished = retry.is_some_and(|pause| !pause.is_zero());
        let now = node_address::next(&host, &before);
        if now == before && !unfinished {
            retry = None;
            continue;
        }
        tracing::info!(?before, ?now, "the host's address has changed");
        retry = match follow(&host, &told, &api, &now).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "not everything has the host's new address, trying again");
                Some(RETRY)
            }
        };
    }
}

/// Every step may be done twice.
async fn follow(host: &Arc<Host>, told: &watch::Sender<Vec<IpAddr>>, api: &Api, now: &[IpAddr]) -> Result<()> {
    // Before the certificates: who renews them meanwhile does it for the same address.
    told.send_if_modified(|known| std::mem::replace(known, now.to_vec()) != now);
    // Whoever the Service leads to the new address finds a server that names it.
    let (shared, all) = (host.clone(), now.to_vec());
    let named = tokio::task::spawn_blocking(move || renewal::renew(&shared, &all, Timestamp::now())).await;
    let named = named.map_err(anyhow::Error::from).flatten().context("certificates");
    let led = api.advertise(host.advertised(first(now))).await.context("the kubernetes Service");
    named.map(drop).and(led)
}
