//! Keeps the ConfigMap `cluster-info`, once there is one, leading to this server when its address changes: machines that
//! join find the cluster by it. What a person has put there stays: a name, or an address that the certificate has by
//! `--tls-san`, as of a load balancer; and so does another server's. I/O: the API server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints};
use kube::Api;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Host, list};
use crate::joining::published;
use crate::pki::Pki;

/// How soon it is tried again, and how soon after a move it is looked at once more: the others still know the old address.
const RETRY: Duration = Duration::from_secs(10);

/// Follows the host's address until `stop`.
pub async fn run(
    host: Arc<Host>,
    admin: kube::Client,
    mut node_ip: watch::Receiver<Vec<IpAddr>>,
    stop: CancellationToken,
) -> Result<()> {
    let mut moved = false;
    loop {
        let now = node_ip.borrow_and_update().first().copied();
        let done = match now {
            Some(now) => follow(&host, &admin, now).await,
            None => Ok(()),
        };
        if let Err(error) = &done {
            tracing::warn!(error = format!("{error:#}"), "cluster-info may lead to an old address; trying again");
        }
        let again = async {
            match done.is_err() || moved {
                true => tokio::time::sleep(RETRY).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = again => moved = false,
            changed = node_ip.changed() => match changed {
                Ok(()) => moved = true,
                Err(_) => return Ok(()),
            },
        }
    }
}

async fn follow(host: &Host, admin: &kube::Client, now: IpAddr) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), published::PUBLIC);
    let Some(told) = maps.get_opt(published::CLUSTER_INFO).await? else { return Ok(()) };
    // One that listens on loopback alone shows nothing.
    let Ok(server) = published::server(host, now) else { return Ok(()) };
    let others = if host.cluster.has_etcd_elsewhere() { living(admin).await? } else { Vec::new() };
    if !is_stale(&told, &server, list(&host.cluster.options.tls_san), &others) {
        return Ok(());
    }
    let ca = Pki::of(host).ca();
    let ca = std::fs::read_to_string(&ca).with_context(|| ca.display().to_string())?;
    published::apply(admin, &host.cluster, &server, &ca).await?;
    tracing::info!(server, "cluster-info leads to this server's address");
    Ok(())
}

/// Addresses of the API servers that live.
async fn living(admin: &kube::Client) -> Result<Vec<String>> {
    let endpoints: Api<Endpoints> = Api::namespaced(admin.clone(), "default");
    let subsets = endpoints.get_opt("kubernetes").await?.and_then(|found| found.subsets).unwrap_or_default();
    Ok(subsets.into_iter().flat_map(|subset| subset.addresses.unwrap_or_default()).map(|address| address.ip).collect())
}

/// Whether it leads to an address where nobody is.
fn is_stale(told: &ConfigMap, server: &str, names: &[String], others: &[String]) -> bool {
    let text = told.data.as_ref().and_then(|data| data.get("kubeconfig")).map_or("", String::as_str);
    let kubeconfig = crate::yaml::parse(text).unwrap_or(Value::Null);
    let Some(before) = kubeconfig["clusters"][0]["cluster"]["server"].as_str() else { return true };
    let address = before.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let kept = address.parse::<IpAddr>().is_err() || names.contains(&address) || others.contains(&address);
    before != server && !kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(server: &str) -> ConfigMap {
        let kubeconfig = format!("clusters: [{{name: '', cluster: {{server: '{server}'}}}}]");
        let data = [("kubeconfig".to_owned(), kubeconfig)].into();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn only_an_address_where_no_server_is_is_replaced() {
        let (here, names, others) = ("https://192.0.2.2:6443", ["192.0.2.100".to_owned()], ["192.0.2.3".to_owned()]);
        let stale = |told: &str| is_stale(&map(told), here, &names, &others);
        assert!(stale("https://192.0.2.1:6443"), "it has moved");
        assert!(!stale(here));
        assert!(!stale("https://api.example:6443"), "a person's name");
        assert!(!stale("https://192.0.2.100:6443"), "a load balancer");
        assert!(!stale("https://192.0.2.3:6443"), "another server lives there");
        assert!(is_stale(&ConfigMap::default(), here, &names, &others), "it says nothing");
    }

    #[tokio::test]
    async fn who_moves_is_found_again_and_who_shows_nothing_goes_on_showing_nothing() {
        let (client, _server) = crate::api::tests::admin().await;
        let dir = tempfile::tempdir().expect("a directory");
        let host = crate::config::tests::host(dir.path());
        crate::pki::Pki::ensure(&host, &[[192, 0, 2, 1].into()]).expect("keys");
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), published::PUBLIC);
        follow(&host, &client, [192, 0, 2, 1].into()).await.expect("looked");
        assert!(maps.get_opt(published::CLUSTER_INFO).await.expect("asked").is_none());
        published::apply(&client, &host.cluster, "https://192.0.2.1:6443", "PEM").await.expect("shown");
        follow(&host, &client, [192, 0, 2, 2].into()).await.expect("followed");
        let told = maps.get(published::CLUSTER_INFO).await.expect("there").data.expect("data");
        assert!(told["kubeconfig"].contains("https://192.0.2.2:6443"), "{told:?}");
    }
}
