//! How the control plane's components are configured here: etcd, kube-apiserver, kube-controller-manager,
//! kube-scheduler.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use apiserver::config::{EndpointReconciler, KeyPair};
use futures::FutureExt;
use serving::tls::{Clients, Files};

use super::store::{self, LocalStore};
use super::{Assembly, Serving, pods_door, ready};
use crate::api::{Api, Identity};
use crate::component;
use crate::config::{Host, Roles, SERVICE_LB, list};
use crate::fault::Fault;
use crate::hardening;
use crate::pki::{Pair, Pki};

pub async fn etcd(a: &mut Assembly) -> Result<Serving> {
    if let Some(config) = store::elsewhere(&a.host) {
        let remote = apiserver::storage::remote::connect(config).await;
        let remote = remote.map_err(|error| Fault::failed(format!("the etcd of --etcd-servers: {error}")))?;
        a.store = Some(Arc::new(remote));
        return Ok(ready::already());
    }
    let dir = a.host.data_dir.join("etcd");
    // The API server uses the store in process; etcdctl and backups come by TLS, with a certificate of etcd's own CA.
    let server = a.pki.pair("etcd/server");
    let mut config = etcd::daemon::Config {
        name: a.host.node_name.clone(),
        data_dir: dir,
        listen_client_urls: vec![format!("https://127.0.0.1:{}", a.host.etcd_port())],
        tls: etcd::daemon::TlsFiles {
            cert: Some(server.cert),
            key: Some(server.key),
            trusted_ca: Some(a.pki.etcd_ca()),
            client_cert_auth: true,
        },
        ..etcd::daemon::Config::default()
    };
    component::etcd::over(&mut config, list(&a.host.cluster.options.etcd_arg))?;
    let options = config.options();
    let store = tokio::task::spawn_blocking(move || etcd::Etcd::open(options)).await?;
    let store = store.map_err(|e| Fault::failed(e.to_string()))?;
    a.store = Some(Arc::new(LocalStore(store.clone())));
    a.etcd = Some(store.clone());
    let daemon = etcd::daemon::Daemon::around(store, config).await.map_err(|e| Fault::failed(e.to_string()))?;
    a.parts.run("etcd", |stop| async move {
        daemon.serve(stop).await;
        Ok(())
    });
    Ok(ready::already())
}

fn key_pair(pair: &Pair) -> KeyPair {
    KeyPair { cert_file: pair.cert.clone(), key_file: pair.key.clone() }
}

fn server_config(host: &Host, pki: &Pki, node_ip: IpAddr) -> Result<apiserver::Config> {
    let mut config = apiserver::Config {
        bind_address: host.bind_address(),
        also_bind: host.api_address_of_pods(),
        secure_port: host.cluster.api_port,
        advertise_address: Some(host.advertised(node_ip)),
        endpoint_reconciler: match host.cluster.has_etcd_elsewhere() {
            true => EndpointReconciler::Lease,
            false => EndpointReconciler::Sole,
        },
        tls: Some(key_pair(&pki.pair("apiserver"))),
        client_ca_file: Some(pki.ca()),
        requestheader_client_ca_file: Some(pki.pair("front-proxy-ca").cert),
        requestheader_allowed_names: vec!["front-proxy-client".into()],
        enable_bootstrap_token_auth: true,
        service_account_issuer: host.cluster.issuer(),
        service_account_signing_key_file: Some(pki.service_account_key()),
        service_account_key_files: vec![pki.service_account_key()],
        service_cluster_ip_range: host.cluster.service_cidr.to_string(),
        kubelet_client: Some(key_pair(&pki.pair("apiserver-kubelet-client"))),
        kubelet_certificate_authority: Some(pki.ca()),
        ..apiserver::Config::default()
    };
    hardening::api_server(host, &mut config);
    component::apiserver::over(&mut config, list(&host.cluster.options.kube_apiserver_arg))?;
    Ok(config)
}

/// What the API server of this cluster is told.
pub fn settings(host: &Host) -> Result<apiserver::Config> {
    server_config(host, &Pki::of(host), crate::node_address::of(host))
}

pub async fn apiserver(a: &mut Assembly) -> Result<Serving> {
    let store = a.store.clone().ok_or_else(|| anyhow!("etcd is not started"))?;
    let config = server_config(&a.host, &a.pki, a.node_ip())?;
    if a.new_keys && a.host.cluster.has_etcd_elsewhere() {
        store::check_empty(&*store, &config.etcd_prefix).await?;
    }
    if let Some(address) = a.host.api_address_of_pods() {
        dns::claim(super::node::DNS_LINK, address)?;
    }
    if a.host.roles().has(Roles::NODE) {
        pods_door::keep(&a.host, a.host.api_address_of_pods())?;
    }
    let stop = a.parts.token("kube-apiserver");
    let running =
        apiserver::daemon::start(config, store.clone(), stop).await.map_err(|e| Fault::failed(e.to_string()))?;
    a.api = Some(Api::Here(running.server.clone()));
    a.parts.spawn("kube-apiserver", async move {
        running.wait().await;
        Ok(())
    });
    let admin = a.client(&Identity::Admin).await?;
    futures::try_join!(
        super::addons::apply(admin.clone(), &a.host.cluster),
        super::flannel::publish(&admin, &a.host.cluster),
        crate::joining::published::refresh(&admin, &a.host.cluster)
    )?;
    hardening::apply(&admin, &a.host.cluster).await?;
    hardening::encryption::seal(&*store, &admin, &a.host).await?;
    Ok(ready::already())
}

/// The pages of a component: on loopback, as they are for this host, with the API server's certificate, which names it.
fn pages(a: &Assembly, port: u16) -> client::pages::Config {
    let Pair { cert, key } = a.pki.pair("apiserver");
    client::pages::Config {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, a.host.port(port))),
        files: Files { cert, key },
        clients: Clients::Of(a.pki.ca()),
    }
}

/// Those that are off by default are for machines that join.
const CONTROLLERS: [&str; 4] =
    ["*", "bootstrap-signer-controller", "token-cleaner-controller", "kubelet-serving-approving-controller"];

/// Where other servers may share the store, one of them leads: by upstream's Leases and times.
fn candidate(host: &Host, lease: &str) -> Option<client::lease::Candidate> {
    let shared = host.cluster.has_etcd_elsewhere();
    shared.then(|| client::lease::Candidate::new(lease, &component::candidate()))
}

/// The controllers of this cluster.
fn controllers(host: &Host) -> Vec<String> {
    let mut words: Vec<String> = CONTROLLERS.map(String::from).to_vec();
    if !list(&host.cluster.options.disable).iter().any(|part| part == SERVICE_LB) {
        words.push("service-lb-controller".to_owned());
    }
    words
}

/// Ports that no Service is reached at on a node's own address: what a cluster of ours listens on on any host, and the
/// administrator's way in. kube-proxy leaves alone what else listens there.
fn reserved_node_ports(host: &Host) -> Vec<(String, i32)> {
    const SSH: u16 = 22;
    // WireGuard's are reserved where it is the backend: VPNs in pods have them, too.
    const FLANNEL: [u16; 2] = [8285, 8472];
    // Of the first cluster of a host, which others of these nodes may be in, and of this one.
    let upstreams = [2379, 2380, 6443, 10248, 10249, 10250, 10256, 10257, 10259];
    let own = [host.cluster.api_port, host.kubelet_port(), host.etcd_port()];
    let shifted = [10248, 10249, 10256, 10257, 10259].map(|port| host.port(port));
    let tcp = [SSH].into_iter().chain(upstreams).chain(own).chain(shifted).map(|port| ("TCP".to_owned(), port.into()));
    let udp = FLANNEL.into_iter().chain(host.cluster.flannel_ports());
    tcp.chain(udp.map(|port| ("UDP".to_owned(), port.into()))).collect()
}

pub async fn controller_manager(a: &mut Assembly) -> Result<Serving> {
    let controller_clients = a.api()?.controller_clients().await?;
    let ca = a.pki.ca();
    let root_ca = std::fs::read_to_string(&ca).with_context(|| ca.display().to_string())?;
    let signing = crate::signing::TokenKey::read(&a.pki.service_account_key())?;
    let issuer = crate::signing::read_ca_signer(&ca, &a.pki.pair("ca").key)?;
    let mut config = controller_manager::Config {
        serving: Some(pages(a, 10257)),
        leader_election: candidate(&a.host, "kube-controller-manager"),
        token_signer: Some(Arc::new(signing)),
        certificate_signer: Some(Arc::new(issuer)),
        cluster_name: a.host.cluster.name.clone(),
        cluster_cidrs: a.host.cluster.pod_cidr.iter().map(|range| range.to_string()).collect(),
        service_cidrs: a.host.cluster.service_cidr.iter().map(|range| range.to_string()).collect(),
        controllers: controllers(&a.host),
        reserved_node_ports: reserved_node_ports(&a.host),
        load_balancer_pool: a.host.cluster.load_balancer_pool(),
        keep_node_names: true,
        allocate_node_cidrs: !a.host.cluster.leases_in_etcd(),
        default_accounts_without_tokens: a.host.cluster.hardened,
        root_ca: Some(root_ca),
        controller_clients: Some(controller_clients),
        ..controller_manager::Config::default()
    };
    component::controller_manager::over(&mut config, list(&a.host.cluster.options.kube_controller_manager_arg))?;
    let client = a.client(&Identity::ControllerManager).await?;
    // Who waits for another's lease to end is well, too.
    let (ready, elected) = (config.ready.clone(), config.leader_election.is_some());
    a.parts.run("kube-controller-manager", |stop| async move {
        controller_manager::daemon::run(config, client, stop).await.map_err(Into::into)
    });
    let admin = a.client(&Identity::Admin).await?;
    Ok(async move {
        if !elected {
            ready.wait().await;
        }
        ready::accounts(admin).await
    }
    .boxed())
}

pub async fn scheduler(a: &mut Assembly) -> Result<Serving> {
    let client = a.client(&Identity::Scheduler).await?;
    let mut config = scheduler::Config {
        seed: u64::from(std::process::id()),
        serving: Some(pages(a, 10259)),
        leader_election: candidate(&a.host, "kube-scheduler"),
        ..scheduler::Config::default()
    };
    component::scheduler::over(&mut config, list(&a.host.cluster.options.kube_scheduler_arg))?;
    let (ready, elected) = (config.ready.clone(), config.leader_election.is_some());
    a.parts.run("kube-scheduler", |stop| async move { scheduler::run(config, client, stop).await.map_err(Into::into) });
    Ok(if elected { ready::already() } else { ready::latch(ready) })
}

#[cfg(test)]
mod tests {
    use apiserver::storage::memory::MemoryStore;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_server_on_loopback_is_led_to_by_an_address_of_its_pods() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = crate::config::tests::host(dir.path());
        let node = IpAddr::from([192, 0, 2, 1]);
        let of = |host: &Host| server_config(host, &Pki::of(host), node).expect("settings");
        let config = of(&host);
        assert_eq!((config.also_bind, config.advertise_address), (None, Some(node)));
        host.options.bind_address = Some(Ipv4Addr::LOCALHOST.into());
        host.cluster.options.kube_apiserver_arg = Some(vec!["event-ttl=2h".into()]);
        let config = of(&host);
        let pods = Some(IpAddr::from([10, 43, 255, 255]));
        assert_eq!((config.bind_address, config.also_bind), (IpAddr::V4(Ipv4Addr::LOCALHOST), pods));
        assert_eq!((config.advertise_address, config.event_ttl.as_secs()), (pods, 7200));
    }

    /// The ranges of nodes, in the order of these names, once a controller manager with these ranges is content.
    async fn given(client: &kube::Client, ranges: &[&str], names: &[&str]) -> Vec<Vec<String>> {
        use k8s_openapi::api::core::v1::Node;
        let stop = CancellationToken::new();
        let config = controller_manager::Config {
            controllers: vec!["node-ipam-controller".into()],
            allocate_node_cidrs: true,
            cluster_cidrs: ranges.iter().map(|range| (*range).to_owned()).collect(),
            ..controller_manager::Config::default()
        };
        let runs = tokio::spawn(controller_manager::daemon::run(config, client.clone(), stop.clone()));
        let nodes = kube::Api::<Node>::all(client.clone());
        let mut all = Vec::new();
        for _ in 0..200 {
            all.clear();
            for name in names {
                let spec = nodes.get(name).await.expect("a node").spec.unwrap_or_default();
                let has = spec.pod_cidrs.unwrap_or_default();
                assert_eq!(spec.pod_cidr.as_ref(), has.first());
                all.push(has);
            }
            if all.iter().all(|has: &Vec<String>| has.len() == ranges.len()) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        stop.cancel();
        runs.await.expect("a task").expect("an end");
        all
    }

    /// With an API server that judges what a node may be given.
    #[tokio::test]
    async fn nodes_of_before_are_given_a_range_of_the_clusters_second_family_and_keep_both() {
        let (client, _server) = crate::api::tests::admin().await;
        let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(client.clone());
        let names = ["a", "b", "c"];
        for name in names {
            let node = serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            let node = serde_json::from_value(node).expect("a node");
            nodes.create(&kube::api::PostParams::default(), &node).await.expect("made");
        }
        let before = given(&client, &["10.42.0.0/16"], &names).await;
        let now = given(&client, &["10.42.0.0/16", "fd42::/56"], &names).await;
        let firsts: Vec<_> = now.iter().map(|has| has[..1].to_vec()).collect();
        assert_eq!(firsts, before);
        let mut seconds: Vec<_> = now.iter().map(|has| has[1].as_str()).collect();
        seconds.sort_unstable();
        assert_eq!(seconds, ["fd42:0:0:1::/64", "fd42:0:0:2::/64", "fd42::/64"], "none is anybody else's");
        assert_eq!(given(&client, &["10.42.0.0/16", "fd42::/56"], &names).await, now, "in the next life, too");
    }

    #[tokio::test]
    async fn a_server_listens_on_both_addresses_at_one_port() {
        let config = apiserver::Config {
            bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            also_bind: Some(IpAddr::from([127, 0, 0, 2])),
            secure_port: 0,
            ..apiserver::Config::default()
        };
        let stop = CancellationToken::new();
        let running = apiserver::daemon::start(config, Arc::new(MemoryStore::default()), stop.clone()).await;
        let running = running.expect("started");
        let port = running.address.expect("an address").port();
        for address in [[127, 0, 0, 1], [127, 0, 0, 2]] {
            assert!(tokio::net::TcpStream::connect((IpAddr::from(address), port)).await.is_ok(), "{address:?}");
        }
        assert!(tokio::net::TcpStream::connect((IpAddr::from([127, 0, 0, 3]), port)).await.is_err());
        stop.cancel();
        running.wait().await;
    }
}
