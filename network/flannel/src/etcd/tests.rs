//! Leases of which etcd's answer is lost, with an etcd of ours behind a way that loses it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use etcd::Etcd;
use etcd::daemon::{Config, Daemon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;

/// Etcd at a port of loopback, in a thread of its own.
struct Server {
    address: SocketAddr,
    store: Etcd,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().join("etcd"),
            listen_client_urls: vec!["http://127.0.0.1:0".to_owned()],
            unsafe_no_fsync: true,
            ..Config::default()
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let stop = CancellationToken::new();
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let daemon = Daemon::start(config).await.unwrap();
                let store = daemon.store().clone();
                sender.send((store.clone(), daemon.urls().remove(0))).unwrap();
                daemon.serve(told).await;
                store.close();
            });
        });
        let (store, url) = receiver.recv().unwrap();
        let address = url.trim_start_matches("http://").parse().unwrap();
        Server { address, store, stop, thread: Some(thread), _dir: dir }
    }

    /// The keys of leases, each with its lease of etcd.
    async fn leases(&self) -> Vec<(String, i64)> {
        let (key, range_end) = (Bytes::from_static(b"/x/subnets/"), Bytes::from_static(b"/x/subnets0"));
        let request = wire::etcd::RangeRequest { key, range_end, ..Default::default() };
        let name = |kv: &KeyValue| String::from_utf8_lossy(&kv.key).replace("/x/subnets/", "");
        self.store.range(request).await.unwrap().kvs.iter().map(|kv| (name(kv), kv.lease)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A way to etcd on which the first answer to whoever puts a lease is lost: the connection ends when etcd has answered.
async fn lossy(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let lost = Arc::new(AtomicBool::new(false));
    let told = lost.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            tokio::spawn(lose(near, far, told.clone()));
        }
    });
    (address, lost)
}

async fn lose(mut near: TcpStream, mut far: TcpStream, lost: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut puts = false;
    loop {
        tokio::select! {
            read = near.read(&mut asked) => {
                let Ok(n @ 1..) = read else { return };
                // Whoever only looks names no subnet.
                puts |= asked[..n].windows(11).any(|bytes| bytes == b"subnets/10.");
                if far.write_all(&asked[..n]).await.is_err() {
                    return;
                }
            }
            read = far.read(&mut answered) => {
                let Ok(n @ 1..) = read else { return };
                // Acknowledgements of HTTP/2 itself are shorter than any answer.
                if puts && n > 60 && !lost.swap(true, Ordering::AcqRel) {
                    return;
                }
                if near.write_all(&answered[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn registry(endpoints: &[SocketAddr]) -> Registry {
    let urls = endpoints.iter().map(|address| format!("http://{address}")).collect();
    let endpoints = Endpoints { urls, ..Endpoints::default() };
    let options = Options { endpoints, prefix: "/x".to_owned(), renew_margin: Duration::from_secs(3600) };
    Registry::new(&options).unwrap()
}

fn conf(text: &str) -> NetConf {
    NetConf::parse(text.as_bytes()).unwrap()
}

fn own() -> Attributes {
    Attributes {
        public_ip: Some([192, 0, 2, 1].into()),
        public_ipv6: Some("2001:db8::1".parse().unwrap()),
        backend_type: "host-gw".to_owned(),
        ..Attributes::default()
    }
}

const ONE: &str = r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}"#;
const BOTH: &str =
    r#"{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd05::/48", "Backend": {"Type": "host-gw"}}"#;

#[tokio::test]
async fn a_lease_that_was_made_without_an_answer_is_had() {
    let server = Server::start();
    let (lossy, lost) = lossy(server.address).await;
    let before = server.store.revision();
    let acquired = registry(&[lossy, server.address]).acquire(&conf(ONE), &own(), None).await.unwrap();
    assert!(lost.load(Ordering::Acquire), "the answer was lost");
    let [(key, lease)] = &server.leases().await[..] else { panic!("one lease") };
    assert!(*key == acquired.lease.subnets.key() && *lease != 0 && acquired.renew.is_some());
    assert_eq!(server.store.revision(), before + 1, "it was put once, and never taken back");
}

#[tokio::test]
async fn a_lease_that_grew_without_an_answer_is_had() {
    let server = Server::start();
    let first = registry(&[server.address]).acquire(&conf(ONE), &own(), None).await.unwrap();
    let (lossy, lost) = lossy(server.address).await;
    let before = server.store.revision();
    let grown = registry(&[lossy, server.address]).acquire(&conf(BOTH), &own(), None).await.unwrap();
    assert!(lost.load(Ordering::Acquire), "the answer was lost");
    assert_eq!(grown.lease.subnets.v4, first.lease.subnets.v4);
    let leases = server.leases().await;
    assert!(leases.len() == 1 && leases[0].0 == grown.lease.subnets.key(), "{leases:?}");
    assert_eq!(server.store.revision(), before + 1);
}

#[tokio::test]
async fn a_renewal_without_an_answer_keeps_its_lease() {
    let server = Server::start();
    let (lossy, lost) = lossy(server.address).await;
    let lease = Lease { subnets: Subnets::of_key("10.5.7.0-24").unwrap(), attributes: own() };
    // There is no other endpoint to put it at again.
    assert!(registry(&[lossy]).write(&lease, false).await.unwrap().is_some() && lost.load(Ordering::Acquire));
    let leases = server.leases().await;
    assert!(leases.len() == 1 && leases[0].1 != 0, "{leases:?}");
}
